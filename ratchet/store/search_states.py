"""How a search moves from state to state in Postgres: taken up, given back, ended, taken up again after a failure.

A search counts as taken up in vain when its worker was lost and its journal has not grown since: `attempts` counts these, and
begins anew with every rollout that is written down. One that a worker gave back is due again at `not_before`.
"""

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any, Final
from uuid import UUID

from prometheus_client import Counter
from sqlalchemy import BigInteger, Row, and_, case, func, or_, select, text
from sqlalchemy.ext.asyncio import AsyncConnection

from ratchet.contracts.search import Usage
from ratchet.states import SEARCH_TRANSITIONS, SearchState, check_transition
from ratchet.store import tables as t
from ratchet.store.engine import from_now
from ratchet.store.text import replace_unstorable

ENDED = Counter(
    "ratchet_searches_ended",
    "Searches that this process ended, by state. One whose commit got lost is counted twice.",
    ["state"],
)


TOKENS: Final = func.coalesce(t.searches.c.usage["policy"]["tokens"].astext.cast(BigInteger), 0)
"""Tokens that the policy has generated for a search."""
_TODAY = func.timezone("UTC", func.date_trunc("day", func.timezone("UTC", func.now())))
_LAST_QUEUED = func.coalesce(t.searches.c.queued_again_at, t.searches.c.created_at)
QUEUED_AGAIN: Final[Mapping[str, Any]] = {
    "state": SearchState.QUEUED,
    "reason": None,
    "owner": None,
    "lease_until": None,
    "not_before": None,
    "ended_at": None,
    "cancel_requested": False,
    "attempts": 0,
    "given_back": 0,
    # The fence names the job: the old one's name is used up.
    "fence": t.searches.c.fence + 1,
    "queued_again_at": func.now(),
    # What it generates from now on is of today, as what it has generated today is.
    "tokens_before": case((_LAST_QUEUED >= _TODAY, t.searches.c.tokens_before), else_=TOKENS),
}
"""Columns of a search that was over and goes on."""


async def lock_free(connection: AsyncConnection, search_id: UUID) -> Row[Any] | None:
    """The search's row, locked, if a worker may take it up: queued and due, or running with the lease run out."""
    now = func.clock_timestamp()
    lapsed = func.coalesce(t.searches.c.lease_until, t.searches.c.created_at) < now
    due = func.coalesce(t.searches.c.not_before, t.searches.c.created_at) <= now
    return (
        await connection.execute(
            select(t.searches)
            .where(
                t.searches.c.id == search_id,
                or_(
                    and_(t.searches.c.state == SearchState.QUEUED, due),
                    and_(t.searches.c.state == SearchState.RUNNING, lapsed),
                ),
            )
            .with_for_update()
        )
    ).one_or_none()


async def give_back(
    connection: AsyncConnection,
    held: Any,
    *,
    usage: Usage | None,
    after_seconds: float,
    reason: str | None,
) -> None:
    """Queue a search again that meets the condition `held`; the attempt does not count. With a reason it was an outage."""
    check_transition(SEARCH_TRANSITIONS, SearchState.RUNNING, SearchState.QUEUED)
    values: dict[str, Any] = {
        "state": SearchState.QUEUED,
        "owner": None,
        "lease_until": None,
        "not_before": from_now(after_seconds),
        # The fence moves too: what the old worker may still have under way must not land.
        "fence": t.searches.c.fence + 1,
        "attempts": func.greatest(t.searches.c.attempts - 1, 0),
        "reason": None if reason is None else replace_unstorable(reason),
    }
    if reason is not None:
        values["given_back"] = t.searches.c.given_back + 1
    if usage is not None:
        values["usage"] = usage.model_dump(mode="json")
    await connection.execute(t.searches.update().where(held).values(**values))


async def end(
    connection: AsyncConnection,
    row: Row[*tuple[Any, ...]],
    state: SearchState,
    reason: str | None,
    further: Mapping[str, Any] = MappingProxyType({}),
) -> None:
    """Bring a search, whose row is locked, to an end state; `further` columns are written with it."""
    check_transition(SEARCH_TRANSITIONS, row.state, state)
    await connection.execute(
        t.searches.update()
        .where(t.searches.c.id == row.id)
        .values(
            state=state,
            reason=None if reason is None else replace_unstorable(reason),
            lease_until=None,
            ended_at=func.clock_timestamp(),
            **further,
        )
    )
    ENDED.labels(state.value).inc()


async def queue_failed_again(connection: AsyncConnection, condition: Any) -> Sequence[Any]:
    """Queue the failed searches that meet the condition, with their trees; their id, fence and priority."""
    check_transition(SEARCH_TRANSITIONS, SearchState.FAILED, SearchState.QUEUED)
    rows = await connection.execute(
        t.searches.update()
        .where(condition, t.searches.c.state == SearchState.FAILED)
        .values(**QUEUED_AGAIN)
        .returning(t.searches.c.id, t.searches.c.fence, t.searches.c.priority)
    )
    return rows.all()


async def find_due(connection: AsyncConnection, queued_seconds: float, limit: int) -> Sequence[Any]:
    """Searches that should have a job and may have none, the oldest first: id, fence and priority.

    They are running with the lease run out, given back and due, or queued for longer than `queued_seconds`.
    """
    now = func.clock_timestamp()
    rows = await connection.execute(
        select(t.searches.c.id, t.searches.c.fence, t.searches.c.priority)
        .where(
            _UNDER_WAY,
            or_(
                and_(t.searches.c.state == SearchState.RUNNING, t.searches.c.lease_until < now),
                and_(
                    t.searches.c.state == SearchState.QUEUED,
                    func.coalesce(
                        t.searches.c.not_before,
                        t.searches.c.created_at + func.make_interval(0, 0, 0, 0, 0, 0, queued_seconds),
                    )
                    < now,
                ),
            ),
        )
        .order_by(t.searches.c.created_at)
        .limit(limit)
    )
    return rows.all()


async def count_waiting(connection: AsyncConnection) -> tuple[int, int, float]:
    """How many searches are queued and how many run, and for how many seconds the oldest queued one has been there."""
    row = (
        await connection.execute(
            select(
                func.count().filter(t.searches.c.state == SearchState.QUEUED).label("queued"),
                func.count().filter(t.searches.c.state == SearchState.RUNNING).label("running"),
                func.extract(
                    "epoch",
                    func.clock_timestamp()
                    - func.min(t.searches.c.created_at).filter(t.searches.c.state == SearchState.QUEUED),
                ).label("oldest"),
            ).where(_UNDER_WAY)
        )
    ).one()
    return row.queued, row.running, float(row.oldest or 0.0)


# Written as a literal, so that the partial index serves it.
_UNDER_WAY = text("searches.state IN ('queued', 'running')")
