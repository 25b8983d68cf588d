"""Searches in Postgres: who may work on one (lease and fence), its tree, its one result.

A worker claims a search and gets a `Claim` with a fencing token. Each later claim moves the token, and
every write
under an older one is refused with `LeaseLostError` and writes nothing: a worker that was paused, cut off
or thought
dead cannot harm its successor. All times are the database's, so that the clocks of hosts do not matter.

Limits: a lease that has run out but was not claimed by another still writes. Text that Postgres cannot
hold (NUL, lone
surrogates: programs print anything) is stored with U+FFFD in their place.
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any
from uuid import UUID

import orjson
from pydantic import TypeAdapter
from sqlalchemy import Row, RowMapping, and_, func, or_, select, text, tuple_
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from ratchet.contracts.sandbox import StepStatus
from ratchet.contracts.search import (
    Budget,
    NodeView,
    PinnedModels,
    Priority,
    SearchPage,
    SearchRequest,
    SearchResult,
    SearchSummary,
    StepView,
    StrategyParameters,
    TreeView,
    Usage,
    Verification,
)
from ratchet.states import (
    NODE_TRANSITIONS,
    SEARCH_TRANSITIONS,
    IllegalTransitionError,
    NodeState,
    SearchState,
    check_transition,
    is_end,
)
from ratchet.store import tables as t
from ratchet.store.engine import retried, transaction
from ratchet.store.ids import new_id


class LeaseLostError(Exception):
    """Another worker has claimed the search since, or it is over: nothing was written."""


class UnknownParentError(ValueError):
    """A node names a parent that is neither in the tree nor in the same batch: nothing was written."""


class IdempotencyConflictError(Exception):
    """The idempotency key was used before, with another body."""


@dataclass(frozen=True, slots=True)
class Claim:
    """The right to work on a search until the lease ends or the fence moves."""

    id: UUID
    owner: str
    fence: int
    attempt: int
    """1 for the first worker."""
    request: SearchRequest
    """Without the reference answer, whether there is one or not; see `has_reference`."""
    has_reference: bool
    cancel_requested: bool
    created_at: datetime
    started_at: datetime
    """When the first worker began: the budget's seconds count from here."""
    usage: Usage
    """What earlier attempts have used."""


@dataclass(frozen=True, slots=True)
class NodeRecord:
    """One node of the tree, as the worker keeps it. `Q` is value_sum / visits."""

    id: str
    """Unique within its search."""
    parent: str | None
    ordinal: int
    """Order of creation, unique within its search; a parent's is smaller than its children's."""
    depth: int
    state: NodeState
    task: str
    """The strategy's task that made it."""
    text: str = ""
    status: StepStatus | None = None
    stdout: str = ""
    stderr: str = ""
    prm_score: float | None = None
    prior: float = 0.0
    visits: int = 0
    value_sum: float = 0.0
    tokens: int = 0
    seconds: float = 0.0
    answer: str | None = None
    expansions: int = 0
    """The strategy has asked for its children already."""

    def view(self) -> NodeView:
        """As the API shows it."""
        return NodeView(
            id=self.id,
            parent=self.parent,
            depth=self.depth,
            state=self.state,
            text=self.text,
            status=self.status,
            stdout=self.stdout,
            stderr=self.stderr,
            prm_score=self.prm_score,
            prior=self.prior,
            visits=self.visits,
            q=self.value_sum / self.visits if self.visits else 0.0,
            tokens=self.tokens,
            seconds=self.seconds,
            answer=self.answer,
        )


