"""Monte-Carlo tree search as rStar-Math does it (arXiv 2501.04519, section 3), with execution and a gate in the loop.

A descent follows UCT. A node is widened, by a rollout of its own, while it has had fewer than
`branching_factor * N^widening` (progressive widening, Coulom 2007; N counts its visits); otherwise the child with the
highest `Q + c * sqrt(ln N_parent / N)` is taken. A rollout completes the trajectory step by step, and the gate leaves steps
whose PRM score collapses (`gate.py`); all its steps become nodes, so that later descents can branch from them. Rollouts under
way count as visits (WU-UCT, arXiv 1810.11755), so that several descents at once spread out. The PRM's score of a step seeds
its node's value with the weight of one visit. Steps that do not run are never selected.

The paper instead generates all candidates of a node as single steps. At small budgets that spends most tokens on
candidates that are never completed: docs/explanation/strategies.md.
"""

import math
from dataclasses import dataclass
from itertools import pairwise

from ratchet.contracts.journal import Rule
from ratchet.states import NodeState
from services.search.strategies.base import Draw, Rollout, Task
from services.search.strategies.gate import Gate, usual_first_score
from services.search.strategies.recording import end_task, record_trajectory, start_task
from services.search.strategies.tree import Node, Tree
from services.search.strategies.why import Choice, RunnerUp, Why, draw_of, times


@dataclass(frozen=True, slots=True)
class Mcts:
    """Configuration of the search; the tree is the caller's."""

    rollouts: int
    branching_factor: int
    max_depth: int
    exploration: float
    widening: float = 0.0
    """0: a node is expanded `branching_factor` times, however often it is visited."""
    gate: float = 0.0
    """0: no gate, and a rollout is one piece."""
    redraws: int = 2
    retries: int = 2
    """Without a gate: how often a rollout goes on after a step that does not run."""

    def ask(self, tree: Tree) -> Task | None:
        """The next rollout; None when the rollouts are used up or all that can be done is in flight."""
        if tree.rollouts >= self.rollouts:
            return None
        node = self._select(tree, tree.top)
        if node is None and not tree.pending:
            # Every way was tried. Another trajectory from the start can find a new one, and confirms or shakes the old.
            node = tree.top
        return None if node is None else self._start(tree, node)

    def is_free(self, tree: Tree) -> bool:
        """While the top of the tree gets its first rollouts: children are compared afterwards. A gate learns from each."""
        return not self.gate and tree.top.expansions + tree.top.expanding < self.branching_factor

    def _start(self, tree: Tree, node: Node) -> Task:
        if not self.gate:
            return start_task(tree, node, Draw.TRAJECTORY, retries=self.retries)
        gate = Gate(self.gate, self.redraws, usual_first_score(tree))
        return start_task(tree, node, Draw.STEPS, gate=gate)

    def _select(self, tree: Tree, node: Node) -> Node | None:
        """The node below (or at) `node` that is to be expanded; None when there is none."""
        if node.state is not NodeState.OPEN:
            return None
        if node.expansions + node.expanding < self._limit(node):
            return node
        for child in sorted(tree.children(node), key=lambda child: self._rank(node, child)):
            found = self._select(tree, child)
            if found is not None:
                return found
        return None

    def _limit(self, node: Node) -> float:
        """How many expansions a node gets for as often as it was visited."""
        return self.branching_factor * math.pow(max(1, node.visits + node.in_flight), self.widening)

    def _rank(self, parent: Node, child: Node) -> tuple[float, ...]:
        """Sorts the best child first. Ties go to the step made first, so that the order never depends on a hash."""
        return self._key(parent.visits + parent.in_flight, child, child.visits + child.in_flight)

    def _key(self, above: int, child: Node, visits: int) -> tuple[float, ...]:
        """Of a child that was visited so often, under a parent that was visited `above` times."""
        if visits == 0:
            return (0.0, -seed_value(child), *child.ordinal)
        return (1.0, -(estimate(child) + self._explore(above, visits)), *child.ordinal)

    def _explore(self, above: int, visits: int) -> float:
        """The exploration term of a node that was visited so often, under a parent that was visited `above` times."""
        return self.exploration * math.sqrt(math.log(above) / visits)

    def explain(self, tree: Tree, task: Task) -> Why:
        """The UCT terms of each choice on the way down, without this task, which is in flight by now."""
        way = [node for node in tree.path(task.node) if node.depth > tree.top.depth]
        steps = tuple(self._choice(tree, parent, child) for parent, child in pairwise([tree.top, *way]))
        node = tree.nodes[task.node]
        drawn = node.expansions + node.expanding
        most = self.branching_factor * math.pow(max(1, node.visits + node.in_flight - 1), self.widening)
        if drawn - 1 >= most:
            words = "Every way was tried: another solution from the start can find a new one, and confirms or shakes the old."
            return Why(Rule.AGAIN, words)
        lacks = f"it gets {draw_of(drawn, math.ceil(most), 'rollout')} of its own before its children are compared"
        if not steps:
            return Why(Rule.WIDEN, f"The search begins a solution here: {lacks}.")
        led = f"UCT led here in {times(len(steps), 'step')}"
        busy = sum(step.rank > 1 for step in steps)
        aside = f" (at {busy} of them, what ranked higher had nothing left to draw)" if busy else ""
        return Why(Rule.UCT, f"{led}{aside}; {lacks}.", steps)

    def _choice(self, tree: Tree, parent: Node, chosen: Node) -> Choice:
        above = parent.visits + parent.in_flight - 1
        own = self._key(above, chosen, chosen.visits + chosen.in_flight - 1)
        rank, best, other = 1, None, None
        candidates = [child for child in tree.children(parent) if child.state is NodeState.OPEN]
        for child in candidates:
            if child is not chosen:
                key = self._key(above, child, child.visits + child.in_flight)
                rank += key < own
                if best is None or key < best:
                    best, other = key, child
        visited, negative, *_ = own
        explore = self._explore(above, chosen.visits + chosen.in_flight - 1) if visited else None
        return Choice(
            node=chosen.id,
            estimate=-negative - (explore or 0.0),
            explore=explore,
            score=-negative if visited else None,
            rank=rank,
            of=len(candidates),
            runner_up=None
            if best is None or other is None
            else RunnerUp(other.id, -best[1] if best[0] else None),
        )

    def tell(self, tree: Tree, rollout: Rollout) -> list[str]:
        """Record a rollout; the ids of nodes that were added or changed. Telling it again changes nothing."""
        if not end_task(tree, rollout.task):
            return []
        end, changed = record_trajectory(tree, rollout, self.max_depth)
        return list(dict.fromkeys([*changed, *tree.settle(end, self._limit)]))


def seed_value(node: Node) -> float:
    """The PRM's score of the step as a value in [-1, 1]; 0 where there is none."""
    return 2.0 * node.prm_score - 1.0 if node.prm_score is not None else 0.0


def estimate(node: Node) -> float:
    """Mean of the backed-up values and the PRM's seed, which counts as one visit."""
    if node.prm_score is None:
        return node.q
    return (seed_value(node) + node.value_sum) / (1 + node.visits)
