"""Beam search with a PRM (Beeching, Tunstall and Rush, "Scaling test-time compute with open models", 2024).

Of all candidates of a level the best `width / branching_factor` are kept, and from each `branching_factor` steps are drawn.
Trajectories that have ended take no place among those that are kept.
"""

from dataclasses import dataclass

from ratchet.states import NodeState
from services.search.strategies.levels import Level, LevelWise, best_first, by_score
from services.search.strategies.tree import Frontier, Node, Tree
from services.search.strategies.why import Choice, times


@dataclass(frozen=True, slots=True)
class Beam(LevelWise):
    """Configuration of the search; the tree is the caller's."""

    def allot(self, tree: Tree, level: Level, width: int) -> dict[str, int]:
        del tree
        going_on = [child for child in level.children if child.state is NodeState.OPEN]
        kept = best_first(going_on)[: max(1, width // self.branching_factor)]
        return {node.id: self.branching_factor for node in kept}

    def choice(self, tree: Tree, level: Frontier, node: Node) -> tuple[Choice, str]:
        del tree
        going_on = [each for each in level.candidates if each.state is NodeState.OPEN]
        found = by_score(node, going_on, level.draws)
        words = f"The {times(len(level.draws), 'best step')} of {found.of} on this level go on, and this is number {found.rank}"
        return found, words
