"""REBASE: the draws of a level are allotted by the softmax of its scores (Wu et al., arXiv 2408.00724, section 3.2).

A node of the level gets `round(B * softmax(score / T))` draws, where B is the width less the trajectories that have ended; one
that gets none is left.
"""

import math
from dataclasses import dataclass, replace

from ratchet.contracts.journal import Rule
from ratchet.states import NodeState
from services.search.strategies.levels import Level, LevelWise, best_first, by_score, score_of
from services.search.strategies.tree import Frontier, Node, Tree
from services.search.strategies.why import Choice, RunnerUp, times

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

    @property
    def rule(self) -> Rule:
        return Rule.SHARE

    def choice(self, tree: Tree, level: Frontier, node: Node) -> tuple[Choice, str]:
        del tree
        going_on = [each for each in level.candidates if each.state is NodeState.OPEN]
        found = by_score(node, going_on, [node.id])
        other = found.runner_up
        share = replace(
            found,
            score=float(level.draws[node.id]),
            runner_up=other and RunnerUp(other.node, float(level.draws.get(other.node, 0))),
        )
        every = sum(level.draws.values())
        return (
            share,
            f"By its score {level.draws[node.id]} of the {times(every, 'draw')} of this level fall to this step",
        )
