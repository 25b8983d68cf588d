"""The searches of a round: planned under its fence, counted while they run, and read with their trees when they are over.

A plan can be made again, by the same trainer or by its successor: it adds only what is missing.
"""

from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from dataclasses import dataclass
from uuid import UUID

from sqlalchemy import and_, func, select
from sqlalchemy.ext.asyncio import AsyncEngine

from ratchet.contracts.search import SearchRequest, Usage
from ratchet.states import SEARCH_TRANSITIONS, SearchState, is_end
from ratchet.store import tables as t
from ratchet.store.engine import reading, retried, transaction
from ratchet.store.ids import new_id
from ratchet.store.nodes import NodeRecord, read_trees
from ratchet.store.rounds import RoundClaim, require_lease
from ratchet.store.search_requests import insert_searches, request_sha256
from ratchet.store.search_states import queue_failed_again
from ratchet.store.searches import Waiting

SEARCH_ENDS = tuple(state for state in SearchState if is_end(SEARCH_TRANSITIONS, state))
TREES_AT_ONCE = 100
"""Trees in memory at a time: those of a whole round may be more than a trainer can hold."""


@dataclass(frozen=True, slots=True)
class RoundSearch:
    """A search of a round, and what has come of it so far."""

    place: int
    """Of its problem, in the round's list."""
    attempt: int
    search_id: UUID
    state: SearchState
    answer: str | None
    reason: str | None
    usage: Usage
    models: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class SearchedTree:
    """A search of a round and its tree, parents before children."""

    place: int
    attempt: int
    search_id: UUID
    nodes: list[NodeRecord]


