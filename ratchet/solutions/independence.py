"""How often was something found independently? Each draw of the policy from the root counts once.

Trajectories below one first step share what the policy began with: they are as many finds as there were draws of that step,
however often a strategy went on below it.

Pure. Search counts what stands behind an answer with it, the trainer what stands against a reference answer.
"""

from collections.abc import Iterable, Mapping
from typing import Protocol

from ratchet.solutions.votes import TreeNode, free_rollouts


class Find(Protocol):
    """Rollouts that ended at one place of a tree."""

    @property
    def first(self) -> str:
        """Id of the first step on the way there."""

    @property
    def votes(self) -> int:
        """How many rollouts they were."""


def free_draws(nodes: Iterable[TreeNode], *, sampled: bool) -> dict[str, int]:
    """For each first step of a tree, how often the policy began with it afresh; once where nothing is sampled (temperature 0).

    `nodes`: the root and all others, parents before children. Where single steps are drawn for themselves (beam, dvts,
    rebase) it cannot be told, and once is counted.
    """
    by_id = {node.id: node for node in nodes}
    free = free_rollouts(by_id)
    return {
        node.id: free[node.id] if sampled else 1
        for node in by_id.values()
        if node.parent is not None and by_id[node.parent].parent is None
    }


class Independence:
    """Counts finds that are independent of one another, for as long as draws are left."""

    def __init__(self, draws: Mapping[str, int]) -> None:
        """`draws`: of each first step, as `free_draws` counts them."""
        self._left = dict(draws)

    def count(self, finds: Iterable[Find], most: int | None = None) -> int:
        """How many of their votes are independent of each other and of all that were counted before; at most `most`."""
        found = 0
        for find in finds:
            taken = min(find.votes, self._left[find.first])
            if most is not None:
                taken = min(taken, most - found)
            self._left[find.first] -= taken
            found += taken
        return found
