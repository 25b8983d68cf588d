"""A search that is over is given a larger budget, and queued again with its tree."""

from typing import Any
from uuid import UUID

from pydantic import ValidationError
from sqlalchemy import Row, exists, select
from sqlalchemy.ext.asyncio import AsyncConnection

from ratchet.contracts.extending import ExtendRequest, Limits
from ratchet.contracts.search import Budget, StrategyParameters
from ratchet.states import EXTENDABLE, SEARCH_TRANSITIONS, SearchState, check_transition, is_end
from ratchet.store import tables as t
from ratchet.store.search_states import QUEUED_AGAIN


class NotExtendableError(Exception):
    """The search cannot go on with a larger budget; the message says why."""


async def extend(
    connection: AsyncConnection, search_id: UUID, asked: ExtendRequest
) -> tuple[SearchState, Row[Any] | None] | None:
    """Its state after it, and where it was queued its id, fence and priority; None: unknown.

    One that may use as much already stays as it is, whatever it does. Raises NotExtendableError, ShrinkingBudgetError.
    """
    has_tree = exists().where(t.nodes.c.search_id == t.searches.c.id).label("has_tree")
    query = select(t.searches, has_tree).where(t.searches.c.id == search_id).with_for_update(of=t.searches)
    row = (await connection.execute(query)).one_or_none()
    if row is None:
        return None
    had = _limits_of(row)
    limits = asked.grown(had)
    if limits == had:
        return row.state, None
    _require_extendable(row)
    check_transition(SEARCH_TRANSITIONS, row.state, SearchState.QUEUED)
    queued = await connection.execute(
        t.searches.update()
        .where(t.searches.c.id == search_id)
        .values(
            **QUEUED_AGAIN,
            budget=limits.budget.model_dump(mode="json"),
            parameters=row.parameters | {"rollouts": limits.rollouts},
        )
        .returning(t.searches.c.id, t.searches.c.fence, t.searches.c.priority)
    )
    return SearchState.QUEUED, queued.one()


def _limits_of(row: Row[Any]) -> Limits:
    try:
        parameters = StrategyParameters.model_validate(row.parameters)
        return Limits(budget=Budget.model_validate(row.budget), rollouts=parameters.rollouts)
    except ValidationError as error:
        raise NotExtendableError(
            "Another version asked for this search, in words that this one does not know."
        ) from error


def _require_extendable(row: Row[Any]) -> None:
    if row.round_id is not None:
        raise NotExtendableError("A round has measured or learnt from this search: it stays as it is.")
    if not is_end(SEARCH_TRANSITIONS, row.state):
        raise NotExtendableError(f"The search is {row.state}: wait for its end, or cancel it, and ask again.")
    if row.state not in EXTENDABLE:
        raise NotExtendableError(f"The search is {row.state}: have it taken up again by /retry.")
    if row.started_at is not None and not row.has_tree:
        raise NotExtendableError("The tree of this search is no longer kept. Begin a new one.")
