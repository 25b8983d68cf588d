"""Writes down what a strategy asked for and what it was told: so the search can be gone on with (`saved_tree.py`) and be run
again (`replay.py`)."""

from ratchet.store.search_progress import Progress, TaskUnderWay
from ratchet.store.search_tasks import PathEnd, TaskRecord
from services.search.saved_tree import saved_task
from services.search.strategies import ExecutedStep, Rollout, Task, Tree, Why
from services.search.strategies.tree import node_id


class TaskLog:
    """The tasks of one worker's part of a search, which begins where `progress` says; None: nobody has said it."""

    def __init__(self, fence: int, first: int, progress: Progress | None = None) -> None:
        """`first` is the number of the first task that this worker asks for."""
        self._fence = fence
        self._first = first
        self._told = 0
        self._under_way = {} if progress is None else {task.number: task for task in progress.tasks}
        self._taken_over = None if progress is None else tuple(self._under_way)

    @property
    def under_way(self) -> tuple[TaskUnderWay, ...]:
        """What was asked for and not told yet."""
        return tuple(self._under_way.values())

    def ask(self, task: Task, prm: str | None, why: Why | None = None) -> None:
        """A task was asked for while this version scored; `why`, where somebody may watch."""
        self._under_way[task.number] = saved_task(task, prm, why)

    def tell(self, tree: Tree, rollout: Rollout) -> TaskRecord:
        """The record of a task that the strategy is told of."""
        task = rollout.task
        asked = self._under_way.pop(task.number, None)
        last = rollout.paths[-1][-1] if rollout.paths and rollout.paths[-1] else None
        record = TaskRecord(
            fence=self._fence,
            place=self._told,
            first=self._first,
            number=task.number,
            asked=tree.asked,
            node=task.node,
            draw=task.draw.name,
            prm=None if asked is None else asked.prm,
            ends=tuple(_end(task.node, path) for path in rollout.paths),
            value=None if last is None else last.value,
            ended_by=rollout.ended_by,
            taken_over=self._taken_over,
            why=None if asked is None else asked.why,
        )
        self._told += 1
        return record


def _end(node: str, path: tuple[ExecutedStep, ...]) -> PathEnd:
    """Where a path below the node ends."""
    for step in path:
        node = node_id(node, step.text, step.status)
    return PathEnd(node, abandoned=bool(path) and path[-1].abandoned)
