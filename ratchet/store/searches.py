"""Searches in Postgres: who may work on one (lease and fence), and its way from queued to its end.

A worker claims a search and gets a `Claim` with a fencing token. Each later claim moves the token, and every write under an
older one is refused with `LeaseLostError` and writes nothing: a worker that was paused, cut off or thought dead cannot harm
its successor. All times are the database's, so that the clocks of hosts do not matter.

Limits: a lease that has run out but was not claimed by another still writes. Text that Postgres cannot hold (NUL, lone
surrogates) is stored with U+FFFD in its place.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import and_, exists, func, select, tuple_
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from ratchet.contracts.branching import Beginning
from ratchet.contracts.extending import ExtendRequest
from ratchet.contracts.search import Priority, SearchRequest, SearchResult, StrategyName, Usage
from ratchet.contracts.search_list import SearchFilter, SearchPage
from ratchet.states import SEARCH_TRANSITIONS, IllegalTransitionError, SearchState, check_transition, is_end
from ratchet.store import tables as t
from ratchet.store.engine import from_now, reading, retried, transaction
from ratchet.store.extending import extend
from ratchet.store.ids import new_id
from ratchet.store.nodes import NodeRecord, read_trees, write_nodes
from ratchet.store.search_list import read_page
from ratchet.store.search_progress import Progress, read_progress, write_progress
from ratchet.store.search_requests import (
    Branch,
    find_by_key,
    insert_searches,
    read_beginning,
    read_request,
    request_sha256,
)
from ratchet.store.search_results import SearchOutcome, insert_solution, read_result
from ratchet.store.search_states import (
    count_waiting,
    end,
    find_due,
    give_back,
    lock_free,
    queue_failed_again,
)
from ratchet.store.search_tasks import SearchJournal, TaskRecord, read_journal, write_tasks
from ratchet.store.strategy_choices import UNMEASURED, read_choice


class LeaseLostError(Exception):
    """Another worker has claimed the search since, or it is over: nothing was written."""


@dataclass(frozen=True, slots=True)
class Claim:
    """The right to work on a search until the lease ends or the fence moves."""

    id: UUID
    owner: str
    fence: int
    attempt: int
    """Counts workers that took it up since its journal last grew, this one included: 1 unless a worker was lost in vain."""
    request: SearchRequest
    """Without the reference answer, whether there is one or not; see `has_reference`."""
    has_reference: bool
    cancel_requested: bool
    created_at: datetime
    usage: Usage
    """What earlier workers have used; `wall_seconds` of the budget's seconds."""
    models: Mapping[str, str]
    """Versions that have answered earlier workers, by part."""
    of_round: bool
    """A round planned it: its pinned models come back with the trainer."""
    given_back: int
    """How often in a row workers gave it back, because something was away."""
    beginning: Beginning | None = None
    """Where it was branched from another search: what it was given to begin with."""


@dataclass(frozen=True, slots=True)
class Waiting:
    """A search that should have a job: its id, the fence that names the job, and its priority."""

    id: UUID
    fence: int
    priority: Priority


