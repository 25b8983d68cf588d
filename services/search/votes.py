"""Which answer leads? Trajectories grouped by answer, each group with its votes and its share of the weighted vote."""

import math
from dataclasses import dataclass

from ratchet.solutions.answers import answer_key
from ratchet.solutions.programs import fingerprint, program_of
from services.search.strategies import Node, Strategy, Tree
from services.search.strategies.mcts import trajectory_score

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
        answer = self.trajectories[0].end.answer
        assert answer is not None
        return answer

    @property
    def votes(self) -> int:
        """Rollouts that ended with this answer."""
        return sum(trajectory.end.visits for trajectory in self.trajectories)

    def programs(self) -> int:
        """Programs among them that differ in more than names."""
        return len({fingerprint(program_of(trajectory.texts)) for trajectory in self.trajectories})


def tally(tree: Tree, strategy: Strategy) -> list[Group]:
    """The answers found so far, the leading one first; ties go to the answer that was found first."""
    by_key: dict[str, list[Trajectory]] = {}
    for end in tree.terminals():
        assert end.answer is not None
        steps = tuple(tree.path(end.id))
        scores = [node.prm_score for node in steps if node.prm_score is not None]
        trajectory = Trajectory(steps, strategy.weight(scores, end.visits))
        by_key.setdefault(answer_key(end.answer), []).append(trajectory)
    everything = [trajectory for group in by_key.values() for trajectory in group]
    weight = sum(trajectory.weight for trajectory in everything) or 1.0
    prm = sum(trajectory.prm_score * trajectory.end.visits for trajectory in everything) or 1.0
    groups = [
        Group(
            key=key,
            trajectories=tuple(sorted(found, key=lambda each: (-each.prm_score, each.end.ordinal))),
            share=sum(each.weight for each in found) / weight,
            prm_share=sum(each.prm_score * each.end.visits for each in found) / prm,
        )
        for key, found in by_key.items()
    ]
    return sorted(groups, key=lambda group: -group.share)


def hardly_overtaken(groups: list[Group], min_agreement: int) -> bool:
    """Adaptive consistency (arXiv 2305.11860): whether the first answer stays ahead of the second with probability 0.95.

    The Beta posterior of "the next vote is for the first rather than the second" lies above one half with probability
    P(X <= first) for X ~ Binomial(first + second + 1, 1/2).
    """
    if not groups or groups[0].votes < min_agreement:
        return False
    first, second = groups[0].votes, groups[1].votes if len(groups) > 1 else 0
    trials = first + second + 1
    ahead = sum(math.comb(trials, k) for k in range(first + 1)) / 2**trials
    return first > second and ahead >= CERTAIN_ENOUGH
