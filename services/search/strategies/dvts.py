"""Diverse verifier tree search (Beeching, Tunstall and Rush, "Scaling test-time compute with open models", 2024).

The first steps are split into groups of `branching_factor`, each the beginning of a subtree of its own. In each subtree the
best candidate alone is gone on from, so that a misled PRM cannot draw all of the search into one corner.

Limits: equal first steps are one node, so a policy that is sure of its beginning has fewer subtrees.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from ratchet.states import NodeState
from services.search.strategies.levels import Level, LevelWise, best_first, by_score
from services.search.strategies.tree import Frontier, Node, Tree
from services.search.strategies.why import Choice, times


@dataclass(frozen=True, slots=True)
class Dvts(LevelWise):
    """Configuration of the search; the tree is the caller's."""

    def allot(self, tree: Tree, level: Level, width: int) -> dict[str, int]:
        del width
        best = [best_first(group)[0] for group in self._groups(tree, level.children)]
        return {node.id: self.branching_factor for node in best if node.state is NodeState.OPEN}

    def _groups(self, tree: Tree, children: Sequence[Node]) -> list[Sequence[Node]]:
        """The subtrees that steps of one level belong to."""
        if children and children[0].parent == tree.start:
            starts = range(0, len(children), self.branching_factor)
            return [children[start : start + self.branching_factor] for start in starts]
        # Each node of a lower level is a subtree's best so far.
        by_parent: dict[str | None, list[Node]] = {}
        for child in children:
            by_parent.setdefault(child.parent, []).append(child)
        return list(by_parent.values())

    def choice(self, tree: Tree, level: Frontier, node: Node) -> tuple[Choice, str]:
        [group] = [each for each in self._groups(tree, level.candidates) if node in each]
        found = by_score(node, group, [node.id])
        return (
            found,
            f"The best of {times(found.of, 'step')} goes on in each of {times(len(level.draws), 'subtree')}",
        )