class SearchStore:
    """All that is read and written about searches. Every method raises StoreUnavailableError when Postgres is away."""

    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine

    async def create(
        self,
        request: SearchRequest,
        idempotency_key: str | None = None,
        key_id: UUID | None = None,
        branch: Branch | None = None,
    ) -> tuple[UUID, bool]:
        """Store a search, begun by an API key, as queued. Returns its id, and whether it is new.

        The same key with the same request returns the search it made the first time; with another request it raises
        IdempotencyConflictError.
        """
        # The id is chosen before the first try: a try whose answer was lost is found by the next, and not made twice.
        return await self._create(new_id(), request, idempotency_key, key_id, branch)

    @retried
    async def _create(
        self,
        search_id: UUID,
        request: SearchRequest,
        idempotency_key: str | None,
        key_id: UUID | None,
        branch: Branch | None,
    ) -> tuple[UUID, bool]:
        async with transaction(self._engine) as connection:
            if idempotency_key is not None:
                digest = request_sha256(request) if branch is None else branch.sha256
                earlier = await find_by_key(connection, idempotency_key, digest)
                if earlier is not None:
                    return earlier, earlier == search_id
            await insert_searches(
                connection,
                {search_id: request},
                idempotency_key=idempotency_key,
                key_id=key_id,
                branch=branch,
            )
        return search_id, True

    @retried
    async def claim(
        self, search_id: UUID, owner: str, lease_seconds: float, max_attempts: int
    ) -> Claim | None:
        """Take the search up: it runs, its fence moves, and writes under older claims are refused.

        None when there is nothing to do: unknown, over, not due yet, another's lease alive, or `max_attempts` workers were lost
        with it while its journal did not grow (then it ends here as failed).
        """
        async with transaction(self._engine) as connection:
            row = await lock_free(connection, search_id)
            if row is None:
                return None
            if row.attempts >= max_attempts:
                reason = (
                    f"{row.attempts} workers took this search up, and were lost before it got any further."
                )
                await end(connection, row, SearchState.FAILED, reason)
                return None
            check_transition(SEARCH_TRANSITIONS, row.state, SearchState.RUNNING)
            claimed = (
                await connection.execute(
                    t.searches.update()
                    .where(t.searches.c.id == search_id)
                    .values(
                        state=SearchState.RUNNING,
                        owner=owner,
                        lease_until=from_now(lease_seconds),
                        fence=t.searches.c.fence + 1,
                        attempts=t.searches.c.attempts + 1,
                        not_before=None,
                        reason=None,
                        started_at=func.coalesce(t.searches.c.started_at, func.clock_timestamp()),
                    )
                    .returning(t.searches.c.fence, t.searches.c.attempts)
                )
            ).one()
            has_reference = exists().where(t.reference_answers.c.search_id == search_id)
            problem = (
                await connection.execute(
                    select(t.problems.c.text, has_reference.label("has_reference")).where(
                        t.problems.c.id == row.problem_id
                    )
                )
            ).one()
        # Read after the commit: a row that an older version wrote and this one cannot read uses up its attempts.
        return Claim(
            id=search_id,
            owner=owner,
            fence=claimed.fence,
            attempt=claimed.attempts,
            request=read_request(row, problem.text),
            has_reference=problem.has_reference,
            cancel_requested=row.cancel_requested,
            created_at=row.created_at,
            usage=Usage.model_validate(row.usage),
            models=row.models,
            of_round=row.round_id is not None,
            given_back=row.given_back,
            beginning=read_beginning(row),
        )

    @retried
    async def is_suspect(self, search_id: UUID) -> bool:
        """Whether a worker was lost with this search while its journal did not grow: it may be what ended that worker."""
        async with reading(self._engine) as connection:
            attempts = await connection.execute(
                select(t.searches.c.attempts).where(t.searches.c.id == search_id)
            )
            return (attempts.scalar_one_or_none() or 0) > 0

    @retried
    async def reference_answer(self, claim: Claim) -> str | None:
        """The right answer, for the verifier alone."""
        async with reading(self._engine) as connection:
            return (
                await connection.execute(
                    select(t.reference_answers.c.answer).where(t.reference_answers.c.search_id == claim.id)
                )
            ).scalar_one_or_none()

    @retried
    async def choose_strategy(self, claim: Claim, models: tuple[str, str] | None) -> StrategyName:
        """What stands for `auto` in this search from now on, with this policy and PRM. Raises LeaseLostError."""
        async with transaction(self._engine) as connection:
            await _require_lease(connection, claim)
            choice = None if models is None else await read_choice(connection, *models)
            strategy = UNMEASURED if choice is None else choice.strategy
            await connection.execute(
                t.searches.update().where(t.searches.c.id == claim.id).values(strategy=strategy)
            )
        return strategy

    @retried
    async def renew(self, claim: Claim, lease_seconds: float) -> bool:
        """Extend the lease. Returns whether a caller asked to cancel. Raises LeaseLostError."""
        async with transaction(self._engine) as connection:
            cancel_requested = (
                await connection.execute(
                    t.searches.update()
                    .where(_is_held_by(claim))
                    .values(lease_until=from_now(lease_seconds))
                    .returning(t.searches.c.cancel_requested)
                )
            ).scalar_one_or_none()
        if cancel_requested is None:
            raise LeaseLostError(f"search {claim.id} was taken over")
        return bool(cancel_requested)

    @retried
    async def release(
        self, claim: Claim, usage: Usage | None = None, *, after_seconds: float = 0.0, away: str | None = None
    ) -> None:
        """Give the search back unfinished, with its tree: it is queued again, and may be taken up after so many seconds.

        This attempt does not count. `away` says what was away; None for a worker that is told to stop. Does nothing when the
        lease was lost before.
        """
        async with transaction(self._engine) as connection:
            await give_back(
                connection, _is_held_by(claim), usage=usage, after_seconds=after_seconds, reason=away
            )

    @retried
    async def retry(self, search_id: UUID) -> tuple[SearchState, Waiting | None] | None:
        """Queue a failed search again, with its tree. Returns its state after it, and the job to put; None: unknown."""
        async with transaction(self._engine) as connection:
            rows = await queue_failed_again(connection, t.searches.c.id == search_id)
        if rows:
            return SearchState.QUEUED, Waiting(rows[0].id, rows[0].fence, rows[0].priority)
        state = await self.state(search_id)
        return None if state is None else (state, None)

    @retried
    async def extend(
        self, search_id: UUID, asked: ExtendRequest
    ) -> tuple[SearchState, Waiting | None] | None:
        """Queue a search that is over again, with its tree and a larger budget. Returns its state after it, and the job to put;
        None: unknown. Raises NotExtendableError, ShrinkingBudgetError."""
        async with transaction(self._engine) as connection:
            found = await extend(connection, search_id, asked)
        if found is None:
            return None
        state, row = found
        return state, None if row is None else Waiting(row.id, row.fence, row.priority)

    @retried
    async def journal(
        self,
        claim: Claim,
        nodes: Sequence[NodeRecord],
        usage: Usage,
        tasks: Sequence[TaskRecord] = (),
        models: Mapping[str, str] | None = None,
        progress: Progress | None = None,
    ) -> None:
        """Store new nodes and what known ones are now, tasks, usage and models so far, and where it stands, in one transaction.

        A known node keeps its place in the tree; all else of it is written anew. Parents come before their children, or in the
        same call. With tasks the search has got further: what was in vain before is forgotten. Raises
        LeaseLostError, IllegalTransitionError or OrphanNodeError, and then writes nothing.
        """
        async with transaction(self._engine) as connection:
            await _require_lease(connection, claim)
            further = await _write_growth(connection, claim.id, nodes, tasks, progress)
            if models is not None:
                further["models"] = dict(models)
            await connection.execute(
                t.searches.update()
                .where(t.searches.c.id == claim.id)
                .values(usage=usage.model_dump(mode="json"), **further)
            )

    @retried
    async def load_nodes(self, search_id: UUID) -> list[NodeRecord]:
        """The tree, parents before children; of one depth in order of creation."""
        async with reading(self._engine) as connection:
            return (await read_trees(connection, [search_id]))[search_id]

    @retried
    async def load_progress(self, search_id: UUID) -> Progress | None:
        """Where the search stood when its tree was last written; None where nobody, or an older version, wrote it down."""
        async with reading(self._engine) as connection:
            return await read_progress(connection, search_id)

    @retried
    async def load_journal(self, search_id: UUID) -> SearchJournal | None:
        """The request with all that was journalled of the search; None: unknown."""
        async with reading(self._engine) as connection:
            return await read_journal(connection, search_id)

    @retried
    async def finish(
        self,
        claim: Claim,
        state: SearchState,
        outcome: SearchOutcome,
        nodes: Sequence[NodeRecord] = (),
        tasks: Sequence[TaskRecord] = (),
        progress: Progress | None = None,
    ) -> None:
        """End the search: what is left to journal, state, solution, verification and usage in one transaction.

        Raises LeaseLostError, IllegalTransitionError or OrphanNodeError, and then writes nothing. A second call with the same
        claim and state does nothing, so that a call whose answer was lost can be repeated.
        """
        async with transaction(self._engine) as connection:
            row = (
                await connection.execute(
                    select(t.searches.c.id, t.searches.c.state)
                    .where(t.searches.c.id == claim.id, t.searches.c.fence == claim.fence)
                    .with_for_update()
                )
            ).one_or_none()
            if row is None:
                raise LeaseLostError(f"search {claim.id} was taken over")
            if row.state is state and is_end(SEARCH_TRANSITIONS, state):
                return
            if not is_end(SEARCH_TRANSITIONS, state):
                raise IllegalTransitionError(f"a search cannot end as {state}")
            check_transition(SEARCH_TRANSITIONS, row.state, state)
            further = await _write_growth(connection, claim.id, nodes, tasks, progress)
            await insert_solution(connection, claim.id, outcome)
            further |= {"usage": outcome.usage.model_dump(mode="json"), "models": dict(outcome.models)}
            await end(connection, row, state, outcome.reason, further)

    @retried
    async def request_cancel(self, search_id: UUID) -> SearchState | None:
        """Cancel a queued search at once; ask the worker of a running one. Returns the state after it; None: unknown."""
        async with transaction(self._engine) as connection:
            row = (
                await connection.execute(
                    select(t.searches).where(t.searches.c.id == search_id).with_for_update()
                )
            ).one_or_none()
            if row is None:
                return None
            if row.state is SearchState.QUEUED:
                began = row.started_at is not None
                await end(
                    connection,
                    row,
                    SearchState.CANCELLED,
                    "Cancelled while it waited for a worker again; its tree is kept."
                    if began
                    else "Cancelled before a worker began.",
                )
                return SearchState.CANCELLED
            if row.state is SearchState.RUNNING:
                await connection.execute(
                    t.searches.update().where(t.searches.c.id == search_id).values(cancel_requested=True)
                )
            state: SearchState = row.state
            return state

    @retried
    async def state(self, search_id: UUID) -> SearchState | None:
        """The state alone, for those who poll; None: unknown."""
        async with reading(self._engine) as connection:
            return (
                await connection.execute(select(t.searches.c.state).where(t.searches.c.id == search_id))
            ).scalar_one_or_none()

    @retried
    async def result(self, search_id: UUID) -> SearchResult | None:
        """The search as the API shows it; None: unknown."""
        async with reading(self._engine) as connection:
            return await read_result(connection, search_id)

    @retried
    async def proof(self, search_id: UUID) -> dict[str, Any] | None:
        """The proof bundle; None where there is none."""
        async with reading(self._engine) as connection:
            proof: dict[str, Any] | None = (
                await connection.execute(
                    select(t.solutions.c.proof).where(t.solutions.c.search_id == search_id)
                )
            ).scalar_one_or_none()
            return proof

    @retried
    async def list_recent(
        self,
        limit: int = 50,
        narrowed: SearchFilter = SearchFilter(),
        cursor: UUID | None = None,
        key_id: UUID | None = None,
    ) -> SearchPage:
        """The newest searches first; `cursor` is the `next` of the page before. `key_id`: only those begun by this key."""
        async with reading(self._engine) as connection:
            return await read_page(connection, limit, narrowed, cursor, key_id)

    @retried
    async def find_lapsed(self, queued_seconds: float = 5.0, limit: int = 1000) -> list[Waiting]:
        """Searches that should have a job and may have none, the oldest first.

        They are running with the lease run out, given back and due, or queued for longer than `queued_seconds`.
        """
        async with reading(self._engine) as connection:
            rows = await find_due(connection, queued_seconds, limit)
            return [Waiting(row.id, row.fence, row.priority) for row in rows]

    @retried
    async def count_waiting(self) -> tuple[int, int, float]:
        """How many searches are queued, how many run, and the age of the oldest queued one in seconds."""
        async with reading(self._engine) as connection:
            return await count_waiting(connection)