class RoundSearchStore:
    """The searches of rounds, by round and purpose. Every method raises StoreUnavailableError when Postgres is away."""

    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine

    @retried
    async def plan(
        self, claim: RoundClaim, purpose: str, attempt: int, requests: Mapping[int, SearchRequest]
    ) -> list[Waiting]:
        """Store a search for each place, unless the same is there. Returns the new ones: they should have a job.

        One that asked for something else (a retry has changed the settings) is no longer the round's. Raises
        RoundLostError, and then writes nothing.
        """
        planned_before = and_(
            t.round_searches.c.round_id == claim.id,
            t.round_searches.c.purpose == purpose,
            t.round_searches.c.attempt == attempt,
        )
        async with transaction(self._engine) as connection:
            await require_lease(connection, claim)
            rows = await connection.execute(
                select(t.round_searches.c.place, t.searches.c.request_sha256)
                .join(t.searches, t.searches.c.id == t.round_searches.c.search_id)
                .where(planned_before)
            )
            digests = {row.place: row.request_sha256 for row in rows}
            new = {
                place: (new_id(), request)
                for place, request in requests.items()
                if digests.get(place) != request_sha256(request)
            }
            if not new:
                return []
            await connection.execute(
                t.round_searches.delete().where(planned_before, t.round_searches.c.place.in_(list(new)))
            )
            await insert_searches(connection, dict(new.values()), round_id=claim.id)
            await connection.execute(
                t.round_searches.insert(),
                [
                    {
                        "round_id": claim.id,
                        "purpose": purpose,
                        "place": place,
                        "attempt": attempt,
                        "search_id": search_id,
                    }
                    for place, (search_id, _) in new.items()
                ],
            )
        return [Waiting(search_id, 0, request.priority) for search_id, request in new.values()]

    @retried
    async def queue_failed_again(self, claim: RoundClaim, purpose: str) -> list[Waiting]:
        """Queue the round's failed searches for a purpose again, with their trees. Raises RoundLostError."""
        async with transaction(self._engine) as connection:
            await require_lease(connection, claim)
            planned = select(t.round_searches.c.search_id).where(
                t.round_searches.c.round_id == claim.id, t.round_searches.c.purpose == purpose
            )
            rows = await queue_failed_again(connection, t.searches.c.id.in_(planned))
            return [Waiting(row.id, row.fence, row.priority) for row in rows]

    @retried
    async def count_ended(self, round_id: UUID, purpose: str) -> tuple[int, int]:
        """How many of the round's searches for a purpose are over, and how many there are."""
        async with reading(self._engine) as connection:
            row = (
                await connection.execute(
                    select(
                        func.count().filter(t.searches.c.state.in_(SEARCH_ENDS)).label("over"),
                        func.count().label("all"),
                    )
                    .select_from(
                        t.round_searches.join(t.searches, t.searches.c.id == t.round_searches.c.search_id)
                    )
                    .where(t.round_searches.c.round_id == round_id, t.round_searches.c.purpose == purpose)
                )
            ).one()
        return row.over, row.all

    @retried
    async def results(self, round_id: UUID, purpose: str) -> list[RoundSearch]:
        """What came of the round's searches for a purpose, by place and attempt."""
        joined = t.round_searches.join(t.searches, t.searches.c.id == t.round_searches.c.search_id).outerjoin(
            t.solutions, t.solutions.c.search_id == t.searches.c.id
        )
        async with reading(self._engine) as connection:
            rows = await connection.execute(
                select(
                    t.round_searches.c.place,
                    t.round_searches.c.attempt,
                    t.searches.c.id,
                    t.searches.c.state,
                    t.searches.c.reason,
                    t.searches.c.usage,
                    t.searches.c.models,
                    t.solutions.c.answer,
                )
                .select_from(joined)
                .where(t.round_searches.c.round_id == round_id, t.round_searches.c.purpose == purpose)
                .order_by(t.round_searches.c.place, t.round_searches.c.attempt)
            )
            return [
                RoundSearch(
                    place=row.place,
                    attempt=row.attempt,
                    search_id=row.id,
                    state=row.state,
                    answer=row.answer,
                    reason=row.reason,
                    usage=Usage.model_validate(row.usage),
                    models=row.models,
                )
                for row in rows
            ]

    async def trees(
        self, round_id: UUID, purpose: str, places: Collection[int] | None = None
    ) -> AsyncIterator[SearchedTree]:
        """The round's trees for a purpose, by place and attempt; with `places` only those of these problems."""
        planned = [
            each for each in await self.planned(round_id, purpose) if places is None or each[0] in places
        ]
        for start in range(0, len(planned), TREES_AT_ONCE):
            some = planned[start : start + TREES_AT_ONCE]
            trees = await self._trees([search_id for _, _, search_id in some])
            for place, attempt, search_id in some:
                yield SearchedTree(place, attempt, search_id, trees[search_id])

    @retried
    async def planned(self, round_id: UUID, purpose: str) -> list[tuple[int, int, UUID]]:
        """Place, attempt and id of each search for a purpose, by place and attempt."""
        async with reading(self._engine) as connection:
            rows = await connection.execute(
                select(t.round_searches.c.place, t.round_searches.c.attempt, t.round_searches.c.search_id)
                .where(t.round_searches.c.round_id == round_id, t.round_searches.c.purpose == purpose)
                .order_by(t.round_searches.c.place, t.round_searches.c.attempt)
            )
            return [(row.place, row.attempt, row.search_id) for row in rows]

    @retried
    async def _trees(self, search_ids: Sequence[UUID]) -> dict[UUID, list[NodeRecord]]:
        async with reading(self._engine) as connection:
            return await read_trees(connection, search_ids)

    @retried
    async def cancel(self, round_id: UUID) -> int:
        """Ask all searches of the round that are not over to end; how many there were."""
        async with transaction(self._engine) as connection:
            found = await connection.execute(
                t.searches.update()
                .where(t.searches.c.round_id == round_id, t.searches.c.state.not_in(SEARCH_ENDS))
                .values(cancel_requested=True)
                .returning(t.searches.c.id)
            )
            return len(found.all())
