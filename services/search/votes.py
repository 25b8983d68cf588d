"""Which answer of a search leads? Its trajectories by answer, each group with its votes and its share of the vote."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from ratchet.solutions.votes import count_votes
from ratchet.statistics import binomial_tail
from services.search.strategies import Node, Strategy, Tree
from services.search.strategies.base import trajectory_score

CERTAIN_ENOUGH = 0.95


@dataclass(frozen=True, slots=True)
class Trajectory:
    """A path from the root to an answer."""

    steps: tuple[Node, ...]
    weight: float
    """What it adds to its answer's vote."""

    @property
    def end(self) -> Node:
        return self.steps[-1]

    @property
    def answer(self) -> str:
        answer = self.end.answer
        assert answer is not None
        return answer

    @property
    def texts(self) -> list[str]:
        return [node.text for node in self.steps]

    @property
    def prm_score(self) -> float:
        """The PRM's score of the whole."""
        return trajectory_score(self.prm_scores)

    @property
    def prm_scores(self) -> list[float]:
        return [node.prm_score for node in self.steps if node.prm_score is not None]


@dataclass(frozen=True, slots=True)
class Group:
    """Trajectories that give one answer, the best first."""

    key: str
    trajectories: tuple[Trajectory, ...]
    share: float
    """Of the weighted vote, in [0, 1]."""
    prm_share: float
    """Of all trajectories' PRM scores, in [0, 1]."""

    @property
    def answer(self) -> str:
        return self.trajectories[0].answer

    @property
    def votes(self) -> int:
        """Rollouts that ended with this answer."""
        return sum(trajectory.end.visits for trajectory in self.trajectories)


def tally(tree: Tree, strategy: Strategy) -> list[Group]:
    """The answers found so far, the leading one first; ties go to the answer that was found first."""
    found = [_trajectory(tree, strategy, end) for end in tree.terminals()]
    counted = count_votes(found, lambda each: each.answer, lambda each: each.weight)
    weight = sum(votes.weight for votes in counted) or 1.0
    prm = sum(each.prm_score * each.end.visits for each in found) or 1.0
    return [
        Group(
            key=votes.key,
            trajectories=tuple(sorted(votes.voters, key=lambda each: (-each.prm_score, each.end.ordinal))),
            share=votes.weight / weight,
            prm_share=sum(each.prm_score * each.end.visits for each in votes.voters) / prm,
        )
        for votes in counted
    ]


def free_draws(tree: Tree, *, sampled: bool) -> dict[str, int]:
    """For each first step, how often the policy began with it afresh; once where nothing is sampled (temperature 0)."""
    return {first: draws if sampled else 1 for first, draws in tree.free_draws().items()}


class Independence:
    """Counts which trajectories were found independently of one another: each free draw from the root counts once.

    Trajectories below one first step share what the policy began with, and are as many finds as there were draws of it.
    """

    def __init__(self, draws: Mapping[str, int]) -> None:
        self._left = dict(draws)

    def count(self, trajectories: Iterable[Trajectory], most: int | None = None) -> int:
        """How many of their votes are independent of each other and of all that were counted before; at most `most`."""
        found = 0
        for trajectory in trajectories:
            first = trajectory.steps[0].id
            taken = min(trajectory.end.visits, self._left[first])
            if most is not None:
                taken = min(taken, most - found)
            self._left[first] -= taken
            found += taken
        return found


def has_half(groups: Sequence[Group], group: Group) -> bool:
    """Whether the answer has at least half of all votes: with fewer, most of what the policy wrote says otherwise."""
    return 2 * group.votes >= sum(each.votes for each in groups)


def _trajectory(tree: Tree, strategy: Strategy, end: Node) -> Trajectory:
    steps = tuple(tree.path(end.id))
    scores = [node.prm_score for node in steps if node.prm_score is not None]
    return Trajectory(steps, strategy.weight(scores, end.visits))


def hardly_overtaken(groups: list[Group], min_agreement: int) -> bool:
    """Adaptive consistency (arXiv 2305.11860): whether the first answer stays ahead of the second with probability 0.95.

    The Beta posterior of "the next vote is for the first rather than the second" lies above one half with probability
    P(X <= first) for X ~ Binomial(first + second + 1, 1/2).
    """
    if not groups or groups[0].votes < min_agreement:
        return False
    first, second = groups[0].votes, groups[1].votes if len(groups) > 1 else 0
    # P(X <= first) is P(X >= second + 1): the coin is fair.
    ahead = binomial_tail(second + 1, first + second + 1)
    return first > second and ahead >= CERTAIN_ENOUGH
