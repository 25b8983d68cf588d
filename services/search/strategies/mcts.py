"""Monte-Carlo tree search as rStar-Math does it (arXiv 2501.04519, section 3), with execution in the loop.

A descent follows UCT. A node that has had fewer than `branching_factor` rollouts of its own is expanded by another one before
its children are compared (untried actions first); otherwise the child with the highest `Q + c * sqrt(ln N_parent / N)` is
taken. A rollout lets the policy complete the trajectory; all its steps become nodes, so that later descents can branch
from them, and no token is spent on a step that belongs to no trajectory. Rollouts under way count as visits (WU-UCT,
arXiv 1810.11755), so that several descents at once spread out. The PRM's score of a step seeds its node's value with the
weight of one visit. Steps that do not run are never selected.

The paper instead generates all candidates of a node as single steps. At small budgets that spends most tokens on
candidates that are never completed: docs/measurements/searching.md.
"""

import math
from dataclasses import dataclass

from ratchet.contracts.sandbox import StepStatus
from ratchet.states import NodeState
from services.search.strategies.base import ExecutedStep, Rollout, Task
from services.search.strategies.tree import Node, Tree, node_id

DEAD_END = -1.0


def record_path(
    tree: Tree, rollout: Rollout, start: Node, place: int, max_depth: int
) -> tuple[Node, list[str]]:
    """Add the steps of `rollout.paths[place]` below `start`; the deepest node that ran, and the ids that changed."""
    node, changed = start, []
    for index, step in enumerate(rollout.paths[place]):
        made = tree.add(node, _node(node, step, (rollout.task.number, place * 100 + index), max_depth))
        changed.append(made.id)
        if made.state is NodeState.FAILED:
            break
        node = made
    return node, changed


def _node(parent: Node, step: ExecutedStep, ordinal: tuple[int, int], max_depth: int) -> Node:
    depth = parent.depth + 1
    if step.status is not StepStatus.OK:
        state = NodeState.FAILED
    elif step.answer is not None:
        state = NodeState.TERMINAL
    else:
        state = NodeState.OPEN if depth < max_depth else NodeState.EXHAUSTED
    return Node(
        id=node_id(parent.id, step.text, step.status),
        parent=parent.id,
        ordinal=ordinal,
        depth=depth,
        state=state,
        text=step.text,
        status=step.status,
        stdout=step.stdout,
        stderr=step.stderr,
        prm_score=step.prm_score,
        prior=step.prior,
        tokens=step.tokens,
        seconds=step.seconds,
        answer=step.answer,
    )


def record_rollout(tree: Tree, rollout: Rollout, max_depth: int, branching_factor: int) -> list[str]:
    """Add a rollout's steps, back its value up from where it ended to the root, and free what was in flight."""
    start = tree.nodes[rollout.task.node]
    changed: dict[str, None] = {}
    end = start
    for place in range(len(rollout.paths)):
        end, made = record_path(tree, rollout, start, place, max_depth)
        changed.update(dict.fromkeys(made))
    last = rollout.paths[-1][-1] if rollout.paths and rollout.paths[-1] else None
    value = last.value if last is not None and last.value is not None else DEAD_END
    end.ended += 1
    for node in tree.ancestors(end.id):
        node.visits += 1
        node.value_sum += value
        changed[node.id] = None
    start.expansions += 1
    start.expanding -= 1
    for node in tree.ancestors(start.id):
        node.in_flight -= 1
    tree.settle(end, branching_factor)
    return list(changed)


def start_rollout(tree: Tree, node: Node, retries: int) -> Task:
    """Mark a rollout from `node` as in flight."""
    task = Task(tree.asked, node.id, retries)
    tree.asked += 1
    tree.pending.add(task.number)
    node.expanding += 1
    for above in tree.ancestors(node.id):
        above.in_flight += 1
    return task


@dataclass(frozen=True, slots=True)
class Mcts:
    """Configuration of the search; the tree is the caller's."""

    rollouts: int
    branching_factor: int
    max_depth: int
    exploration: float
    retries: int = 2
    prm_values: bool = True
    """The PRM's scores seed values; off: they only order untried children."""

    def ask(self, tree: Tree) -> Task | None:
        """The next rollout; None when the rollouts are used up or all that can be done is in flight."""
        if tree.rollouts >= self.rollouts:
            return None
        node = self._select(tree, tree.root)
        if node is None and not tree.pending:
            # Every way was tried. Another trajectory from the root can find a new one, and confirms or shakes the old.
            node = tree.root
        return None if node is None else start_rollout(tree, node, self.retries)

    def _select(self, tree: Tree, node: Node) -> Node | None:
        """The node below (or at) `node` that is to be expanded; None when there is none."""
        if node.state is not NodeState.OPEN:
            return None
        if node.expansions + node.expanding < self.branching_factor:
            return node
        for child in sorted(tree.children(node), key=lambda child: self._rank(node, child)):
            found = self._select(tree, child)
            if found is not None:
                return found
        return None

    def _rank(self, parent: Node, child: Node) -> tuple[float, ...]:
        """Sorts the best child first. Ties go to the step made first, so that the order never depends on a hash."""
        visits = child.visits + child.in_flight
        if visits == 0:
            return (0.0, -seed_value(child), *child.ordinal)
        explore = self.exploration * math.sqrt(math.log(parent.visits + parent.in_flight) / visits)
        value = estimate(child) if self.prm_values else child.q
        return (1.0, -(value + explore), *child.ordinal)

    def tell(self, tree: Tree, rollout: Rollout) -> list[str]:
        """Record a rollout; the ids of nodes that were added or changed. Telling it again changes nothing."""
        if rollout.task.number not in tree.pending:
            return []
        tree.pending.discard(rollout.task.number)
        return record_rollout(tree, rollout, self.max_depth, self.branching_factor)

    def weight(self, prm_scores: list[float], visits: int) -> float:
        """A PRM-weighted vote: the score of the trajectory, once for each visit of its end."""
        return visits * trajectory_score(prm_scores)


def seed_value(node: Node) -> float:
    """The PRM's score of the step as a value in [-1, 1]; 0 where there is none."""
    return 2.0 * node.prm_score - 1.0 if node.prm_score is not None else 0.0


def estimate(node: Node) -> float:
    """Mean of the backed-up values and the PRM's seed, which counts as one visit."""
    if node.prm_score is None:
        return node.q
    return (seed_value(node) + node.value_sum) / (1 + node.visits)


def trajectory_score(prm_scores: list[float]) -> float:
    """The PRM's score of the last step, which has seen all of them; 0.5 where nothing was scored."""
    return prm_scores[-1] if prm_scores else 0.5
