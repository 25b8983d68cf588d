"""Strategies of independent trajectories from the root: best-of-N, majority vote, greedy.

They share one way to grow, and differ in how a trajectory's vote counts. A step that does not run ends its trajectory.
"""

from dataclasses import dataclass

from services.search.strategies.base import Rollout, Task
from services.search.strategies.mcts import record_rollout, start_rollout, trajectory_score
from services.search.strategies.tree import Tree


@dataclass(frozen=True, slots=True)
class _Independent:
    """How all three grow: `rollouts` trajectories from the root, each on its own."""

    rollouts: int
    max_depth: int

    def ask(self, tree: Tree) -> Task | None:
        if tree.rollouts >= self.rollouts:
            return None
        return start_rollout(tree, tree.root, retries=0)

    def tell(self, tree: Tree, rollout: Rollout) -> list[str]:
        if rollout.task.number not in tree.pending:
            return []
        tree.pending.discard(rollout.task.number)
        return record_rollout(tree, rollout, self.max_depth, self.rollouts)


class Majority(_Independent):
    """The most frequent answer: each trajectory has one vote (self-consistency, arXiv 2203.11171)."""

    def weight(self, prm_scores: list[float], visits: int) -> float:
        del prm_scores
        return float(visits)


class Greedy(Majority):
    """One trajectory; the caller generates it at temperature 0."""


class BestOfN(_Independent):
    """The answer whose trajectories have the most PRM score behind them (weighted best-of-N)."""

    def weight(self, prm_scores: list[float], visits: int) -> float:
        return visits * trajectory_score(prm_scores)
