"""The vote: the one place where the trajectories of a search become answers.

Search, early stop, evaluation, gate and report all count here. Where trajectories ended (`find_ends`) is grouped by answer, in
any spelling, and the groups are ordered: by how many trajectories gave them where the strategy is a majority vote, otherwise by
the PRM's scores (`vote_of`). How probable the leading answer is says `ratchet.solutions.aggregator`; it does not choose.

Pure. What other votes are worth is measured in docs/measurements/trust.md.
"""

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from ratchet.contracts.search import StrategyName
from ratchet.solutions.answers import answer_key

UNSCORED = 0.5
"""The score of a trajectory that the PRM has not seen."""
_SCORE_EDGE = 1e-3
"""Scores this near to 0 and 1 have no larger log-odds."""


class TreeNode(Protocol):
    """A step of a search tree, as the search keeps it and as the store does."""

    @property
    def id(self) -> str: ...
    @property
    def parent(self) -> str | None: ...
    @property
    def ordinal(self) -> Any:
        """Orders the nodes of one tree."""

    @property
    def prm_score(self) -> float | None: ...
    @property
    def visits(self) -> int: ...
    @property
    def expansions(self) -> int: ...
    @property
    def answer(self) -> str | None: ...


@dataclass(frozen=True, slots=True)
class End:
    """Where trajectories of a tree ended in an answer."""

    node: str
    """Id of their last step."""
    answer: str
    scores: tuple[float, ...]
    """The PRM's, of the steps from the first to the last; empty where nothing was scored."""
    votes: int
    """Rollouts that ended here."""
    mass: float
    """The share of the policy's own trajectories that is expected to end here, in [0, 1].

    A rollout from the root is drawn freely; one from a deeper node began where the strategy chose. So each node's mass is split
    among its children by the rollouts that came to them from at or above it, and however often a strategy starts below a node
    it gains no mass.
    """

    @property
    def score(self) -> float:
        """The PRM's score of the whole: that of the last step, which has seen all of them."""
        return self.scores[-1] if self.scores else UNSCORED


@dataclass(frozen=True, slots=True)
class AnswerGroup:
    """One answer, and the ends that gave it."""

    key: str
    """Equal for answers that are the same in any spelling."""
    ends: tuple[End, ...]
    """In the order in which they were given, one at least."""
    weight: float
    """What the vote says for it: of two groups the heavier one leads."""

    @property
    def votes(self) -> int:
        """Rollouts that ended with this answer."""
        return sum(end.votes for end in self.ends)


Weigh = Callable[[Sequence[Sequence[End]]], Sequence[float]]
"""Weights of answers, each given by its ends."""


def by_count(groups: Sequence[Sequence[End]]) -> list[float]:
    """Each trajectory has one vote (self-consistency, arXiv 2203.11171)."""
    return [float(sum(end.votes for end in ends)) for ends in groups]


def by_prm(groups: Sequence[Sequence[End]]) -> list[float]:
    """Each trajectory that the policy is expected to draw weighs as much as the PRM's score of it.

    Of independent trajectories this is weighted best-of-N (arXiv 2206.02336). In a tree that the PRM has grown, visits would
    count its opinion twice; mass does not.
    """
    return [sum(end.mass * end.score for end in ends) for ends in groups]


def vote_of(strategy: StrategyName) -> Weigh:
    """The vote that chooses the answer of a search with this strategy."""
    return by_count if strategy in (StrategyName.MAJORITY, StrategyName.GREEDY) else by_prm


def count_votes(ends: Iterable[End], weigh: Weigh) -> list[AnswerGroup]:
    """The answers, the heaviest first; of two that weigh the same, the one that was given first."""
    by_key: dict[str, list[End]] = {}
    for end in ends:
        by_key.setdefault(answer_key(end.answer), []).append(end)
    weights = weigh(list(by_key.values()))
    counted = [
        AnswerGroup(key, tuple(group), weight)
        for (key, group), weight in zip(by_key.items(), weights, strict=True)
    ]
    return sorted(counted, key=lambda group: -group.weight)


def find_ends(nodes: Iterable[TreeNode]) -> list[End]:
    """The ends of a tree by their ordinals, those that no rollout came to left out.

    `nodes`: the root and all others, parents before children.
    """
    by_id = {node.id: node for node in nodes}
    free = free_rollouts(by_id)
    # What came to a node and to no child of it ended there, in a step that does not run.
    came = {node.id: node.visits for node in by_id.values()}
    for node in by_id.values():
        if node.parent is not None:
            came[node.parent] += free[node.id] - node.visits
    mass: dict[str, float] = {}
    scores: dict[str, tuple[float, ...]] = {}
    found: list[End] = []
    for node in by_id.values():
        if node.parent is None:
            mass[node.id], scores[node.id] = 1.0, ()
            continue
        share = free[node.id] / came[node.parent] if came[node.parent] > 0 else 0.0
        mass[node.id] = mass[node.parent] * share
        own = () if node.prm_score is None else (node.prm_score,)
        scores[node.id] = scores[node.parent] + own
        if node.answer is not None and node.visits > 0:
            found.append(End(node.id, node.answer, scores[node.id], node.visits, mass[node.id]))
    return sorted(found, key=lambda end: by_id[end.node].ordinal)


def log_odds(score: float) -> float:
    """Of a score in [0, 1], in nats."""
    clipped = min(1.0 - _SCORE_EDGE, max(_SCORE_EDGE, score))
    return math.log(clipped / (1.0 - clipped))


def free_rollouts(nodes: dict[str, TreeNode]) -> dict[str, int]:
    """For each node the rollouts that came to it and began above it.

    Where single steps are drawn for themselves (beam, dvts, rebase) it cannot be told, and once is counted.
    """
    began = {node.id: node.expansions for node in nodes.values()}
    for node in reversed(list(nodes.values())):
        if node.parent is not None:
            began[node.parent] += began[node.id]
    return {
        node.id: max(1, node.visits - began[node.id]) if node.visits > 0 else 0 for node in nodes.values()
    }
