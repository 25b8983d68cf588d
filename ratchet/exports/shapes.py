"""From solutions and search trees to rows: the shapes that others train on.

Pairs are those that our own PRM is trained on (`ratchet.solutions.preferences`; rStar-Math, arXiv 2501.04519, section 3.2).
A step's label is Math-Shepherd's hard estimate (arXiv 2312.08935, section 3.3): whether any rollout through it ended right;
its soft label is the share of rollouts that did, with the weight that we give to it beside it.

Pure. Limits: a step that failed to run is in no row; the tree is believed, so a wrong reference answer becomes wrong labels.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from ratchet.contracts.policy import Prefix
from ratchet.exports.kinds import Kind, Style
from ratchet.solutions.preferences import Node, Preferences, Tree, nodes_that_ran, path
from ratchet.solutions.programs import program_of
from ratchet.solutions.step_formats import END_OF_CODE, Markers

Row = dict[str, Any]


def prompt_of(style: Style, problem: str, steps: Sequence[str] = ()) -> str:
    """What comes before the next step."""
    if style is Style.MARKERS:
        # Not checked again: what was stored may be longer than a request may be.
        return Markers().render(Prefix.model_construct(problem=problem, steps=list(steps)))
    return problem.strip() + "\n\n" + "".join(f"{step}\n" for step in steps)


def completion_of(style: Style, steps: Sequence[str], *, whole: bool = True) -> str:
    """What follows: all steps to the end, or (not `whole`) some that others follow. An end token is not in it."""
    if style is Style.MARKERS:
        return Markers().join(steps) + (END_OF_CODE if whole else "")
    return program_of(list(steps)) + "\n"


def messages_of(problem: str, steps: Sequence[str]) -> list[dict[str, str]]:
    """The problem, and the program in a fence."""
    program = program_of(list(steps))
    ticks = "```"
    while ticks in program:
        ticks += "`"
    return [
        {"role": "user", "content": problem.strip()},
        {"role": "assistant", "content": f"{ticks}python\n{program}\n{ticks}"},
    ]


def solution_rows(line: Mapping[str, Any], style: Style) -> Iterator[tuple[Kind, Row]]:
    """The rows of a verified solution: `problem`, `steps`, and where it comes from."""
    about = {
        "problem_id": line["id"],
        "round": line.get("round"),
        "family": line.get("family") or None,
        "difficulty": line.get("difficulty"),
        "weight": line.get("weight", 1.0),
    }
    problem, steps = line["problem"], line["steps"]
    yield Kind.MESSAGES, {"messages": messages_of(problem, steps), **about}
    prompt, completion = prompt_of(style, problem), completion_of(style, steps)
    yield Kind.PROMPT_COMPLETION, {"prompt": prompt, "completion": completion, **about}


def tree_rows(tree: Tree, found: Preferences, style: Style) -> Iterator[tuple[Kind, Row]]:
    """The rows of a search tree whose ends were compared with a reference answer; `found` is what it teaches."""
    nodes = nodes_that_ran(tree)
    about = {"problem_id": tree.problem_id, "round": tree.round or None}
    yield from _pair_rows(tree.problem, nodes, found, style, about)
    right = {node.id for end, correct in found.ends.items() if correct for node in path(nodes, end)}
    known: set[tuple[str, ...]] = set()
    for end, correct in found.ends.items():
        way = path(nodes, end)
        yield (
            Kind.STEPWISE,
            {
                "prompt": tree.problem.strip(),
                "completions": [node.text for node in way],
                "labels": [node.id in right for node in way],
                "soft_labels": [_soft(found, node)[0] for node in way],
                "soft_weights": [_soft(found, node)[1] for node in way],
                "correct": correct,
                **about,
            },
        )
        texts = tuple(node.text for node in way)
        if texts not in known:
            known.add(texts)
            prompt, completion = prompt_of(style, tree.problem), completion_of(style, texts)
            yield Kind.KTO, {"prompt": prompt, "completion": completion, "label": correct, **about}


def _pair_rows(
    problem: str, nodes: dict[str, Node], found: Preferences, style: Style, about: Row
) -> Iterator[tuple[Kind, Row]]:
    siblings = set(found.siblings)
    for pair in found.pairs:
        better, worse = nodes[pair.better], nodes[pair.worse]
        of_steps = pair in siblings
        before = [node.text for node in path(nodes, better.id)[:-1]] if of_steps else []
        texts = [
            completion_of(style, [end.text], whole=end.terminal)
            if of_steps
            else completion_of(style, [node.text for node in path(nodes, end.id)])
            for end in (better, worse)
        ]
        yield (
            Kind.PREFERENCE,
            {
                "prompt": prompt_of(style, problem, before),
                "chosen": texts[0],
                "rejected": texts[1],
                "pair": "step" if of_steps else "solution",
                "q_chosen": better.q,
                "q_rejected": worse.q,
                "weight": pair.weight,
                **about,
            },
        )


def _soft(found: Preferences, node: Node) -> tuple[float, float]:
    """The share of rollouts through the node that ended right, and what it counts; nothing is known where none went."""
    value = found.values.get(node.id)
    return (0.5, 0.0) if value is None else (value.target, value.weight)
