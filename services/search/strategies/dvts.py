"""Diverse verifier tree search (Beeching, Tunstall and Rush, "Scaling test-time compute with open models", 2024).

The first steps are split into groups of `branching_factor`, each the beginning of a subtree of its own. In each subtree the
best candidate alone is gone on from, so that a misled PRM cannot draw all of the search into one corner.

Limits: equal first steps are one node, so a policy that is sure of its beginning has fewer subtrees.
"""

from dataclasses import dataclass

from ratchet.states import NodeState
from services.search.strategies.levels import Level, LevelWise, best_first
from services.search.strategies.tree import ROOT, Tree


@dataclass(frozen=True, slots=True)
class Dvts(LevelWise):
    """Configuration of the search; the tree is the caller's."""

    def allot(self, tree: Tree, level: Level, width: int) -> dict[str, int]:
        del width
        if ROOT in level.nodes:
            starts = range(0, len(level.children), self.branching_factor)
            groups = [level.children[start : start + self.branching_factor] for start in starts]
        else:
            # Each node of a lower level is a subtree's best so far.
            groups = [[child for child in level.children if child.parent == node] for node in level.nodes]
        best = [best_first(group)[0] for group in groups if group]
        return {node.id: self.branching_factor for node in best if node.state is NodeState.OPEN}