@dataclass(frozen=True, slots=True)
class SearchOutcome:
    """What a search ended with."""

    answer: str | None = None
    program: str | None = None
    steps: Sequence[StepView] = ()
    verification: Verification | None = None
    usage: Usage = field(default_factory=Usage)
    models: Mapping[str, str] = field(default_factory=dict)
    reason: str | None = None
    proof: Mapping[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class Waiting:
    """A search that should have a job: its id, the fence that names the job, and its priority."""

    id: UUID
    fence: int
    priority: Priority


_STEPS: TypeAdapter[list[StepView]] = TypeAdapter(list[StepView])
_NODE_MOVES = [(old.value, new.value) for old, news in NODE_TRANSITIONS.items() for new in news]

# One round trip for any number of nodes: arrays in, rows out.
_NODE_TYPES = {
    "id": "text",
    "parent": "text",
    "ordinal": "bigint",
    "depth": "integer",
    "state": "text",
    "task": "text",
    "text": "text",
    "status": "text",
    "stdout": "text",
    "stderr": "text",
    "prm_score": "double precision",
    "prior": "double precision",
    "visits": "integer",
    "value_sum": "double precision",
    "tokens": "integer",
    "seconds": "double precision",
    "answer": "text",
    "expansions": "integer",
}
NODE_COLUMNS = tuple(_NODE_TYPES)
_NODE_COLUMNS = ", ".join(NODE_COLUMNS)
_UNNEST = ", ".join(f"CAST(:{name} AS {type_}[])" for name, type_ in _NODE_TYPES.items())
# What a node is made from stays as it was written first; only what the search learns later changes.
_LATER = ("state", "prm_score", "visits", "value_sum", "answer", "expansions")
_UPSERT_NODES = text(
    f"INSERT INTO nodes (search_id, {_NODE_COLUMNS}) "  # noqa: S608 - names from the table above
    f"SELECT CAST(:search_id AS uuid), u.* FROM unnest({_UNNEST}) AS u({_NODE_COLUMNS}) "
    "ON CONFLICT (search_id, id) DO UPDATE SET " + ", ".join(f"{name} = EXCLUDED.{name}" for name in _LATER)
)
_ILLEGAL_MOVES = text(
    "SELECT n.id, n.state AS old, u.state AS new "
    "FROM unnest(CAST(:id AS text[]), CAST(:state AS text[])) AS u(id, state) "
    "JOIN nodes n ON n.search_id = CAST(:search_id AS uuid) AND n.id = u.id "
    "LEFT JOIN unnest(CAST(:old AS text[]), CAST(:new AS text[])) AS m(old, new) "
    "ON m.old = n.state AND m.new = u.state "
    "WHERE n.state <> u.state AND m.old IS NULL LIMIT 1"
)


_MISSING = text(
    "SELECT u.id FROM unnest(CAST(:id AS text[])) AS u(id) "
    "LEFT JOIN nodes n ON n.search_id = CAST(:search_id AS uuid) AND n.id = u.id WHERE n.id IS NULL"
)


def storable(value: str) -> str:
    """The text with what Postgres cannot hold (NUL, lone surrogates) replaced by U+FFFD."""
    if "\x00" in value:
        value = value.replace("\x00", "�")
    try:
        value.encode()
    except UnicodeEncodeError:
        value = "".join("�" if "\ud800" <= letter <= "\udfff" else letter for letter in value)
    return value


def _storable_json(value: Any) -> Any:
    if isinstance(value, str):
        return storable(value)
    if isinstance(value, Mapping):
        return {storable(str(key)): _storable_json(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_storable_json(item) for item in value]
    return value


def request_sha256(request: SearchRequest) -> str:
    """Of what is asked, as canonical JSON."""
    # `wait` says how the caller wants to be answered, not what is asked.
    body = request.model_dump(mode="json", exclude={"wait"})
    return hashlib.sha256(orjson.dumps(body, option=orjson.OPT_SORT_KEYS)).hexdigest()


class SearchStore:
    """All that is read and written about searches. Every method raises StoreUnavailableError when Postgres
    is away."""

    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine

    async def create(
        self, request: SearchRequest, idempotency_key: str | None = None, *, round_id: UUID | None = None
    ) -> tuple[UUID, bool]:
        """Store a search as queued. Returns its id, and whether it is new.

        The same key with the same request returns the search it made the first time; with another request
        it raises
        IdempotencyConflictError.
        """
        # Named before the first try: a try whose answer was lost is found by the next, and not made twice.
        return await self._create(new_id(), request, idempotency_key, round_id)

    @retried
    async def _create(
        self, search_id: UUID, request: SearchRequest, idempotency_key: str | None, round_id: UUID | None
    ) -> tuple[UUID, bool]:
        digest = request_sha256(request)
        async with transaction(self._engine) as connection:
            if idempotency_key is not None:
                # Two retries at the same moment: the second waits here for the first.
                await connection.execute(
                    select(func.pg_advisory_xact_lock(func.hashtextextended(idempotency_key, 0)))
                )
                earlier = (
                    await connection.execute(
                        select(t.searches.c.id, t.searches.c.request_sha256).where(
                            t.searches.c.idempotency_key == idempotency_key
                        )
                    )
                ).one_or_none()
                if earlier is not None:
                    if earlier.request_sha256 != digest:
                        raise IdempotencyConflictError(
                            "This Idempotency-Key was used before with another request. Send a new key."
                        )
                    return earlier.id, earlier.id == search_id
            known = await connection.execute(select(t.searches.c.id).where(t.searches.c.id == search_id))
            if known.one_or_none() is not None:
                return search_id, True
            await connection.execute(
                t.searches.insert().values(
                    id=search_id,
                    problem_id=await _problem_id(connection, request.problem),
                    round_id=round_id,
                    idempotency_key=idempotency_key,
                    request_sha256=digest,
                    strategy=request.strategy,
                    parameters=request.parameters.model_dump(mode="json"),
                    budget=request.budget.model_dump(mode="json"),
                    pinned=request.models.model_dump(mode="json"),
                    seed=request.seed,
                    priority=request.priority,
                    require=request.require,
                    state=SearchState.QUEUED,
                )
            )
            if request.reference_answer is not None:
                await connection.execute(
                    t.reference_answers.insert().values(search_id=search_id, answer=request.reference_answer)
                )
        return search_id, True

    @retried
    async def claim(
        self, search_id: UUID, owner: str, lease_seconds: float, max_attempts: int
    ) -> Claim | None:
        """Take the search up: it runs, its fence moves, and writes under older claims are refused.

        None when there is nothing to do: unknown, over, another's lease alive, or `max_attempts` workers
        took it up
        before (then it ends here as failed).
        """
        async with transaction(self._engine) as connection:
            row = (
                await connection.execute(
                    select(
                        t.searches,
                        (
                            func.coalesce(t.searches.c.lease_until, t.searches.c.created_at)
                            < func.clock_timestamp()
                        ).label("free"),
                    )
                    .where(t.searches.c.id == search_id)
                    .with_for_update()
                )
            ).one_or_none()
            if row is None or is_end(SEARCH_TRANSITIONS, row.state):
                return None
            if row.state is SearchState.RUNNING and not row.free:
                return None
            if row.attempts >= max_attempts:
                await _end(
                    connection,
                    row,
                    SearchState.FAILED,
                    f"{row.attempts} workers took this search up and none brought it to an end.",
                )
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
                        started_at=func.coalesce(t.searches.c.started_at, func.clock_timestamp()),
                    )
                    .returning(t.searches.c.fence, t.searches.c.attempts, t.searches.c.started_at)
                )
            ).one()
            problem = (
                await connection.execute(select(t.problems.c.text).where(t.problems.c.id == row.problem_id))
            ).scalar_one()
            has_reference = (
                await connection.execute(
                    select(func.count())
                    .select_from(t.reference_answers)
                    .where(t.reference_answers.c.search_id == search_id)
                )
            ).scalar_one() > 0
        # Read after the commit: a row that an older version wrote and this one cannot read uses up its
        # attempts.
        request = SearchRequest(
            problem=problem,
            strategy=row.strategy,
            parameters=StrategyParameters.model_validate(row.parameters),
            budget=Budget.model_validate(row.budget),
            models=PinnedModels.model_validate(row.pinned),
            seed=row.seed,
            priority=row.priority,
        ).model_copy(update={"require": row.require})
        return Claim(
            id=search_id,
            owner=owner,
            fence=claimed.fence,
            attempt=claimed.attempts,
            request=request,
            has_reference=has_reference,
            cancel_requested=row.cancel_requested,
            created_at=row.created_at,
            started_at=claimed.started_at,
            usage=Usage.model_validate(row.usage),
        )

    @retried
    async def reference_answer(self, claim: Claim) -> str | None:
        """The right answer, for the verifier alone."""
        async with transaction(self._engine) as connection:
            return (
                await connection.execute(
                    select(t.reference_answers.c.answer).where(t.reference_answers.c.search_id == claim.id)
                )
            ).scalar_one_or_none()

    @retried
    async def renew(self, claim: Claim, lease_seconds: float) -> bool:
        """Extend the lease. Returns whether a caller asked to cancel. Raises LeaseLostError."""
        async with transaction(self._engine) as connection:
            cancel_requested = (
                await connection.execute(
                    t.searches.update()
                    .where(_held(claim))
                    .values(lease_until=from_now(lease_seconds))
                    .returning(t.searches.c.cancel_requested)
                )
            ).scalar_one_or_none()
        if cancel_requested is None:
            raise LeaseLostError(f"search {claim.id} was taken over")
        return bool(cancel_requested)

    @retried
    async def release(self, claim: Claim) -> None:
        """Give the search back unfinished (a worker that is told to stop): the next worker may begin at once.

        This attempt does not count. Does nothing when the lease was lost before.
        """
        async with transaction(self._engine) as connection:
            await connection.execute(
                t.searches.update()
                .where(_held(claim))
                .values(
                    lease_until=func.clock_timestamp(),
                    # The fence moves too: what the old worker may still have under way must not land.
                    fence=t.searches.c.fence + 1,
                    attempts=t.searches.c.attempts - 1,
                    owner=None,
                )
            )

    @retried
    async def journal(self, claim: Claim, nodes: Sequence[NodeRecord], usage: Usage) -> None:
        """Store new nodes and the later state of known ones, and the usage so far, in one transaction.

        Of a known node only state, prm_score, visits, value_sum, answer and expansions change. Parents come
        before their children,
        or in the same call. Raises LeaseLostError, IllegalTransitionError or UnknownParentError, and then
        writes nothing.
        """
        async with transaction(self._engine) as connection:
            await _fenced(connection, claim)
            await _upsert_nodes(connection, claim.id, nodes)
            await connection.execute(
                t.searches.update()
                .where(t.searches.c.id == claim.id)
                .values(usage=usage.model_dump(mode="json"))
            )

    @retried
    async def load_nodes(self, search_id: UUID) -> list[NodeRecord]:
        """The tree, parents before children; of one depth in order of creation."""
        async with transaction(self._engine) as connection:
            rows = await connection.execute(
                select(*(t.nodes.c[name] for name in _NODE_TYPES))
                .where(t.nodes.c.search_id == search_id)
                # A node may get a child from an earlier task than the one that made it, so the ordinal alone will not do.
                .order_by(t.nodes.c.depth, t.nodes.c.ordinal)
            )
            return [NodeRecord(**row) for row in rows.mappings()]

    @retried
    async def finish(self, claim: Claim, state: SearchState, outcome: SearchOutcome) -> None:
        """End the search: state, solution, verification and usage in one transaction.

        Raises LeaseLostError or IllegalTransitionError, and then writes nothing. A second call with the same
        claim and state does nothing, so that a call whose answer was lost can be repeated.
        """
        async with transaction(self._engine) as connection:
            row = (
                await connection.execute(
                    select(t.searches)
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
            if outcome.answer is not None:
                await _insert_solution(connection, claim.id, outcome, outcome.answer)
            await connection.execute(
                t.searches.update()
                .where(t.searches.c.id == claim.id)
                .values(usage=outcome.usage.model_dump(mode="json"), models=dict(outcome.models))
            )
            await _end(connection, row, state, outcome.reason)

    @retried
    async def request_cancel(self, search_id: UUID) -> SearchState | None:
        """Cancel a queued search at once; ask the worker of a running one. Returns the state after it,
        None: unknown."""
        async with transaction(self._engine) as connection:
            row = (
                await connection.execute(
                    select(t.searches).where(t.searches.c.id == search_id).with_for_update()
                )
            ).one_or_none()
            if row is None:
                return None
            if row.state is SearchState.QUEUED:
                await _end(connection, row, SearchState.CANCELLED, "Cancelled before a worker began.")
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
        async with transaction(self._engine) as connection:
            return (
                await connection.execute(select(t.searches.c.state).where(t.searches.c.id == search_id))
            ).scalar_one_or_none()

    @retried
    async def result(self, search_id: UUID) -> SearchResult | None:
        """The search as the API shows it; None: unknown."""
        async with transaction(self._engine) as connection:
            row = (
                (
                    await connection.execute(
                        select(
                            t.searches,
                            t.problems.c.text.label("problem"),
                            t.solutions.c.answer,
                            t.solutions.c.program,
                            t.solutions.c.steps,
                            t.verifications.c.level,
                            t.verifications.c.votes,
                            t.verifications.c.total_votes,
                            t.verifications.c.distinct_programs,
                            t.verifications.c.prm_share,
                            t.verifications.c.confidence,
                        )
                        .join(t.problems, t.problems.c.id == t.searches.c.problem_id)
                        .outerjoin(t.solutions, t.solutions.c.search_id == t.searches.c.id)
                        .outerjoin(t.verifications, t.verifications.c.search_id == t.searches.c.id)
                        .where(t.searches.c.id == search_id)
                    )
                )
                .mappings()
                .one_or_none()
            )
        return None if row is None else _result(row)

    @retried
    async def tree(self, search_id: UUID) -> TreeView | None:
        """The whole tree, parents before children; None: unknown."""
        if await self.state(search_id) is None:
            return None
        return TreeView(
            search=str(search_id), nodes=[node.view() for node in await self.load_nodes(search_id)]
        )

    @retried
    async def proof(self, search_id: UUID) -> dict[str, Any] | None:
        """The proof bundle; None where there is none."""
        async with transaction(self._engine) as connection:
            proof: dict[str, Any] | None = (
                await connection.execute(
                    select(t.solutions.c.proof).where(t.solutions.c.search_id == search_id)
                )
            ).scalar_one_or_none()
            return proof

    @retried
    async def list_recent(
        self, limit: int = 50, state: SearchState | None = None, cursor: UUID | None = None
    ) -> SearchPage:
        """The newest searches first; `cursor` is the `next` of the page before."""
        query = (
            select(
                t.searches.c.id,
                t.searches.c.state,
                func.left(t.problems.c.text, 200).label("problem"),
                t.searches.c.strategy,
                t.searches.c.created_at,
                t.searches.c.ended_at,
                t.solutions.c.answer,
                t.verifications.c.level,
            )
            .join(t.problems, t.problems.c.id == t.searches.c.problem_id)
            .outerjoin(t.solutions, t.solutions.c.search_id == t.searches.c.id)
            .outerjoin(t.verifications, t.verifications.c.search_id == t.searches.c.id)
            .order_by(t.searches.c.id.desc())
            .limit(limit + 1)
        )
        if state is not None:
            query = query.where(t.searches.c.state == state)
        if cursor is not None:
            query = query.where(t.searches.c.id < cursor)
        async with transaction(self._engine) as connection:
            rows = (await connection.execute(query)).mappings().all()
        shown = [SearchSummary(**{**row, "id": str(row["id"])}) for row in rows[:limit]]
        return SearchPage(searches=shown, next=shown[-1].id if len(rows) > limit else None)

    @retried
    async def lapsed(self, queued_seconds: float = 5.0, limit: int = 1000) -> list[Waiting]:
        """Searches that should have a job and may have none: running with the lease run out, or queued for
        longer
        than `queued_seconds`. The oldest first."""
        now = func.clock_timestamp()
        async with transaction(self._engine) as connection:
            rows = await connection.execute(
                select(t.searches.c.id, t.searches.c.fence, t.searches.c.priority)
                .where(
                    # Written as a literal, so that the partial index serves it.
                    text("searches.state IN ('queued', 'running')"),
                    or_(
                        and_(t.searches.c.state == SearchState.RUNNING, t.searches.c.lease_until < now),
                        and_(
                            t.searches.c.state == SearchState.QUEUED,
                            t.searches.c.created_at < from_now(-queued_seconds),
                        ),
                    ),
                )
                .order_by(t.searches.c.created_at)
                .limit(limit)
            )
            return [Waiting(row.id, row.fence, row.priority) for row in rows]


def from_now(seconds: float) -> Any:
    """An SQL expression: the database's time in so many seconds."""
    return func.clock_timestamp() + func.make_interval(0, 0, 0, 0, 0, 0, seconds)


def _held(claim: Claim) -> Any:
    return and_(
        tuple_(t.searches.c.id, t.searches.c.fence) == tuple_(claim.id, claim.fence),
        t.searches.c.state == SearchState.RUNNING,
    )


async def _fenced(connection: AsyncConnection, claim: Claim) -> None:
    # The row lock keeps another worker's claim waiting until this transaction is over.
    held = await connection.execute(select(t.searches.c.id).where(_held(claim)).with_for_update())
    if held.one_or_none() is None:
        raise LeaseLostError(f"search {claim.id} was taken over")


async def _problem_id(connection: AsyncConnection, problem: str) -> UUID:
    digest = hashlib.sha256(problem.encode()).hexdigest()
    await connection.execute(
        insert(t.problems).values(id=new_id(), sha256=digest, text=problem).on_conflict_do_nothing()
    )
    found: UUID = (
        await connection.execute(select(t.problems.c.id).where(t.problems.c.sha256 == digest))
    ).scalar_one()
    return found


async def _end(connection: AsyncConnection, row: Row[Any], state: SearchState, reason: str | None) -> None:
    check_transition(SEARCH_TRANSITIONS, row.state, state)
    kept = None if reason is None else storable(reason)
    await connection.execute(
        t.searches.update()
        .where(t.searches.c.id == row.id)
        .values(state=state, reason=kept, lease_until=None, ended_at=func.clock_timestamp())
    )


async def _upsert_nodes(connection: AsyncConnection, search_id: UUID, nodes: Sequence[NodeRecord]) -> None:
    if not nodes:
        return
    latest = {node.id: node for node in nodes}  # One statement may touch a row once only.
    rows = [
        replace(
            node,
            text=storable(node.text),
            stdout=storable(node.stdout),
            stderr=storable(node.stderr),
            answer=None if node.answer is None else storable(node.answer),
        )
        for node in latest.values()
    ]
    arrays: dict[str, Any] = {name: [getattr(row, name) for row in rows] for name in _NODE_TYPES}
    illegal = (
        await connection.execute(
            _ILLEGAL_MOVES,
            {
                "search_id": search_id,
                "id": arrays["id"],
                "state": arrays["state"],
                "old": [old for old, _ in _NODE_MOVES],
                "new": [new for _, new in _NODE_MOVES],
            },
        )
    ).one_or_none()
    if illegal is not None:
        raise IllegalTransitionError(
            f"NodeState: {illegal.old} -> {illegal.new} is not allowed (node {illegal.id})"
        )
    elsewhere = {row.parent for row in rows if row.parent is not None and row.parent not in latest}
    if elsewhere:
        parents = {"search_id": search_id, "id": sorted(elsewhere)}
        missing = (await connection.execute(_MISSING, parents)).scalars().all()
        if missing:
            raise UnknownParentError(f"parents that are not in the tree: {sorted(missing)}")
    await connection.execute(_UPSERT_NODES, {"search_id": search_id, **arrays})


async def _insert_solution(
    connection: AsyncConnection, search_id: UUID, outcome: SearchOutcome, answer: str
) -> None:
    await connection.execute(
        t.solutions.insert().values(
            search_id=search_id,
            answer=storable(answer),
            program=None if outcome.program is None else storable(outcome.program),
            steps=_storable_json([step.model_dump(mode="json") for step in outcome.steps]),
            proof=None if outcome.proof is None else _storable_json(outcome.proof),
        )
    )
    if outcome.verification is not None:
        await connection.execute(
            t.verifications.insert().values(search_id=search_id, **outcome.verification.model_dump())
        )


def _result(row: RowMapping) -> SearchResult:
    verification = None
    if row["level"] is not None:
        verification = Verification(**{name: row[name] for name in Verification.model_fields})
    return SearchResult(
        id=str(row["id"]),
        state=row["state"],
        problem=row["problem"],
        strategy=row["strategy"],
        seed=row["seed"],
        answer=row["answer"],
        program=row["program"],
        steps=_STEPS.validate_python(row["steps"] or []),
        verification=verification,
        usage=Usage.model_validate(row["usage"]),
        models=row["models"],
        reason=row["reason"],
        created_at=row["created_at"],
        started_at=row["started_at"],
        ended_at=row["ended_at"],
    )
