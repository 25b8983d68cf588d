"""What the database may forget, and forgetting it: old searches, old trees, and what nothing refers to any more.

Nothing goes that a round needs. That is a round which is under way, which a person may still retry, or of which a data set, an
entry of the quarantine, or a pair that serves or served was made: its searches stay with their trees and proofs.

Limits: sizes are those of the texts as they are stored, without indexes. The files of the database do not shrink; what is freed
is used again.
"""

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, fields
from enum import StrEnum
from uuid import UUID

from sqlalchemy import ColumnElement, Select, Table, and_, exists, false, func, literal, or_, select, text
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from ratchet.states import ROUND_ENDS, SEARCH_TRANSITIONS, RoundState, SearchState, is_end
from ratchet.store import tables as t
from ratchet.store.engine import from_now, reading, retried, transaction

BATCH = 100
"""Searches of one transaction: locks are held for a moment only."""
DAY_SECONDS = 86_400.0
ROW_BYTES = 150
"""Of a row besides its texts, about."""
_ENDS = [state for state in SearchState if is_end(SEARCH_TRANSITIONS, state)]
_NO_ID = UUID(int=0)


@dataclass(frozen=True, slots=True)
class Retention:
    """For how many days after its end something is kept; None: for good."""

    searches_days: float | None = None
    trees_days: float | None = None


class Waste(StrEnum):
    """What can go."""

    ORPHANS = "orphans"
    """Searches that a retried round has replaced."""
    SEARCHES = "searches"
    """Searches that are older than is wanted, with their trees, answers and proofs."""
    TREES = "trees"
    """Trees and journals that are older than is wanted; answers and proofs of their searches stay."""
    PROBLEMS = "problems"
    """Problems that no search, round or quarantine names."""


@dataclass(slots=True)
class Amount:
    """How much of something."""

    searches: int = 0
    nodes: int = 0
    tasks: int = 0
    solutions: int = 0
    problems: int = 0
    bytes: int = 0

    def add(self, other: "Amount") -> None:
        """Count the other one in."""
        for each in fields(Amount):
            setattr(self, each.name, getattr(self, each.name) + getattr(other, each.name))


class WasteStore:
    """Finds and deletes. Every method raises StoreUnavailableError when Postgres is away."""

    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine

    async def survey(self, retention: Retention) -> dict[Waste, Amount]:
        """What `prune` would delete; nothing is changed."""
        found = {waste: Amount() for waste in Waste}
        gone: set[UUID] = set()
        for waste in (Waste.ORPHANS, Waste.SEARCHES, Waste.TREES):
            async for ids in self._batches(waste, retention):
                # A search that goes takes its tree along, which is counted once.
                some = [each for each in ids if each not in gone]
                gone.update(ids)
                found[waste].add(await self._amount(waste, some))
        found[Waste.PROBLEMS] = await self._amount_of_problems(retention)
        return found

    async def prune(self, retention: Retention) -> dict[Waste, Amount]:
        """Delete it, a few searches at a time; what was deleted."""
        found = {waste: Amount() for waste in Waste}
        for waste in (Waste.ORPHANS, Waste.SEARCHES, Waste.TREES):
            while (some := await self._delete_some(waste, retention)) is not None:
                found[waste].add(some)
        found[Waste.PROBLEMS] = await self._delete_problems()
        return found

    async def _batches(self, waste: Waste, retention: Retention) -> AsyncIterator[Sequence[UUID]]:
        after = _NO_ID
        while ids := await self._find(waste, retention, after):
            yield ids
            after = ids[-1]

    @retried
    async def _find(self, waste: Waste, retention: Retention, after: UUID) -> Sequence[UUID]:
        async with reading(self._engine) as connection:
            found = await connection.execute(
                _candidates(waste, retention).where(t.searches.c.id > after).limit(BATCH)
            )
            return [row.id for row in found]

    @retried
    async def _amount(self, waste: Waste, ids: Sequence[UUID]) -> Amount:
        async with reading(self._engine) as connection:
            return await _measure(connection, waste, ids)

    @retried
    async def _delete_some(self, waste: Waste, retention: Retention) -> Amount | None:
        """None: there is nothing left."""
        async with transaction(self._engine) as connection:
            await _wait_shortly_for_locks(connection)
            # Looked at under the lock: one that was taken up again meanwhile is no longer among them.
            locked = (
                _candidates(waste, retention).limit(BATCH).with_for_update(skip_locked=True, of=t.searches)
            )
            ids = [row.id for row in await connection.execute(locked)]
            if not ids:
                return None
            amount = await _measure(connection, waste, ids)
            if waste is Waste.TREES:
                for table in (t.nodes, t.search_tasks):
                    await connection.execute(table.delete().where(table.c.search_id.in_(ids)))
            else:
                await connection.execute(t.searches.delete().where(t.searches.c.id.in_(ids)))
            return amount

    @retried
    async def _amount_of_problems(self, retention: Retention) -> Amount:
        """Those that nothing names, and those that only searches name which go."""
        going = or_(*(_is_waste(waste, retention) for waste in (Waste.ORPHANS, Waste.SEARCHES)))
        size = func.coalesce(func.sum(func.pg_column_size(t.problems.c.text) + ROW_BYTES), 0)
        async with reading(self._engine) as connection:
            row = (
                await connection.execute(
                    select(func.count().label("number"), size.label("bytes")).where(_is_unnamed(~going))
                )
            ).one()
        return Amount(problems=row.number, bytes=int(row.bytes))

    @retried
    async def _delete_problems(self) -> Amount:
        size = func.pg_column_size(t.problems.c.text) + ROW_BYTES
        async with transaction(self._engine) as connection:
            await _wait_shortly_for_locks(connection)
            # Whoever stores a search inserts its problem first: it waits here, and then finds no problem gone that it has seen.
            await connection.execute(text("LOCK TABLE problems IN SHARE ROW EXCLUSIVE MODE"))
            sizes = (
                (
                    await connection.execute(
                        t.problems.delete().where(_is_unnamed(literal(True))).returning(size)
                    )
                )
                .scalars()
                .all()
            )
        return Amount(problems=len(sizes), bytes=sum(sizes))


