"""Rounds in Postgres: who works on one (lease and fence), its state, and its problems.

A trainer claims a round and gets a `RoundClaim` with a fencing token; every write under an older token is refused with
`RoundLostError` and writes nothing. A stage may run twice (a trainer died in it), so all writes here can be repeated.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any
from uuid import UUID

from sqlalchemy import RowMapping, and_, func, or_, select, tuple_
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from ratchet.contracts.round_metrics import RoundMetrics
from ratchet.contracts.rounds import (
    READ_IN,
    Disagreement,
    Quarantined,
    RoundConfig,
    RoundProgress,
    RoundRequest,
    RoundView,
)
from ratchet.problems import Problem
from ratchet.states import (
    ROUND_ENDS,
    ROUND_STAGES,
    ROUND_TRANSITIONS,
    RoundState,
    SearchState,
    check_transition,
)
from ratchet.store import tables as t
from ratchet.store.engine import from_now, reading, retried, transaction
from ratchet.store.ids import new_id
from ratchet.store.quarantine import overrule, read_quarantine, set_aside
from ratchet.store.round_rows import (
    FROM_THE_START,
    got_further,
    readable_views,
    take_oldest,
    view_of,
)
from ratchet.store.search_requests import ensure_problems


class RoundLostError(Exception):
    """Another trainer has claimed the round since, or it is over: nothing was written."""


class RoundConflictError(Exception):
    """What was asked for does not fit the round's state, or the run's last round is not over."""


class ConfigInUseError(Exception):
    """Parts of a configuration that finished stages have worked with cannot be changed any more."""

    def __init__(self, parts: Sequence[str], stage: RoundState) -> None:
        super().__init__(
            f"A retry goes on with {stage} and cannot change what was used before that: {', '.join(parts)}. Begin a new run "
            "for it."
        )
        self.parts = tuple(parts)


@dataclass(frozen=True, slots=True)
class RoundClaim:
    """The right to work on a round until the lease ends or the fence moves."""

    id: UUID
    run: str
    number: int
    state: RoundState
    config: RoundConfig
    metrics: RoundMetrics
    owner: str
    fence: int


@dataclass(frozen=True, slots=True)
class RoundProblem:
    """A problem of a round, with its reference answer."""

    place: int
    text: str
    answer: str
    family: str
    difficulty: int | None
    source: str


class RoundStore:
    """All that is read and written about rounds. Every method raises StoreUnavailableError when Postgres is away."""

    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine

    async def create(self, request: RoundRequest) -> RoundView:
        """The next round of the run. Raises RoundConflictError while the last one is not over."""
        return await self._create(new_id(), request)

    @retried
    async def _create(self, round_id: UUID, request: RoundRequest) -> RoundView:
        async with transaction(self._engine) as connection:
            await _lock_run(connection, request.run)
            last = (
                await connection.execute(
                    select(t.rounds.c.id, t.rounds.c.number, t.rounds.c.state)
                    .where(t.rounds.c.run == request.run)
                    .order_by(t.rounds.c.number.desc())
                    .limit(1)
                )
            ).one_or_none()
            if last is None or last.id != round_id:
                if last is not None and last.state not in ROUND_ENDS:
                    raise RoundConflictError(
                        f"Round {last.number} of the run {request.run!r} is {last.state}. The next one begins when it is over."
                    )
                await connection.execute(
                    t.rounds.insert().values(
                        id=round_id,
                        run=request.run,
                        number=1 if last is None else last.number + 1,
                        state=RoundState.CREATED,
                        config=request.config.model_dump(mode="json"),
                    )
                )
            made = await connection.execute(select(t.rounds).where(t.rounds.c.id == round_id))
            return view_of(made.mappings().one())

    @retried
    async def get(self, round_id: UUID) -> RoundView | None:
        """One round; None: unknown. Raises UnreadableRoundError."""
        async with reading(self._engine) as connection:
            found = await connection.execute(select(t.rounds).where(t.rounds.c.id == round_id))
            row = found.mappings().one_or_none()
        return None if row is None else view_of(row)

    @retried
    async def rounds(self, run: str | None = None, limit: int = 100) -> list[RoundView]:
        """Rounds, the newest first, without those that this version cannot read."""
        query = select(t.rounds).order_by(t.rounds.c.created_at.desc()).limit(limit)
        if run is not None:
            query = query.where(t.rounds.c.run == run)
        async with reading(self._engine) as connection:
            rows = (await connection.execute(query)).mappings().all()
        return readable_views(rows)

    @retried
    async def claim(self, owner: str, lease_seconds: float, max_attempts: int) -> RoundClaim | None:
        """Take up the oldest round that is not over, not paused, and nobody's; None when there is none.

        Older ones that cannot be read, or that `max_attempts` trainers took up without getting further, end as failed.
        """
        async with transaction(self._engine) as connection:
            taken = await take_oldest(connection, owner, lease_seconds, max_attempts)
        if taken is None:
            return None
        row, config, metrics = taken
        return RoundClaim(
            id=row["id"],
            run=row["run"],
            number=row["number"],
            state=row["state"],
            config=config,
            metrics=metrics,
            owner=owner,
            fence=row["fence"],
        )

    @retried
    async def renew(self, claim: RoundClaim, lease_seconds: float) -> tuple[bool, bool]:
        """Extend the lease; whether a pause and whether a cancel was asked for. Raises RoundLostError."""
        async with transaction(self._engine) as connection:
            row = (
                await connection.execute(
                    t.rounds.update()
                    .where(_is_held_by(claim))
                    .values(lease_until=from_now(lease_seconds))
                    .returning(t.rounds.c.paused, t.rounds.c.cancel_requested)
                )
            ).one_or_none()
        if row is None:
            raise RoundLostError(f"round {claim.id} was taken over")
        return row.paused, row.cancel_requested

    @retried
    async def release(self, claim: RoundClaim) -> None:
        """Give the round back: the next trainer goes on with the stage that it is in. This attempt does not count."""
        async with transaction(self._engine) as connection:
            await connection.execute(
                t.rounds.update()
                .where(_is_held_by(claim))
                .values(
                    lease_until=None,
                    owner=None,
                    fence=t.rounds.c.fence + 1,
                    attempts=func.greatest(t.rounds.c.attempts - 1, 0),
                )
            )

    @retried
    async def advance(
        self, claim: RoundClaim, state: RoundState, found: RoundMetrics, reason: str | None = None
    ) -> RoundClaim:
        """Move on to the state that follows, with what the stage has handed on.

        Raises RoundLostError, IllegalTransitionError.
        """
        check_transition(ROUND_TRANSITIONS, claim.state, state)
        ended = (
            {"ended_at": func.clock_timestamp(), "lease_until": None, "owner": None}
            if state in ROUND_ENDS
            else {}
        )
        async with transaction(self._engine) as connection:
            moved = await connection.execute(
                t.rounds.update()
                .where(_is_held_by(claim))
                .values(
                    state=state,
                    # What another version has written beside it stays.
                    metrics=t.rounds.c.metrics.concat(found.model_dump(mode="json", exclude_unset=True)),
                    reason=reason,
                    failed_in=claim.state if state is RoundState.FAILED else None,
                    progress={},
                    **FROM_THE_START,
                    **ended,
                )
                .returning(t.rounds.c.id)
            )
            if moved.one_or_none() is None:
                raise RoundLostError(f"round {claim.id} was taken over")
        return replace(claim, state=state, metrics=claim.metrics.with_parts_of(found))

    @retried
    async def note_progress(self, claim: RoundClaim, progress: RoundProgress) -> None:
        """Where the stage stands, for those who watch."""
        async with transaction(self._engine) as connection:
            await connection.execute(
                t.rounds.update()
                .where(_is_held_by(claim))
                .values(progress=progress.model_dump(mode="json"), **got_further(progress))
            )

    @retried
    async def ask(
        self, round_id: UUID, *, paused: bool | None = None, cancel: bool = False
    ) -> RoundView | None:
        """Ask for a pause, its end, or a cancel; None: unknown. Raises RoundConflictError for a round that is over."""
        async with transaction(self._engine) as connection:
            row = await _lock(connection, round_id)
            if row is None:
                return None
            if row["state"] in ROUND_ENDS:
                raise RoundConflictError(f"The round is over: {row['state']}.")
            values: dict[str, Any] = {}
            if paused is not None:
                values["paused"] = paused
            if cancel:
                # A paused round is nobody's; it has to be taken up to be ended.
                values.update(cancel_requested=True, paused=False)
            changed = await connection.execute(
                t.rounds.update().where(t.rounds.c.id == round_id).values(**values).returning(*t.rounds.c)
            )
            return view_of(changed.mappings().one())

    @retried
    async def retry(self, round_id: UUID, config: RoundConfig | None = None) -> RoundView | None:
        """Have a failed round taken up again, in the stage that failed; None: unknown.

        What it has gathered is kept, except for searches that failed or were cancelled: they are planned anew. `config`
        may differ in what no finished stage has read. Raises RoundConflictError, ConfigInUseError.
        """
        async with transaction(self._engine) as connection:
            row = await _lock(connection, round_id)
            if row is None:
                return None
            if row["state"] is not RoundState.FAILED:
                raise RoundConflictError(f"Only a failed round can be retried; this one is {row['state']}.")
            await _require_last(connection, row["run"], row["number"])
            stage = row["failed_in"] or RoundState.CREATED
            check_transition(ROUND_TRANSITIONS, row["state"], stage)
            if config is not None:
                _require_unread(view_of(row).config, config, stage)
            if stage is RoundState.CREATED:
                await connection.execute(
                    t.round_problems.delete().where(t.round_problems.c.round_id == round_id)
                )
            await _drop_unfinished_searches(connection, round_id)
            values = {} if config is None else {"config": config.model_dump(mode="json")}
            changed = await connection.execute(
                t.rounds.update()
                .where(t.rounds.c.id == round_id)
                .values(
                    state=stage,
                    failed_in=None,
                    reason=None,
                    ended_at=None,
                    paused=False,
                    cancel_requested=False,
                    progress={},
                    **FROM_THE_START,
                    **values,
                )
                .returning(*t.rounds.c)
            )
            return view_of(changed.mappings().one())

    @retried
    async def add_problems(self, claim: RoundClaim, split: str, problems: Sequence[Problem]) -> None:
        """The round's problems of a split, in their order. Adding them again changes nothing."""
        async with transaction(self._engine) as connection:
            await require_lease(connection, claim)
            ids = await ensure_problems(connection, {problem.text for problem in problems})
            if problems:
                await connection.execute(
                    insert(t.round_problems).on_conflict_do_nothing(),
                    [
                        {
                            "round_id": claim.id,
                            "split": split,
                            "place": place,
                            "problem_id": ids[problem.text],
                            "answer": problem.answer,
                            "family": problem.family,
                            "difficulty": problem.difficulty,
                            "source": problem.source,
                        }
                        for place, problem in enumerate(problems)
                    ],
                )

    @retried
    async def problems(self, round_id: UUID, split: str) -> list[RoundProblem]:
        """The round's problems of a split, in their order."""
        async with reading(self._engine) as connection:
            rows = await connection.execute(
                select(t.round_problems, t.problems.c.text)
                .join(t.problems, t.problems.c.id == t.round_problems.c.problem_id)
                .where(t.round_problems.c.round_id == round_id, t.round_problems.c.split == split)
                .order_by(t.round_problems.c.place)
            )
            return [
                RoundProblem(
                    row.place,
                    row.text,
                    row.answer,
                    row.family,
                    row.difficulty,
                    row.source,
                )
                for row in rows
            ]

    @retried
    async def quarantine(self, claim: RoundClaim, found: Mapping[int, Disagreement]) -> None:
        """Set training problems aside, by place, for all of the run from now on. Raises RoundLostError."""
        async with transaction(self._engine) as connection:
            await require_lease(connection, claim)
            await set_aside(connection, claim.id, claim.run, found)

    @retried
    async def quarantined(self, *, run: str | None = None, round_id: UUID | None = None) -> list[Quarantined]:
        """Problems that the rounds of a run, or one round, have set aside; those that were overruled among them."""
        async with reading(self._engine) as connection:
            return await read_quarantine(connection, run=run, round_id=round_id)

    @retried
    async def overrule(self, run: str, problem: str, because: str | None = None) -> Quarantined | None:
        """Have a run train on a problem again that it has set aside, by the problem's id; None: it has not."""
        async with transaction(self._engine) as connection:
            return await overrule(connection, run, problem, because)


