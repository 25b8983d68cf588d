"""Search trees of a rule that a tiny model can learn: a step is right as long as it and all before it add."""

import random
from pathlib import Path
from typing import Any

from ratchet.solutions.preferences import Tree

DEPTH = 3


def known_tree(problem: int, *, rng: random.Random, round_: int = 1) -> Tree:
    """Each node has two or three children, one of them adds and one does not; Q and visits are those of all the ends."""
    each = rng.randint(10, 99)
    nodes: list[dict[str, Any]] = []

    def grow(parent: str | None, depth: int, right: bool) -> list[float]:
        signs = ["+", "-", *rng.choice(("", "+", "-"))]
        rng.shuffle(signs)
        results: list[float] = []
        for sign in signs:
            still, last = right and sign == "+", depth == DEPTH - 1
            code = f"print(x{depth} {sign} {each})" if last else f"x{depth + 1} = x{depth} {sign} {each}"
            node: dict[str, Any] = {
                "id": f"n{len(nodes)}",
                "parent": parent,
                "text": f"# Step {depth + 1}: number {len(nodes)}.\n{code}",
                "ran": True,
                "terminal": last,
                "correct": still if last else None,
            }
            nodes.append(node)
            ends = [1.0 if still else -1.0] if last else grow(node["id"], depth + 1, still)
            node |= {"q": sum(ends) / len(ends), "visits": len(ends)}
            results += ends
        return results

    grow(None, 0, True)
    return Tree.model_validate(
        {
            "problem_id": f"p{problem}",
            "problem": f"Maria has {each} cups. How many in all?",
            "round": round_,
            "nodes": nodes,
        }
    )


def known_trees(problems: int, *, seed: int = 0) -> list[Tree]:
    """One tree of each of so many problems."""
    rng = random.Random(seed)
    return [known_tree(problem, rng=rng) for problem in range(problems)]


def write_trees(file: Path, trees: list[Tree]) -> Path:
    """As the trainer reads them."""
    file.write_text("".join(tree.model_dump_json() + "\n" for tree in trees))
    return file