def _is_held_by(claim: Claim) -> Any:
    """An SQL condition: the search runs, under this claim's fence."""
    return and_(
        tuple_(t.searches.c.id, t.searches.c.fence) == tuple_(claim.id, claim.fence),
        t.searches.c.state == SearchState.RUNNING,
    )


async def _write_growth(
    connection: AsyncConnection,
    search_id: UUID,
    nodes: Sequence[NodeRecord],
    tasks: Sequence[TaskRecord],
    progress: Progress | None,
) -> dict[str, Any]:
    """Write what a search has got further by; the columns that say so in its row.

    Raises IllegalTransitionError or OrphanNodeError.
    """
    await write_nodes(connection, search_id, nodes)
    await write_tasks(connection, search_id, tasks)
    if progress is not None:
        await write_progress(connection, search_id, progress)
    return {"attempts": 0, "given_back": 0} if tasks else {}


async def _require_lease(connection: AsyncConnection, claim: Claim) -> None:
    """Raise LeaseLostError unless the claim holds the search; hold it until the transaction is over."""
    # The row lock keeps another worker's claim waiting until this transaction is over.
    held = await connection.execute(select(t.searches.c.id).where(_is_held_by(claim)).with_for_update())
    if held.one_or_none() is None:
        raise LeaseLostError(f"search {claim.id} was taken over")
