"""What a search tree says about its steps: which of two siblings is better, and how often a step led to a right end.

Pairs follow rStar-Math (arXiv 2501.04519, section 3.2): of one parent's children the two of highest Q that lead to a
right end against the two of lowest Q that lead only to wrong ones, and, for the last step, the two best right
trajectories against the two worst wrong ones. A value target is the mean result of the rollouts through a node.

Pure. Limits: steps that failed to run are left out, as the search never asks the PRM about them; the tree is believed,
so a wrong reference answer becomes wrong pairs.
"""

from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from heapq import nlargest, nsmallest
from statistics import fmean

from pydantic import BaseModel, ConfigDict, Field, model_validator
from rapidfuzz.distance import Levenshtein

CHOSEN = 2
"""Positives and negatives taken of one parent, as in the paper."""


class Node(BaseModel):
    """One step of a search tree. `q` is the mean of the results (+1 right, -1 wrong) of the rollouts through it."""

    model_config = ConfigDict(frozen=True)

    id: str
    parent: str | None = Field(description="None for a first step.")
    text: str
    ran: bool
    q: float = Field(ge=-1.0, le=1.0)
    visits: int = Field(ge=0)
    terminal: bool
    correct: bool | None = None


class Tree(BaseModel):
    """One search of one problem: a line of the trainer's input. Parents may stand after their children."""

    model_config = ConfigDict(frozen=True)

    problem_id: str
    problem: str
    round: int
    nodes: list[Node]

    @model_validator(mode="after")
    def _is_a_tree(self) -> "Tree":
        parents = {node.id: node.parent for node in self.nodes}
        if len(parents) < len(self.nodes):
            raise ValueError("two nodes have the same id")
        rooted: set[str | None] = {None}
        for start in parents:
            way: list[str] = []
            at: str | None = start
            while at is not None and at not in rooted:
                if at not in parents:
                    raise ValueError(f"a node has the parent {at!r}, which is not in the tree")
                if len(way) > len(parents):
                    raise ValueError(f"node {start!r} is its own ancestor")
                way.append(at)
                at = parents[at]
            rooted.update(way)
        return self


@dataclass(frozen=True, slots=True)
class Pair:
    """Node ids of a better and a worse step. `weight` is 1 over the number of pairs that its group may have."""

    better: str
    worse: str
    weight: float


@dataclass(frozen=True, slots=True)
class Value:
    """Target in [0, 1] for the score after a node, and how much it counts, in (0, 1]."""

    target: float
    weight: float


@dataclass(frozen=True, slots=True)
class Preferences:
    """All that one tree teaches. Ids in pairs and values are of nodes that ran."""

    siblings: tuple[Pair, ...]
    trajectories: tuple[Pair, ...]
    values: dict[str, Value]
    ends: dict[str, bool]
    """Finished trajectories by their last node: right or wrong."""

    @property
    def pairs(self) -> tuple[Pair, ...]:
        """Pairs of both kinds, each once."""
        known = {(pair.better, pair.worse) for pair in self.siblings}
        return self.siblings + tuple(
            pair for pair in self.trajectories if (pair.better, pair.worse) not in known
        )


def preferences(tree: Tree, *, margin: float, edit_distance: int) -> Preferences:
    """Pairs whose Q differs by at least `margin` and whose texts by at least `edit_distance` characters, and values."""
    nodes = nodes_that_ran(tree)
    ends = {node.id: node.correct for node in nodes.values() if node.terminal and node.correct is not None}
    right, wrong = _leading(nodes, ends, to=True), _leading(nodes, ends, to=False)
    children: dict[str | None, list[Node]] = defaultdict(list)
    for node in nodes.values():
        children[node.parent].append(node)

    def kept(good: list[Node], bad: list[Node], text: Callable[[Node], str]) -> list[Pair]:
        pairs = [
            (better.id, worse.id)
            for better in good
            for worse in bad
            if better.q - worse.q >= margin and _distant(text(better), text(worse), edit_distance)
        ]
        weight = 1.0 / max(1, len({better for better, _ in pairs}) * len({worse for _, worse in pairs}))
        return [Pair(better, worse, weight) for better, worse in pairs]

    siblings = [
        pair
        for group in children.values()
        for pair in kept(
            nlargest(CHOSEN, (node for node in group if node.id in right), _q),
            nsmallest(CHOSEN, (node for node in group if node.id in wrong - right), _q),
            lambda node: node.text,
        )
    ]

    # Chosen by the mean over the steps, and the margin is that of the ends: a wrong end under good steps has a mean near
    # that of a right one.
    def mean_q(end: Node) -> float:
        return fmean(node.q for node in path(nodes, end.id))

    trajectories = kept(
        nlargest(CHOSEN, (nodes[end] for end, correct in ends.items() if correct), mean_q),
        nsmallest(CHOSEN, (nodes[end] for end, correct in ends.items() if not correct), mean_q),
        lambda end: "\n".join(node.text for node in path(nodes, end.id)),
    )
    return Preferences(tuple(siblings), tuple(trajectories), _values(nodes), ends)


def nodes_that_ran(tree: Tree) -> dict[str, Node]:
    """Nodes that ran and whose ancestors ran, parents before children."""
    known = {node.id: node for node in tree.nodes}
    found: dict[str, Node] = {}
    for start in tree.nodes:
        way: list[Node] = []
        at: str | None = start.id
        while at is not None and at not in found:
            way.append(known[at])
            at = known[at].parent
        for node in reversed(way):
            if not node.ran:
                break
            found[node.id] = node
    return found


def path(nodes: dict[str, Node], end: str) -> list[Node]:
    """The nodes from the first step to `end`."""
    way: list[Node] = []
    at: str | None = end
    while at is not None:
        way.append(nodes[at])
        at = nodes[at].parent
    return way[::-1]


def _leading(nodes: dict[str, Node], ends: dict[str, bool], *, to: bool) -> set[str]:
    """Nodes from which an end of this kind was reached, the ends themselves among them."""
    return {node.id for end, correct in ends.items() if correct is to for node in path(nodes, end)}


def _q(node: Node) -> float:
    return node.q


def _distant(one: str, other: str, least: int) -> bool:
    # Beyond the cut-off the distance is not computed any further.
    return least <= 0 or Levenshtein.distance(one, other, score_cutoff=least - 1) >= least


def _values(nodes: dict[str, Node]) -> dict[str, Value]:
    """Monte-Carlo values. The mean of v results of a coin is off by about 1/sqrt(v), so few visits count for less."""
    values: dict[str, Value] = {}
    for node in nodes.values():
        if node.terminal and node.correct is not None:
            values[node.id] = Value(float(node.correct), 1.0)
        elif node.visits:
            values[node.id] = Value((node.q + 1) / 2, node.visits / (node.visits + 1))
    return values
