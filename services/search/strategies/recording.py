"""How tasks are marked as in flight and how what came of them enters the tree: the same for every strategy."""

from ratchet.contracts.sandbox import StepStatus
from ratchet.states import NodeState
from services.search.strategies.base import Draw, ExecutedStep, Rollout, Task
from services.search.strategies.gate import Gate
from services.search.strategies.tree import ROOT, Node, Tree, node_id

DEAD_END = -1.0
"""The value of a trajectory without an answer."""


def start_task(tree: Tree, node: Node, draw: Draw, *, retries: int = 0, gate: Gate | None = None) -> Task:
    """Mark a task that begins at `node` as in flight."""
    task = Task(tree.asked, node.id, draw, retries, gate)
    tree.asked += 1
    put_under_way(tree, task)
    return task


def put_under_way(tree: Tree, task: Task) -> None:
    """Mark a task that was asked for as in flight."""
    tree.pending.add(task.number)
    tree.nodes[task.node].expanding += 1
    for above in tree.ancestors(task.node):
        above.in_flight += 1


def end_task(tree: Tree, task: Task) -> bool:
    """Mark a task as no longer in flight; False if it was not."""
    if task.number not in tree.pending:
        return False
    tree.pending.discard(task.number)
    start = tree.nodes[task.node]
    start.expansions += 1
    start.expanding -= 1
    for node in tree.ancestors(start.id):
        node.in_flight -= 1
    return True


def record_paths(tree: Tree, rollout: Rollout, max_depth: int) -> tuple[Node, list[str]]:
    """Add the steps of all paths; the deepest node of the last path that stands, and the ids that changed."""
    start = tree.nodes[rollout.task.node]
    end, changed, known = start, dict[str, None](), set[str]()
    for path in rollout.paths:
        end = start
        for step in path:
            step_id = node_id(end.id, step.text, step.status)
            # The first steps of a path are often those of the path before it.
            known.add(step_id)
            made = tree.add(end, _node(end, step, (rollout.task.number, len(known)), max_depth))
            changed[made.id] = None
            if step.status is not StepStatus.OK or step.abandoned:
                break
            end = made
    if rollout.ended_by is not None and end.id != ROOT:
        tree.close(end, rollout.ended_by)
        changed[end.id] = None
    return end, list(changed)


def back_up(tree: Tree, end: Node, value: float) -> list[str]:
    """Count a trajectory that ended at `end` on its way to the root; the ids of the nodes on it."""
    end.ended += 1
    way = list(tree.ancestors(end.id))
    for node in way:
        node.visits += 1
        node.value_sum += value
    return [node.id for node in way]


def record_trajectory(tree: Tree, rollout: Rollout, max_depth: int) -> tuple[Node, list[str]]:
    """Add a rollout that completes a trajectory and back its value up; where it ended, and the ids that changed."""
    end, made = record_paths(tree, rollout, max_depth)
    last = rollout.paths[-1][-1] if rollout.paths and rollout.paths[-1] else None
    value = DEAD_END if last is None or last.value is None else last.value
    return end, list(dict.fromkeys([*made, *back_up(tree, end, value), rollout.task.node]))


def _node(parent: Node, step: ExecutedStep, ordinal: tuple[int, int], max_depth: int) -> Node:
    depth = parent.depth + 1
    if step.status is not StepStatus.OK:
        state = NodeState.FAILED
    elif step.abandoned:
        state = NodeState.ABANDONED
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