async def _lock_run(connection: AsyncConnection, run: str) -> None:
    """One at a time may say what the run's last round is."""
    await connection.execute(select(func.pg_advisory_xact_lock(func.hashtextextended(f"round/{run}", 0))))


async def _lock(connection: AsyncConnection, round_id: UUID) -> RowMapping | None:
    """The round's row, locked until the transaction is over; None: unknown."""
    found = await connection.execute(select(t.rounds).where(t.rounds.c.id == round_id).with_for_update())
    return found.mappings().one_or_none()


async def _require_last(connection: AsyncConnection, run: str, number: int) -> None:
    """Raise RoundConflictError unless this is the run's last round."""
    await _lock_run(connection, run)
    last = await connection.scalar(select(func.max(t.rounds.c.number)).where(t.rounds.c.run == run))
    if last != number:
        raise RoundConflictError(f"The run has gone on without this round, to round {last}.")


async def _drop_unfinished_searches(connection: AsyncConnection, round_id: UUID) -> None:
    """Searches that failed or were cancelled are no longer the round's, so a retry plans them anew."""
    unfinished = select(t.searches.c.id).where(
        t.searches.c.round_id == round_id,
        or_(
            t.searches.c.state.in_((SearchState.FAILED, SearchState.CANCELLED)),
            t.searches.c.cancel_requested,
        ),
    )
    await connection.execute(
        t.round_searches.delete().where(
            t.round_searches.c.round_id == round_id, t.round_searches.c.search_id.in_(unfinished)
        )
    )


def _require_unread(old: RoundConfig, new: RoundConfig, stage: RoundState) -> None:
    """Raise ConfigInUseError when the two differ in what a stage before this one has read."""
    finished = ROUND_STAGES[: ROUND_STAGES.index(stage)]
    used = [
        part
        for part, reader in READ_IN.items()
        if reader in finished and getattr(old, part) != getattr(new, part)
    ]
    if used:
        raise ConfigInUseError(used, stage)


def _is_held_by(claim: RoundClaim) -> Any:
    """An SQL condition: the round is not over, and under this claim's fence."""
    return and_(
        tuple_(t.rounds.c.id, t.rounds.c.fence) == tuple_(claim.id, claim.fence),
        t.rounds.c.state.not_in(ROUND_ENDS),
    )


async def require_lease(connection: AsyncConnection, claim: RoundClaim) -> None:
    """Raise RoundLostError unless the claim holds the round; hold it until the transaction is over."""
    # The row lock keeps another trainer's claim waiting until this transaction is over.
    held = await connection.execute(select(t.rounds.c.id).where(_is_held_by(claim)).with_for_update())
    if held.one_or_none() is None:
        raise RoundLostError(f"round {claim.id} was taken over")
