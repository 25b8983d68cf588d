"""The list of searches, the newest first, narrowed down to what a caller asks for.

What stands in a problem or an answer no index of a stock server finds (pg_trgm is an extension that not every operator may
install). So one page looks at LOOKED_AT searches at most, and says where to go on: a page costs the same however long the
history is.
"""

from typing import Any
from uuid import UUID

from sqlalchemy import Select, func, or_, select
from sqlalchemy.ext.asyncio import AsyncConnection

from ratchet.contracts.search_list import SearchFilter, SearchPage, SearchSummary
from ratchet.store import tables as t
from ratchet.store.search_results import searches_with_results

PROBLEM_LETTERS = 200
"""A page of searches shows this much of each problem."""
LOOKED_AT = 20_000
"""Searches that one page reads at most: some 0.2 seconds."""


async def read_page(
    connection: AsyncConnection,
    limit: int,
    narrowed: SearchFilter,
    cursor: UUID | None,
    key_id: UUID | None,
) -> SearchPage:
    """The newest searches first; `cursor` is the `next` of the page before, `key_id` the only key by which they were begun."""
    floor = await _floor(connection, narrowed, cursor, key_id)
    query = _narrow(_begun(_SUMMARIES, narrowed, cursor, key_id), narrowed).limit(limit + 1)
    if floor is not None:
        query = query.where(t.searches.c.id >= floor)
    rows = (await connection.execute(query)).mappings().all()
    shown = [_summary(dict(row)) for row in rows[:limit]]
    if len(rows) > limit:
        return SearchPage(searches=shown, next=shown[-1].id)
    return SearchPage(searches=shown, next=None if floor is None else str(floor))


async def _floor(
    connection: AsyncConnection, narrowed: SearchFilter, cursor: UUID | None, key_id: UUID | None
) -> UUID | None:
    """The last search that this page looks at; None where the end of the list is nearer."""
    if narrowed == SearchFilter(state=narrowed.state):
        # An index has the states.
        return None
    ids = _begun(select(t.searches.c.id), narrowed, cursor, key_id)
    floor: UUID | None = await connection.scalar(ids.offset(LOOKED_AT - 1).limit(1))
    return floor


def _begun(
    query: Select[Any], narrowed: SearchFilter, cursor: UUID | None, key_id: UUID | None
) -> Select[Any]:
    """What indexes serve."""
    query = query.order_by(t.searches.c.id.desc())
    if narrowed.state is not None:
        query = query.where(t.searches.c.state == narrowed.state)
    if cursor is not None:
        query = query.where(t.searches.c.id < cursor)
    if key_id is not None:
        query = query.where(t.searches.c.key_id == key_id)
    return query


def _narrow(query: Select[Any], narrowed: SearchFilter) -> Select[Any]:
    """What has to be looked at."""
    if narrowed.text is not None:
        # Both escape what LIKE takes for a wildcard.
        query = query.where(
            or_(
                t.problems.c.text.icontains(narrowed.text, autoescape=True),
                t.solutions.c.answer.icontains(narrowed.text, autoescape=True),
            )
        )
    if narrowed.level is not None:
        query = query.where(t.verifications.c.level == narrowed.level)
    if narrowed.strategy is not None:
        query = query.where(t.searches.c.strategy == narrowed.strategy)
    if narrowed.model is not None:
        models = t.searches.c.models
        query = query.where(
            or_(models["policy"].as_string() == narrowed.model, models["prm"].as_string() == narrowed.model)
        )
    return query


_SUMMARIES = select(
    t.searches.c.id,
    t.searches.c.state,
    func.left(t.problems.c.text, PROBLEM_LETTERS).label("problem"),
    t.searches.c.strategy,
    t.searches.c.models,
    t.searches.c.beginning["parent"].label("parent"),
    t.searches.c.created_at,
    t.searches.c.ended_at,
    t.solutions.c.answer,
    t.verifications.c.level,
    t.verifications.c.confidence,
).select_from(searches_with_results())


def _summary(row: dict[str, Any]) -> SearchSummary:
    return SearchSummary.model_validate({**row, "id": str(row["id"])})
