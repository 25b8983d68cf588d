"""The tasks of a search in Postgres: what the strategy asked for and what came of it, in the order in which it was told.

With the nodes of the tree this is all that a strategy ever saw, so that a search can be run again without policy, sandbox and
PRM (`services/search/replay.py`). Rows are only added.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any
from uuid import UUID

from sqlalchemy import select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncConnection

from ratchet.contracts.branching import Beginning
from ratchet.contracts.journal import Why
from ratchet.contracts.sandbox import StepStatus
from ratchet.contracts.search import SearchRequest
from ratchet.store import tables as t
from ratchet.store.nodes import NodeRecord, read_trees
from ratchet.store.search_requests import read_beginning, read_request
from ratchet.store.text import replace_unstorable


@dataclass(frozen=True, slots=True)
class PathEnd:
    """One of the paths that a task tried, by its last step."""

    node: str
    abandoned: bool
    """The gate left that step."""


@dataclass(frozen=True, slots=True)
class TaskRecord:
    """A task that the strategy was told of."""

    fence: int
    """Of the worker that did it: each has a fence of its own."""
    place: int
    """Counts what this worker told the strategy, from 0."""
    first: int
    """The number of the first task that this worker asked for."""
    number: int
    asked: int
    """Tasks that had been asked for when the strategy was told of this one."""
    node: str
    """Where it began."""
    draw: str
    """What it asked the policy for: a name of `services.search.strategies.Draw`."""
    prm: str | None
    """The version that scored when it was asked for; None where it was not known yet."""
    ends: tuple[PathEnd, ...]
    """Of the paths that were tried; the last one stands."""
    value: float | None
    """Of the trajectory that stands; None where it gave no answer."""
    ended_by: str | None = None
    """Why nothing could follow the last step that stands."""
    taken_over: tuple[int, ...] | None = None
    """Numbers of the tasks that this worker found under way; None where none were written down."""
    why: Mapping[str, Any] | None = None
    """The fields of `ratchet.contracts.journal.Why`; None where nobody watched."""


@dataclass(frozen=True, slots=True)
class NodePlace:
    """Where a node stands, and whether its step ran."""

    parent: str | None
    status: StepStatus | None


@dataclass(frozen=True, slots=True)
class ToldTask:
    """A task as those who follow a search are shown it."""

    number: int
    node: str
    draw: str
    ends: tuple[PathEnd, ...]
    value: float | None
    why: Why | None = None


@dataclass(frozen=True, slots=True)
class SearchJournal:
    """What a search has written down of itself."""

    request: SearchRequest
    """Without the reference answer."""
    nodes: list[NodeRecord]
    """Parents before children."""
    tasks: list[TaskRecord]
    """In the order in which the strategy was told of them."""
    beginning: Beginning | None = None


async def write_tasks(connection: AsyncConnection, search_id: UUID, tasks: Sequence[TaskRecord]) -> None:
    """Store tasks; one that is there already stays."""
    if tasks:
        rows = [{"search_id": search_id, **_columns(each)} for each in tasks]
        await connection.execute(insert(t.search_tasks).on_conflict_do_nothing(), rows)


async def read_journal(connection: AsyncConnection, search_id: UUID) -> SearchJournal | None:
    """All that was journalled of a search; None: unknown."""
    row = (
        await connection.execute(
            select(t.searches, t.problems.c.text.label("problem"))
            .join(t.problems, t.problems.c.id == t.searches.c.problem_id)
            .where(t.searches.c.id == search_id)
        )
    ).one_or_none()
    if row is None:
        return None
    nodes = (await read_trees(connection, [search_id]))[search_id]
    tasks = await _read_tasks(connection, search_id)
    return SearchJournal(read_request(row, row.problem), nodes, tasks, read_beginning(row))


async def read_told(
    connection: AsyncConnection, search_id: UUID, after: int, limit: int
) -> tuple[dict[str, NodePlace], list[ToldTask]]:
    """Places of all nodes, and all tasks in the order of telling; why, of the `limit` ones after `after` alone."""
    tasks = t.search_tasks.c
    in_order = [tasks.fence, tasks.place]
    rows = await connection.execute(
        select(tasks.number, tasks.node, tasks.draw, tasks.ends, tasks.value)
        .where(tasks.search_id == search_id)
        .order_by(*in_order)
    )
    told = [ToldTask(row.number, row.node, row.draw, _ends(row.ends), row.value) for row in rows]
    whys = await connection.scalars(
        select(tasks.why)
        .where(tasks.search_id == search_id)
        .order_by(*in_order)
        .offset(after + 1)
        .limit(limit)
    )
    for place, why in enumerate(whys, after + 1):
        if why is not None and place < len(told):
            told[place] = replace(told[place], why=Why.model_validate(why))
    # Last, so that what the tasks name is there: they are written together.
    nodes = await connection.execute(
        select(t.nodes.c.id, t.nodes.c.parent, t.nodes.c.status).where(t.nodes.c.search_id == search_id)
    )
    return {row.id: NodePlace(row.parent, row.status) for row in nodes}, told


async def _read_tasks(connection: AsyncConnection, search_id: UUID) -> list[TaskRecord]:
    rows = await connection.execute(
        select(t.search_tasks)
        .where(t.search_tasks.c.search_id == search_id)
        .order_by(t.search_tasks.c.fence, t.search_tasks.c.place)
    )
    return [_record(dict(row)) for row in rows.mappings()]


def _columns(task: TaskRecord) -> dict[str, Any]:
    return {
        "fence": task.fence,
        "place": task.place,
        "first": task.first,
        "number": task.number,
        "asked": task.asked,
        "node": task.node,
        "draw": task.draw,
        "prm": task.prm,
        "ends": [{"node": end.node, "abandoned": end.abandoned} for end in task.ends],
        "value": task.value,
        "ended_by": None if task.ended_by is None else replace_unstorable(task.ended_by),
        "taken_over": None if task.taken_over is None else list(task.taken_over),
        "why": task.why,
    }


def _record(row: dict[str, Any]) -> TaskRecord:
    del row["search_id"]
    if row["taken_over"] is not None:
        row["taken_over"] = tuple(row["taken_over"])
    row["ends"] = _ends(row["ends"])
    return TaskRecord(**row)


def _ends(column: Iterable[Mapping[str, Any]]) -> tuple[PathEnd, ...]:
    return tuple(PathEnd(end["node"], end["abandoned"]) for end in column)
