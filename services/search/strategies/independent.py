"""Strategies of independent trajectories from the root: best-of-N, majority vote, greedy.

They grow alike, and differ in the vote over their trajectories (`ratchet.solutions.votes`).
A step that does not run ends its trajectory. Drawn step by step, it has the draws of a search whose gate leaves no step.
"""

from dataclasses import dataclass

from ratchet.contracts.journal import Rule
from services.search.strategies.base import Draw, Rollout, Task
from services.search.strategies.recording import end_task, record_trajectory, start_task
from services.search.strategies.tree import Tree
from services.search.strategies.why import Why, draw_of


@dataclass(frozen=True, slots=True)
class _Independent:
    """How all three grow: `rollouts` trajectories from the root, each on its own."""

    rollouts: int
    max_depth: int
    stepwise: bool = False

    def ask(self, tree: Tree) -> Task | None:
        if tree.rollouts >= self.rollouts:
            return None
        return start_task(tree, tree.top, Draw.STEPS if self.stepwise else Draw.TRAJECTORY)

    def is_free(self, tree: Tree) -> bool:
        """Always: no trajectory depends on another."""
        return True

    def explain(self, tree: Tree, task: Task) -> Why:
        """Nothing in the tree has a say in it."""
        number = draw_of(tree.rollouts, self.rollouts, "solution")
        words = f"{number.capitalize()}, drawn for itself: nothing that was found before has a say in it."
        return Why(Rule.FRESH, words)

    def tell(self, tree: Tree, rollout: Rollout) -> list[str]:
        if not end_task(tree, rollout.task):
            return []
        _, changed = record_trajectory(tree, rollout, self.max_depth)
        return changed


class Majority(_Independent):
    """The most frequent answer: each trajectory has one vote (self-consistency, arXiv 2203.11171)."""


class Greedy(Majority):
    """One trajectory; the caller generates it at temperature 0."""


class BestOfN(_Independent):
    """The answer whose trajectories have the most PRM score behind them (weighted best-of-N)."""
