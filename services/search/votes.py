"""Which answer of a search leads, and how probable is it? The vote over its tree, its trajectories at hand."""

from collections.abc import Sequence
from dataclasses import dataclass

from ratchet.contracts.calibration import AnswerCalibration
from ratchet.contracts.search import StrategyName
from ratchet.solutions.aggregator import probabilities
from ratchet.solutions.votes import AnswerGroup, End, by_prm, count_votes, find_ends, vote_of
from ratchet.statistics import binomial_tail
from services.search.strategies import Node, Tree

CERTAIN_ENOUGH = 0.95


@dataclass(frozen=True, slots=True)
class Trajectory:
    """A path from the root to an answer."""

    steps: tuple[Node, ...]
    prm_score: float
    """The PRM's score of the whole."""

    @property
    def end(self) -> Node:
        return self.steps[-1]

    @property
    def first(self) -> str:
        """Id of the first step."""
        return self.steps[0].id

    @property
    def votes(self) -> int:
        """Rollouts that ended with it."""
        return self.end.visits

    @property
    def texts(self) -> list[str]:
        return [node.text for node in self.steps]


@dataclass(frozen=True, slots=True)
class Group:
    """Trajectories that give one answer, the best first."""

    key: str
    answer: str
    """As the best of them writes it."""
    trajectories: tuple[Trajectory, ...]
    votes: int
    """Rollouts that ended with this answer."""
    share: float
    """Of the vote, in [0, 1]."""
    prm_share: float
    """Of the vote by the PRM's scores, in [0, 1]."""
    probability: float | None
    """That the answer is right; None without a calibration."""


def tally(tree: Tree, strategy: StrategyName, calibration: AnswerCalibration | None = None) -> list[Group]:
    """The answers found so far, the leading one first; ties go to the answer that was found first."""
    counted = count_votes(find_ends(tree.nodes.values()), vote_of(strategy))
    known = None if calibration is None else probabilities(counted, calibration)
    probable: Sequence[float | None] = [None] * len(counted) if known is None else known
    weight = sum(group.weight for group in counted) or 1.0
    prm = by_prm([group.ends for group in counted])
    prm_weight = sum(prm) or 1.0
    return [
        _group(tree, group, group.weight / weight, of_prm / prm_weight, probability)
        for group, of_prm, probability in zip(counted, prm, probable, strict=True)
    ]


def _group(
    tree: Tree, group: AnswerGroup, share: float, prm_share: float, probability: float | None
) -> Group:
    # Sorting is stable, so of equal scores the earlier end comes first.
    best = sorted(group.ends, key=lambda end: -end.score)
    return Group(
        key=group.key,
        answer=best[0].answer,
        trajectories=tuple(_trajectory(tree, end) for end in best),
        votes=group.votes,
        share=share,
        prm_share=prm_share,
        probability=probability,
    )


def _trajectory(tree: Tree, end: End) -> Trajectory:
    return Trajectory(tuple(tree.path(end.node)), end.score)


def has_half(groups: Sequence[Group], group: Group) -> bool:
    """Whether the answer has at least half of all votes: with fewer, most of what the policy wrote says otherwise."""
    return 2 * group.votes >= sum(each.votes for each in groups)


def hardly_overtaken(votes: Sequence[int], min_agreement: int) -> bool:
    """Adaptive consistency (arXiv 2305.11860): whether the first answer stays ahead of all others with probability 0.95.

    `votes`: of the answers, the leading one first.

    The Beta posterior of "the next vote is for the first rather than for the second most frequent" lies above one half with
    probability P(X <= first) for X ~ Binomial(first + second + 1, 1/2).
    """
    if not votes or votes[0] < min_agreement:
        return False
    # Votes that are weighed may put an answer first that has fewer of them.
    first, second = votes[0], max(votes[1:], default=0)
    # P(X <= first) is P(X >= second + 1): the coin is fair.
    ahead = binomial_tail(second + 1, first + second + 1)
    return first > second and ahead >= CERTAIN_ENOUGH