def _candidates(waste: Waste, retention: Retention) -> Select[tuple[UUID]]:
    """Ids of the searches that are this kind of waste, in their order."""
    return select(t.searches.c.id).where(_is_waste(waste, retention)).order_by(t.searches.c.id)


def _is_waste(waste: Waste, retention: Retention) -> ColumnElement[bool]:
    is_over = t.searches.c.state.in_(_ENDS)
    if waste is Waste.ORPHANS:
        # A retry unlinks the searches that it makes anew (`RoundStore.retry`).
        linked = exists().where(t.round_searches.c.search_id == t.searches.c.id)
        return and_(is_over, t.searches.c.round_id.is_not(None), ~linked)
    days = retention.trees_days if waste is Waste.TREES else retention.searches_days
    if days is None:
        return false()
    old = t.searches.c.ended_at < from_now(-days * DAY_SECONDS)
    wasted = and_(is_over, old, ~_is_needed())
    if waste is Waste.TREES:
        wasted = and_(wasted, exists().where(t.nodes.c.search_id == t.searches.c.id))
    return wasted


def _is_needed() -> ColumnElement[bool]:
    """A round needs the search."""
    later = t.rounds.alias("later")
    superseded = exists().where(later.c.run == t.rounds.c.run, later.c.number > t.rounds.c.number)
    made_of = [
        exists().where(table.c.round_id == t.rounds.c.id)
        for table in (t.datasets, t.quarantine, t.serving_pairs, t.evaluations)
    ]
    needed = or_(
        t.rounds.c.state.not_in(ROUND_ENDS),
        and_(t.rounds.c.state == RoundState.FAILED, ~superseded),
        *made_of,
    )
    return (
        select(t.round_searches.c.search_id)
        .join(t.rounds, t.rounds.c.id == t.round_searches.c.round_id)
        .where(t.round_searches.c.search_id == t.searches.c.id, needed)
        .exists()
    )


def _is_unnamed(counting: ColumnElement[bool]) -> ColumnElement[bool]:
    """No search that counts, no round and no quarantine names the problem."""
    searched = select(t.searches.c.id).where(t.searches.c.problem_id == t.problems.c.id, counting).exists()
    others = [
        exists().where(table.c.problem_id == t.problems.c.id) for table in (t.round_problems, t.quarantine)
    ]
    return and_(~searched, *(~each for each in others))


async def _measure(connection: AsyncConnection, waste: Waste, ids: Sequence[UUID]) -> Amount:
    amount = Amount()
    parts: list[tuple[str, Table, tuple[str, ...]]] = [
        ("nodes", t.nodes, ("text", "stdout", "stderr")),
        ("tasks", t.search_tasks, ("ends",)),
    ]
    if waste is not Waste.TREES:
        amount.searches = len(ids)
        amount.bytes = len(ids) * ROW_BYTES
        parts.append(("solutions", t.solutions, ("program", "steps", "proof")))
    for name, table, columns in parts:
        size = sum(
            (func.coalesce(func.pg_column_size(table.c[each]), 0) for each in columns), literal(ROW_BYTES)
        )
        row = (
            await connection.execute(
                select(func.count().label("number"), func.coalesce(func.sum(size), 0).label("bytes")).where(
                    table.c.search_id.in_(ids)
                )
            )
        ).one()
        setattr(amount, name, row.number)
        amount.bytes += int(row.bytes)
    return amount


async def _wait_shortly_for_locks(connection: AsyncConnection) -> None:
    """Who works on searches must not wait for a deletion that waits itself."""
    await connection.execute(text("SET LOCAL lock_timeout = '2s'"))
