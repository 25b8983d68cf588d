"""Steps and trees of steps like those of a search, the same for the same seed.

A step works on the state that its parent left (`total`) and prints it, so that a step run from a wrong state prints a
wrong number. An algebra step does one small thing in sympy: 2 to 6 ms with numbers that are new, once an interpreter
has done its like (the very first use of a part of sympy costs 20 to 90 ms, of which most is that part's own start).
Trees grow as in Monte Carlo tree search: chains from random nodes towards the depth limit.
"""

import random
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

DEPTH = 16
BRANCHING = 4
MODULUS = 1_000_003


class Kind(StrEnum):
    """What steps do."""

    TRIVIAL = "trivial"
    """Arithmetic on small integers."""
    ALGEBRA = "algebra"
    """Each step asks sympy something."""
    MIXED = "mixed"
    """Arithmetic and algebra in turn, as in the solution of a problem."""


@dataclass(frozen=True)
class Node:
    """A step of a tree."""

    parent: int | None
    """Index of the step before it; none for a first step."""
    depth: int
    code: str


def _arithmetic(draw: random.Random) -> str:
    return (
        f"total = (total * {draw.randrange(2, 99)} + {draw.randrange(1, 999)}) % {MODULUS}\n"
        f"share = total / {draw.randrange(2, 12)}\nprint(total, round(share, 2))"
    )


def _algebra(draw: random.Random) -> str:
    a, b, n = draw.randrange(2, 60), draw.randrange(2, 60), draw.randrange(10, 400)
    question = draw.choice(
        [
            f"sum(sympy.solve(x**2 - {a + b}*x + {a * b}, x))",
            f"sympy.expand((x + {a})**3 * (x - {b})**2).coeff(x, 2)",
            f"sympy.simplify(({a}*x + {a * b}) / {a}).subs(x, {n})",
            f"sympy.summation({a}*x + {b}, (x, 1, {n}))",
            f"sympy.diff({a}*x**3 + sympy.sin({b}*x), x).subs(x, 0)",
        ]
    )
    return (
        "import sympy\nx = sympy.symbols('x')\n"
        f"found = {question}\n"
        f"total = (total + int(found)) % {MODULUS}\nprint(total, found)"
    )


def step(kind: Kind, depth: int, number: int, draw: random.Random) -> str:
    """The step at this depth, from 1. The number makes it differ from its siblings."""
    algebra = kind is Kind.ALGEBRA or (kind is Kind.MIXED and depth % 2 == 0)
    body = _algebra(draw) if algebra else _arithmetic(draw)
    first = f"total = {draw.randrange(1, 999)}\n" if depth == 1 else ""
    return f"# Step {number}: what follows from the steps before it.\n{first}{body}"


def chain(kind: Kind, length: int, draw: random.Random) -> list[str]:
    """Steps that follow one another."""
    return [step(kind, depth, depth, draw) for depth in range(1, length + 1)]


def tree(kind: Kind, nodes: int, seed: int) -> list[Node]:
    """A tree, parents before children."""
    draw = random.Random(seed)
    grown: list[Node] = []
    children: dict[int | None, int] = {}
    while True:
        open_nodes = [index for index, node in enumerate(grown) if node.depth < DEPTH]
        parent = draw.choice([index for index in [None, *open_nodes] if children.get(index, 0) < BRANCHING])
        reached = 0 if parent is None else grown[parent].depth
        for depth in range(reached + 1, draw.randint(reached + 1, DEPTH) + 1):
            children[parent] = children.get(parent, 0) + 1
            grown.append(Node(parent, depth, step(kind, depth, len(grown), draw)))
            if len(grown) == nodes:
                return grown
            parent = len(grown) - 1


def path(nodes: Sequence[Node], index: int) -> list[str]:
    """The steps from the first to this one."""
    steps: list[str] = []
    at: int | None = index
    while at is not None:
        steps.append(nodes[at].code)
        at = nodes[at].parent
    return steps[::-1]


def one_by_one(nodes: Sequence[Node]) -> list[list[int]]:
    """The order of growth, one node at a time."""
    return [[index] for index in range(len(nodes))]


def level_by_level(nodes: Sequence[Node]) -> list[list[int]]:
    """All nodes of a depth at a time."""
    levels: list[list[int]] = [[] for _ in range(DEPTH)]
    for index, node in enumerate(nodes):
        levels[node.depth - 1].append(index)
    return [level for level in levels if level]
