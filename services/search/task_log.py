"""Writes down what a strategy asked for and what it was told, so that the search can be run again (`replay.py`)."""

from dataclasses import dataclass, field

from ratchet.store.search_tasks import PathEnd, TaskRecord
from services.search.strategies import ExecutedStep, Rollout, Tree
from services.search.strategies.tree import node_id


@dataclass(slots=True)
class TaskLog:
    """The tasks of one worker's part of a search."""

    fence: int
    first: int
    """The number of its first task."""
    _told: int = 0
    _prm: dict[int, str | None] = field(default_factory=dict)

    def ask(self, number: int, prm: str | None) -> None:
        """A task was asked for while this version scored."""
        self._prm[number] = prm

    def tell(self, tree: Tree, rollout: Rollout) -> TaskRecord:
        """The record of a task that the strategy is told of."""
        task = rollout.task
        last = rollout.paths[-1][-1] if rollout.paths and rollout.paths[-1] else None
        record = TaskRecord(
            fence=self.fence,
            place=self._told,
            first=self.first,
            number=task.number,
            asked=tree.asked,
            node=task.node,
            draw=task.draw.name,
            prm=self._prm.pop(task.number, None),
            ends=tuple(_end(task.node, path) for path in rollout.paths),
            value=None if last is None else last.value,
        )
        self._told += 1
        return record


def _end(node: str, path: tuple[ExecutedStep, ...]) -> PathEnd:
    """Where a path below the node ends."""
    for step in path:
        node = node_id(node, step.text, step.status)
    return PathEnd(node, abandoned=bool(path) and path[-1].abandoned)
