"""The journal of a search as people follow it: task by task, what each made and why it was asked for.

The store keeps of each task where its paths end; what a task made is what no task before it had found. Pure.
"""

from collections.abc import Mapping, Sequence

from ratchet.contracts.journal import JournalPage, JournalTask
from ratchet.contracts.sandbox import StepStatus
from ratchet.store.search_tasks import NodePlace, PathEnd, ToldTask
from services.search.strategies import Draw


def journal_page(
    nodes: Mapping[str, NodePlace], tasks: Sequence[ToldTask], after: int, limit: int
) -> JournalPage:
    """At most `limit` tasks, of all those of a search in the order of telling, that come after the one of order `after`."""
    begin = after + 1
    made = _made(nodes, tasks[: begin + limit])
    page = [
        JournalTask(
            number=task.number,
            node=task.node,
            draw=task.draw.lower(),
            order=begin + place,
            made=made[begin + place],
            end=_end(nodes, task),
            value=task.value,
            why=task.why,
        )
        for place, task in enumerate(tasks[begin : begin + limit])
    ]
    return JournalPage(tasks=page, next=page[-1].order if begin + limit < len(tasks) else None)


def _made(nodes: Mapping[str, NodePlace], tasks: Sequence[ToldTask]) -> list[list[str]]:
    """For each task the nodes that it was the first to find, parents before children."""
    known: set[str] = set()
    made: list[list[str]] = []
    for task in tasks:
        new: list[str] = []
        for end in task.ends:
            path = _path(nodes, task.node, end, known)
            known.update(path)
            new += path
        made.append(new)
    return made


def _path(nodes: Mapping[str, NodePlace], start: str, end: PathEnd, known: set[str]) -> list[str]:
    """The nodes of a path below `start` that are not known yet."""
    path: list[str] = []
    node: str | None = end.node
    # Whoever found a node has found those above it.
    while node is not None and node != start and node not in known:
        path.append(node)
        node = nodes[node].parent
    return path[::-1]


def _end(nodes: Mapping[str, NodePlace], task: ToldTask) -> str | None:
    """The last node that stands of what the task drew; None where a step was drawn that ended nothing."""
    if task.draw == Draw.STEP.name and task.value is None:
        return None
    if not task.ends:
        return task.node
    last = task.ends[-1]
    end = nodes[last.node]
    stands = last.node == task.node or (end.status is StepStatus.OK and not last.abandoned)
    return last.node if stands or end.parent is None else end.parent
