"""The gate: a step that makes a trajectory's score collapse is left, and drawn again from its parent.

No token goes into finishing what the PRM has seen go wrong. The gate asks only whether *this step* made things worse, by the
ratio of its score to its parent's, so that it needs no scores that mean the same for every problem.
"""

from dataclasses import dataclass
from statistics import median

from services.search.strategies.tree import Tree


@dataclass(frozen=True, slots=True)
class Gate:
    """How the steps of one rollout are gated."""

    ratio: float
    """A step is left when its score is under so much of its parent's."""
    redraws: int
    """How often a step that was left is drawn again from the same parent."""
    first: float | None = None
    """What stands for the parent's score of a first step; None lets every first step pass."""

    def passes(self, score: float | None, before: float | None) -> bool:
        """Whether a step of this score may stay after a parent that has the score `before`; what has no score may."""
        return score is None or before is None or score >= self.ratio * before


def usual_first_score(tree: Tree) -> float | None:
    """The median score of the first steps seen, those that were left among them; None before the first one."""
    scores = [node.prm_score for node in tree.children(tree.root) if node.prm_score is not None]
    return median(scores) if scores else None
