"""Where a search stands beside its tree: what its strategy has asked for and was not yet told.

Written in one transaction with the nodes, so that whoever takes the search up finds it as it stood at one moment, and goes on
as the worker before would have gone on.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any
from uuid import UUID

from sqlalchemy import select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncConnection

from ratchet.store import tables as t


@dataclass(frozen=True, slots=True)
class TaskUnderWay:
    """A task that the strategy has asked for and was not told of."""

    number: int
    node: str
    """Where it begins."""
    draw: str
    """A name of `services.search.strategies.Draw`."""
    retries: int
    gate: Mapping[str, Any] | None
    """The fields of `services.search.strategies.Gate`."""
    prm: str | None
    """The version that scored when it was asked for; None where it was not known yet."""
    why: Mapping[str, Any] | None = None
    """The fields of `ratchet.contracts.journal.Why`; None where nobody watches."""


@dataclass(frozen=True, slots=True)
class Progress:
    """A search at one moment."""

    asked: int
    """Tasks asked for so far: the number of the next one."""
    tasks: tuple[TaskUnderWay, ...]


async def write_progress(connection: AsyncConnection, search_id: UUID, progress: Progress) -> None:
    """Store where the search stands now."""
    values = {"asked": progress.asked, "tasks": [asdict(task) for task in progress.tasks]}
    statement = insert(t.search_progress).values(search_id=search_id, **values)
    await connection.execute(statement.on_conflict_do_update(index_elements=["search_id"], set_=values))


async def read_progress(connection: AsyncConnection, search_id: UUID) -> Progress | None:
    """Where the search stood last; None where nobody, or an older version, wrote it down."""
    row = (
        await connection.execute(select(t.search_progress).where(t.search_progress.c.search_id == search_id))
    ).one_or_none()
    if row is None:
        return None
    return Progress(row.asked, tuple(TaskUnderWay(**task) for task in row.tasks))
