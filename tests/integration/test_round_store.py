"""Rounds against a real Postgres: one trainer at a time, writes that can be repeated, one round of a run after another."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import replace
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import func, select
from sqlalchemy.ext.asyncio import AsyncEngine

from ratchet.contracts.round_metrics import Decision, Measured, RoundMetrics, Verdict
from ratchet.contracts.rounds import (
    READ_IN,
    Disagreement,
    Evaluation,
    RoundConfig,
    RoundProgress,
    RoundRequest,
)
from ratchet.states import ROUND_TRANSITIONS, IllegalTransitionError, RoundState
from ratchet.store import tables as t
from ratchet.store.engine import transaction
from ratchet.store.ids import new_id
from ratchet.store.registry import Registry
from ratchet.store.round_searches import RoundSearchStore
from ratchet.store.rounds import (
    ConfigInUseError,
    RoundClaim,
    RoundConflictError,
    RoundLostError,
    RoundStore,
)
from tests import old_round
from tests.integration.round_claims import (
    ATTEMPTS,
    LEASE,
    a_run,
    begin,
    claim_round,
    problems,
    read,
    requests,
)

STAGES = list(RoundState)[:6]


@pytest.fixture
async def store(engine: AsyncEngine) -> AsyncIterator[RoundStore]:
    """With no round in it that a trainer could take up."""
    yield RoundStore(engine)
    async with transaction(engine) as connection:
        await connection.execute(t.rounds.update().values(state=RoundState.FAILED))


DISAGREEMENT = Disagreement(answer="41", programs=3, prm_score=0.9)
REJECTED = Verdict(promoted=False, lost=["development.greedy"], comparisons={})


def took(claim: RoundClaim) -> RoundMetrics:
    """What every stage hands on: its seconds, beside those of the stages before it."""
    return RoundMetrics(seconds=claim.metrics.seconds | {claim.state: 1.0})


# --- claim, lease, fence ---------------------------------------------------------------------------------------------


async def test_the_oldest_round_is_claimed_by_one_trainer_only(store: RoundStore) -> None:
    first, second = await begin(store), await begin(store)
    claims = await asyncio.gather(*(store.claim(f"t{number}", LEASE, ATTEMPTS) for number in range(6)))
    assert sorted(str(claim.id) for claim in claims if claim is not None) == sorted([first.id, second.id])
    assert await store.claim("late", LEASE, ATTEMPTS) is None
    one = next(claim for claim in claims if claim is not None)
    assert (one.state, one.number, one.metrics) == (RoundState.CREATED, 1, RoundMetrics())
    assert one.config == RoundRequest().config


async def test_a_round_whose_lease_ran_out_is_taken_over_and_a_renewed_one_is_not(store: RoundStore) -> None:
    await begin(store)
    short = await claim_round(store, lease=0.3)
    assert await store.renew(short, LEASE) == (False, False)
    await asyncio.sleep(0.4)
    assert await store.claim("t2", LEASE, ATTEMPTS) is None
    await store.renew(short, 0.05)
    await asyncio.sleep(0.1)
    taken = await claim_round(store, "t2")
    assert (taken.id, taken.fence) == (short.id, short.fence + 1)


WRITES: dict[str, Callable[[AsyncEngine, RoundClaim], Awaitable[Any]]] = {
    "renew": lambda engine, claim: RoundStore(engine).renew(claim, LEASE),
    "advance": lambda engine, claim: RoundStore(engine).advance(claim, RoundState.SEARCHING, took(claim)),
    "fail": lambda engine, claim: RoundStore(engine).advance(
        claim, RoundState.FAILED, RoundMetrics(), "no reason"
    ),
    "add_problems": lambda engine, claim: RoundStore(engine).add_problems(claim, "train", problems("Late?")),
    "quarantine": lambda engine, claim: RoundStore(engine).quarantine(claim, {0: DISAGREEMENT}),
    "plan": lambda engine, claim: RoundSearchStore(engine).plan(claim, "label", 0, requests(["Late?"])),
    "add_dataset": lambda engine, claim: Registry(engine).add_dataset(
        claim, new_id(), "d", "/d", "0" * 64, 1
    ),
    "add_evaluation": lambda engine, claim: Registry(engine).add_evaluation(claim, "m", "development", {}),
}


@pytest.mark.parametrize("over", [False, True], ids=["taken over", "over"])
@pytest.mark.parametrize("write", WRITES)
async def test_who_has_lost_a_round_can_write_nothing(
    store: RoundStore, engine: AsyncEngine, write: str, over: bool
) -> None:
    await begin(store)
    lost = await claim_round(store, lease=0.0)
    current = await claim_round(store, "t2")
    if over:
        await store.advance(current, RoundState.FAILED, RoundMetrics(), "done with")
        lost = current
    before, rows = await read(store, lost), await count_rows(engine, lost.id)
    with pytest.raises(RoundLostError):
        await WRITES[write](engine, lost)
    assert await read(store, lost) == before
    assert await count_rows(engine, lost.id) == rows


async def count_rows(engine: AsyncEngine, round_id: UUID) -> list[int]:
    """Rows that belong to the round, by table."""
    tables = (t.round_problems, t.quarantine, t.round_searches, t.searches, t.datasets, t.evaluations)
    async with transaction(engine) as connection:
        return [
            (await connection.execute(select(func.count()).where(table.c.round_id == round_id))).scalar_one()
            for table in tables
        ]


async def test_progress_of_one_who_has_lost_the_round_is_not_shown(store: RoundStore) -> None:
    await begin(store)
    lost = await claim_round(store, lease=0.0)
    current = await claim_round(store, "t2")
    await store.note_progress(current, RoundProgress(stage="searching", done=3, total=9))
    await store.note_progress(lost, RoundProgress(stage="searching", done=1, total=9))
    assert (await read(store, current)).progress.done == 3


async def test_a_round_that_is_given_back_is_free_at_once_and_its_claim_is_void(store: RoundStore) -> None:
    await begin(store)
    claim = await claim_round(store)
    await store.release(claim)
    with pytest.raises(RoundLostError):
        await store.renew(claim, LEASE)
    assert (await claim_round(store, "t2")).id == claim.id


# --- states ----------------------------------------------------------------------------------------------------------


async def test_a_round_goes_through_its_stages_and_keeps_what_each_measured(store: RoundStore) -> None:
    await begin(store)
    claim = await claim_round(store)
    for stage in STAGES[1:]:
        await store.note_progress(claim, RoundProgress(stage="x", done=1))
        claim = await store.advance(claim, stage, took(claim))
        view = await read(store, claim)
        assert (view.state, view.progress, view.ended_at) == (stage, RoundProgress(), None)
    claim = await store.advance(claim, RoundState.REJECTED, RoundMetrics(gate=REJECTED), "worse")
    view = await read(store, claim)
    assert view.metrics == RoundMetrics(gate=REJECTED, seconds=dict.fromkeys(STAGES[:-1], 1.0))
    assert claim.metrics == view.metrics
    assert (view.state, view.reason) == (RoundState.REJECTED, "worse")
    assert view.ended_at is not None
    assert await store.claim("t2", LEASE, ATTEMPTS) is None


async def test_a_round_of_another_version_is_read_and_what_only_that_one_knows_stays(
    store: RoundStore, engine: AsyncEngine
) -> None:
    round_id = new_id()
    async with transaction(engine) as connection:
        await connection.execute(
            t.rounds.insert().values(
                id=round_id,
                run=a_run(),
                number=1,
                state=RoundState.CREATED,
                config=old_round.CONFIG,
                metrics=old_round.METRICS,
            )
        )
    view = await store.get(round_id)
    assert view is not None
    assert (view.config.seed, view.config.evaluation) == (7, Evaluation())
    metrics = view.metrics
    assert metrics.prm is not None
    assert metrics.prm.calibration.b == -0.5488
    assert metrics.gate is not None
    assert (metrics.gate.promoted, metrics.gate.candidate) == (True, "")
    assert metrics.gate.comparisons["development.greedy"].decision is Decision.NOT_WORSE
    assert metrics.evaluation is not None
    assert metrics.evaluation.candidate.measured["held_out.greedy"].answered is None

    # A trainer would not work with settings that it does not know.
    assert await store.claim("t1", LEASE, ATTEMPTS) is None
    known = {name: part for name, part in old_round.CONFIG.items() if name != "later"}
    async with transaction(engine) as connection:
        again = {"config": known, "state": RoundState.CREATED}
        await connection.execute(t.rounds.update().where(t.rounds.c.id == round_id).values(**again))
    claim = await claim_round(store)
    assert claim.metrics == metrics
    claim = await store.advance(claim, RoundState.SEARCHING, took(claim))
    async with transaction(engine) as connection:
        kept = await connection.scalar(select(t.rounds.c.metrics).where(t.rounds.c.id == round_id))
    assert kept == old_round.METRICS | {"seconds": {"created": 1.0, "searching": 3.6, "evaluating": 12.6}}


@pytest.mark.parametrize("state", RoundState)
async def test_states_move_only_along_the_table(store: RoundStore, state: RoundState) -> None:
    await begin(store)
    claim = await claim_round(store)
    for target in RoundState:
        if target in ROUND_TRANSITIONS[state]:
            continue
        with pytest.raises(IllegalTransitionError):
            await store.advance(replace(claim, state=state), target, RoundMetrics())
    assert (await read(store, claim)).state is RoundState.CREATED


# --- pause, cancel, the next round -----------------------------------------------------------------------------------


async def test_a_paused_round_is_nobodys_until_it_is_resumed(store: RoundStore) -> None:
    view = await begin(store)
    claim = await claim_round(store)
    asked = await store.ask(UUID(view.id), paused=True)
    assert asked is not None
    assert asked.paused
    assert await store.renew(claim, LEASE) == (True, False)
    await store.release(claim)
    assert await store.claim("t2", LEASE, ATTEMPTS) is None
    await store.ask(UUID(view.id), paused=False)
    assert (await claim_round(store, "t2")).id == claim.id


async def test_a_paused_round_can_be_cancelled(store: RoundStore) -> None:
    view = await begin(store)
    await store.ask(UUID(view.id), paused=True)
    assert await store.claim("t1", LEASE, ATTEMPTS) is None
    asked = await store.ask(UUID(view.id), cancel=True)
    assert asked is not None
    assert (asked.cancel_requested, asked.paused) == (True, False)
    assert await store.renew(await claim_round(store), LEASE) == (False, True), "somebody has to end it"


async def test_a_round_that_is_over_can_be_asked_for_nothing_and_an_unknown_one_is_none(
    store: RoundStore,
) -> None:
    view = await begin(store)
    await store.advance(await claim_round(store), RoundState.FAILED, RoundMetrics(), "x")
    for ask in ({"paused": True}, {"paused": False}, {"cancel": True}):
        with pytest.raises(RoundConflictError, match="The round is over: failed"):
            await store.ask(UUID(view.id), **ask)
        assert await store.ask(new_id(), **ask) is None


async def test_the_next_round_of_a_run_begins_when_the_last_one_is_over(store: RoundStore) -> None:
    run = a_run()
    assert (await begin(store, run)).number == 1
    with pytest.raises(RoundConflictError, match=f"Round 1 of the run '{run}' is created"):
        await begin(store, run)
    claim = await claim_round(store)
    claim = await store.advance(claim, RoundState.SEARCHING, RoundMetrics())
    with pytest.raises(RoundConflictError, match="is searching"):
        await begin(store, run)
    await store.advance(claim, RoundState.FAILED, RoundMetrics(), "x")
    assert (await begin(store, run)).number == 2
    assert (await begin(store)).number == 1, "another run"
    assert [view.number for view in await store.rounds(run)] == [2, 1]


async def test_of_many_who_begin_a_round_at_once_one_succeeds(store: RoundStore) -> None:
    run = a_run()
    found = await asyncio.gather(*(begin(store, run) for _ in range(8)), return_exceptions=True)
    assert [type(each) for each in found].count(RoundConflictError) == 7
    assert [view.number for view in await store.rounds(run)] == [1]


# --- retries ---------------------------------------------------------------------------------------------------------


async def failed_in(store: RoundStore, stage: RoundState, run: str | None = None) -> RoundClaim:
    """A round whose stages up to this one are finished, which failed."""
    await begin(store, run)
    claim = await claim_round(store)
    for following in STAGES[1 : STAGES.index(stage) + 1]:
        claim = await store.advance(claim, following, took(claim))
    await store.advance(claim, RoundState.FAILED, RoundMetrics(), "x")
    return claim


@pytest.mark.parametrize("stage", STAGES)
async def test_a_failed_round_goes_on_with_the_stage_that_failed(
    store: RoundStore, stage: RoundState
) -> None:
    claim = await failed_in(store, stage)
    before = await read(store, claim)
    assert (before.state, before.failed_in) == (RoundState.FAILED, stage)
    again = await store.retry(claim.id)
    assert again is not None
    assert (again.state, again.failed_in, again.reason, again.ended_at) == (stage, None, None, None)
    assert (again.metrics, again.config) == (before.metrics, before.config)
    assert (await claim_round(store, "t2")).state is stage
    with pytest.raises(RoundLostError):
        await store.advance(claim, RoundState.FAILED, RoundMetrics(), "by the one that held it before")


async def test_a_cancelled_round_is_not_cancelled_again_when_it_is_retried(store: RoundStore) -> None:
    view = await begin(store)
    await store.ask(UUID(view.id), cancel=True)
    await store.advance(await claim_round(store), RoundState.FAILED, RoundMetrics(), "cancelled on request")
    await store.retry(UUID(view.id))
    assert await store.renew(await claim_round(store), LEASE) == (False, False)


async def test_only_the_last_round_of_a_run_is_retried_and_only_when_it_failed(store: RoundStore) -> None:
    run = a_run()
    first = await failed_in(store, RoundState.SEARCHING, run)
    second = await begin(store, run)
    with pytest.raises(RoundConflictError, match="gone on without this round, to round 2"):
        await store.retry(first.id)
    with pytest.raises(RoundConflictError, match="Only a failed round can be retried; this one is created"):
        await store.retry(UUID(second.id))
    assert await store.retry(new_id()) is None


async def test_a_retry_changes_what_no_finished_stage_has_used_and_nothing_else(store: RoundStore) -> None:
    claim = await failed_in(store, RoundState.TRAINING_PRM)
    assert claim.config.prm is not None
    config = claim.config.model_copy(
        update={
            "prm": claim.config.prm.model_copy(update={"micro_tokens": 512}),
            "gate": claim.config.gate.model_copy(update={"margin": 0.5}),
        }
    )
    used = config.model_copy(update={"seed": 7, "from_current": True})
    with pytest.raises(ConfigInUseError, match="goes on with training_prm") as refused:
        await store.retry(claim.id, used)
    assert refused.value.parts == ("seed", "from_current")
    assert (await read(store, claim)).state is RoundState.FAILED
    again = await store.retry(claim.id, config)
    assert again is not None
    assert again.config == config
    assert (await claim_round(store)).config == config


async def test_what_a_stage_works_with_is_known_of_every_part_of_a_configuration() -> None:
    assert set(READ_IN) == set(RoundConfig.model_fields)


async def test_problems_of_a_round_that_failed_at_its_beginning_are_chosen_anew(store: RoundStore) -> None:
    await begin(store)
    claim = await claim_round(store)
    await store.add_problems(claim, "train", problems("Old?"))
    await store.advance(claim, RoundState.FAILED, RoundMetrics(), "x")
    await store.retry(claim.id)
    claim = await claim_round(store)
    await store.add_problems(claim, "train", problems("New?"))
    assert [each.text for each in await store.problems(claim.id, "train")] == ["New?"]


# --- problems and evaluations -------------------------------------------------------------------------------------------


async def test_problems_are_kept_in_their_order_and_adding_them_again_changes_nothing(
    store: RoundStore,
) -> None:
    await begin(store)
    claim = await claim_round(store)
    given = problems("B?", "A?", "C?")
    for _ in range(2):
        await store.add_problems(claim, "train", given)
    await store.add_problems(claim, "held_out", [])
    found = await store.problems(claim.id, "train")
    assert [(each.place, each.text, each.answer, each.family, each.difficulty) for each in found] == [
        (0, "B?", "42", "packs", 1), (1, "A?", "42", "packs", 2), (2, "C?", "42", "packs", 3)
    ]  # fmt: skip
    assert await store.problems(claim.id, "held_out") == []


async def test_an_evaluation_that_is_made_again_takes_the_place_of_the_first(
    store: RoundStore, engine: AsyncEngine
) -> None:
    await begin(store)
    claim = await claim_round(store)
    version = f"m@{new_id().hex}"
    async with transaction(engine) as connection:
        await connection.execute(
            t.models.insert().values(
                version=version, kind="policy", state="candidate", uri="/m", sha256="0" * 64
            )
        )
    for right in (0, 1):
        figures = Measured(n=1, right=right, accuracy=right, ci95=(0.0, 1.0), tokens=9.0, outcomes=str(right))
        await Registry(engine).add_evaluation(claim, version, "development", {"development.greedy": figures})
    async with transaction(engine) as connection:
        rows = await connection.execute(
            select(t.evaluations.c.metrics).where(t.evaluations.c.model == version)
        )
        assert [each["development.greedy"]["right"] for each in rows.scalars()] == [1]
