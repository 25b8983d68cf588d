"""Beam search with a PRM (Beeching, Tunstall and Rush, "Scaling test-time compute with open models", 2024).

Of all candidates of a level the best `width / branching_factor` are kept, and from each `branching_factor` steps are drawn.
Trajectories that have ended take no place among those that are kept.
"""

from dataclasses import dataclass

from ratchet.states import NodeState
from services.search.strategies.levels import Level, LevelWise, best_first
from services.search.strategies.tree import Tree


@dataclass(frozen=True, slots=True)
class Beam(LevelWise):
    """Configuration of the search; the tree is the caller's."""

    def allot(self, tree: Tree, level: Level, width: int) -> dict[str, int]:
        del tree
        going_on = [child for child in level.children if child.state is NodeState.OPEN]
        kept = best_first(going_on)[: max(1, width // self.branching_factor)]
        return {node.id: self.branching_factor for node in kept}
