"""A search tree as the store keeps it, and a search that goes on from what was kept.

Limits: what a search that an older version began had under way is not known; it is asked for again, under other numbers.
"""

from collections.abc import Sequence
from dataclasses import asdict

from ratchet.store.nodes import NodeRecord
from ratchet.store.search_progress import Progress, TaskUnderWay
from services.search.strategies import Draw, Gate, Node, Task, Tree, Why
from services.search.strategies.recording import put_under_way

ORDINALS_PER_TASK = 10_000
"""More than a task makes nodes: the store orders nodes by one number, the tree by task and place."""


def record_of(node: Node) -> NodeRecord:
    """A node as the store keeps it."""
    number, place = node.ordinal
    return NodeRecord(
        id=node.id,
        parent=node.parent,
        ordinal=number * ORDINALS_PER_TASK + place if number >= 0 else -1,
        depth=node.depth,
        state=node.state,
        task=str(number),
        text=node.text,
        status=node.status,
        stdout=node.stdout,
        stderr=node.stderr,
        prm_score=node.prm_score,
        prior=node.prior,
        visits=node.visits,
        value_sum=node.value_sum,
        tokens=node.tokens,
        seconds=node.seconds,
        answer=node.answer,
        ended_by=node.ended_by,
        expansions=node.expansions,
    )


def tree_of(records: Sequence[NodeRecord], progress: Progress | None = None, *, lost: int = 0) -> Tree:
    """The tree that an earlier worker wrote down, with what was under way in it then.

    Where that is not known, at most `lost` tasks are asked for again under other numbers: the seed of a task is its number, and
    the same trajectory would count twice.
    """
    tree = Tree()
    for record in records:
        number = record.ordinal // ORDINALS_PER_TASK if record.ordinal >= 0 else -1
        tree.nodes[record.id] = Node(
            id=record.id,
            parent=record.parent,
            ordinal=(number, record.ordinal % ORDINALS_PER_TASK if number >= 0 else 0),
            depth=record.depth,
            state=record.state,
            text=record.text,
            status=record.status,
            stdout=record.stdout,
            stderr=record.stderr,
            prm_score=record.prm_score,
            prior=record.prior,
            tokens=record.tokens,
            seconds=record.seconds,
            answer=record.answer,
            ended_by=record.ended_by,
            visits=record.visits,
            value_sum=record.value_sum,
            expansions=record.expansions,
        )
        tree.asked = max(tree.asked, number + 1)
    for node in sorted(tree.nodes.values(), key=lambda node: node.ordinal):
        if node.parent is not None:
            tree.nodes[node.parent].children.append(node.id)
    for node in tree.nodes.values():
        node.ended = node.visits - sum(child.visits for child in tree.children(node))
    if progress is None:
        # A task whose steps were all known before left no node with its number, but was counted where it began.
        counted = sum(node.expansions for node in tree.nodes.values())
        tree.asked = max(tree.asked, counted + lost if counted else 0)
    else:
        tree.asked = progress.asked
        for task in progress.tasks:
            put_under_way(tree, task_of(task))
    return tree


def saved_task(task: Task, prm: str | None, why: Why | None = None) -> TaskUnderWay:
    """A task under way as the store keeps it; `prm` is the version that scored when it was asked for."""
    gate = None if task.gate is None else asdict(task.gate)
    terms = None if why is None else why.terms()
    return TaskUnderWay(task.number, task.node, task.draw.name, task.retries, gate, prm, terms)


def task_of(saved: TaskUnderWay) -> Task:
    """The task that was under way."""
    gate = None if saved.gate is None else Gate(**saved.gate)
    return Task(saved.number, saved.node, Draw[saved.draw], saved.retries, gate)
