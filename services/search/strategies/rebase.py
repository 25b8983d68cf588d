"""REBASE: the draws of a level are allotted by the softmax of its scores (Wu et al., arXiv 2408.00724, section 3.2).

A node of the level gets `round(B * softmax(score / T))` draws, where B is the width less the trajectories that have ended; one
that gets none is left.
"""

import math
from dataclasses import dataclass

from ratchet.states import NodeState
from services.search.strategies.levels import Level, LevelWise, best_first, score_of
from services.search.strategies.tree import Tree

BALANCE_TEMPERATURE = 0.2
"""T of the softmax: a score that is 0.2 higher is allotted e times as many draws."""


@dataclass(frozen=True, slots=True)
class Rebase(LevelWise):
    """Configuration of the search; the tree is the caller's."""

    def allot(self, tree: Tree, level: Level, width: int) -> dict[str, int]:
        del tree
        nodes = best_first([child for child in level.children if child.state is NodeState.OPEN])
        left = width - level.ended
        if not nodes or left <= 0:
            return {}
        highest = score_of(nodes[0])
        shares = [math.exp((score_of(node) - highest) / BALANCE_TEMPERATURE) for node in nodes]
        draws = {
            node.id: math.floor(left * share / sum(shares) + 0.5)
            for node, share in zip(nodes, shares, strict=True)
        }
        # Where all get less than half a draw, the best one goes on.
        draws[nodes[0].id] = max(1, draws[nodes[0].id])
        return {node: count for node, count in draws.items() if count}
