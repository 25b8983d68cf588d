"""A round that kills its trainers, or that cannot be read, ends with a reason, and the other rounds get their turn."""

from collections.abc import AsyncIterator
from uuid import UUID

import pytest
from sqlalchemy import func
from sqlalchemy.ext.asyncio import AsyncEngine

from ratchet.contracts.round_metrics import RoundMetrics
from ratchet.contracts.rounds import RoundConfig, RoundProgress
from ratchet.states import RoundState
from ratchet.store import tables as t
from ratchet.store.engine import transaction
from ratchet.store.round_rows import PROGRESS_SHARE, UnreadableRoundError
from ratchet.store.rounds import RoundClaim, RoundStore
from tests.integration.round_claims import ATTEMPTS, LEASE, begin, claim_round, read

TOTAL = 10 * PROGRESS_SHARE
STEP = TOTAL // PROGRESS_SHARE


@pytest.fixture
async def store(engine: AsyncEngine) -> AsyncIterator[RoundStore]:
    """With no round in it that a trainer could take up."""
    yield RoundStore(engine)
    async with transaction(engine) as connection:
        await connection.execute(t.rounds.update().values(state=RoundState.FAILED))


async def die(engine: AsyncEngine, claim: RoundClaim) -> None:
    """What a killed trainer leaves behind, once its lease has run out."""
    async with transaction(engine) as connection:
        await connection.execute(
            t.rounds.update().where(t.rounds.c.id == claim.id).values(lease_until=func.clock_timestamp())
        )


async def spoil(engine: AsyncEngine, round_id: str, **values: object) -> None:
    async with transaction(engine) as connection:
        await connection.execute(t.rounds.update().where(t.rounds.c.id == UUID(round_id)).values(**values))


async def work(store: RoundStore, claim: RoundClaim, done: int) -> None:
    await store.note_progress(claim, RoundProgress(stage="training", done=done, total=TOTAL))


async def test_a_round_that_kills_every_trainer_fails_and_the_next_one_is_taken_up(
    store: RoundStore, engine: AsyncEngine
) -> None:
    deadly, other = await begin(store), await begin(store)
    for number in range(ATTEMPTS):
        claim = await claim_round(store)
        assert str(claim.id) == deadly.id
        # Each one dies at about the same place: that is no progress after the first.
        await work(store, claim, 3 * STEP + number % 2)
        await die(engine, claim)
    # The first attempt got somewhere, so it does not count.
    last = await claim_round(store)
    assert str(last.id) == deadly.id
    await die(engine, last)
    assert str((await claim_round(store)).id) == other.id
    failed = await store.get(UUID(deadly.id))
    assert failed is not None
    assert (failed.state, failed.failed_in) == (RoundState.FAILED, RoundState.CREATED)
    assert failed.reason is not None
    assert f"{ATTEMPTS} trainers took the round up in created" in failed.reason


async def test_a_failed_round_that_is_retried_has_all_its_attempts_again(
    store: RoundStore, engine: AsyncEngine
) -> None:
    deadly = await begin(store)
    for _ in range(ATTEMPTS):
        await die(engine, await claim_round(store))
    assert await store.claim("t", LEASE, ATTEMPTS) is None
    assert await store.retry(UUID(deadly.id)) is not None
    for _ in range(ATTEMPTS):
        await die(engine, await claim_round(store))
    assert await store.claim("t", LEASE, ATTEMPTS) is None


async def test_a_round_that_gets_further_each_time_is_never_given_up(
    store: RoundStore, engine: AsyncEngine
) -> None:
    await begin(store)
    for number in range(1, 3 * ATTEMPTS):
        claim = await claim_round(store)
        await work(store, claim, number * STEP)
        await die(engine, claim)
    claim = await claim_round(store)
    # Another stage counts from nothing, attempts and progress.
    claim = await store.advance(claim, RoundState.SEARCHING, RoundMetrics())
    await work(store, claim, STEP)
    await die(engine, claim)
    for _ in range(ATTEMPTS):
        await die(engine, await claim_round(store))
    assert await store.claim("t", LEASE, ATTEMPTS) is None
    assert (await read(store, claim)).failed_in is RoundState.SEARCHING


async def test_a_round_that_is_given_back_loses_no_attempt(store: RoundStore) -> None:
    await begin(store)
    for _ in range(2 * ATTEMPTS):
        await store.release(await claim_round(store))
    await claim_round(store)


async def test_a_hopeless_round_that_somebody_cancels_is_taken_up_to_be_cancelled(
    store: RoundStore, engine: AsyncEngine
) -> None:
    deadly = await begin(store)
    for _ in range(ATTEMPTS):
        await die(engine, await claim_round(store))
    await store.ask(UUID(deadly.id), cancel=True)
    assert str((await claim_round(store)).id) == deadly.id


@pytest.mark.parametrize("column", ["config", "metrics"])
async def test_a_round_that_cannot_be_read_fails_with_the_field_and_stands_in_nobodys_way(
    store: RoundStore, engine: AsyncEngine, column: str
) -> None:
    damaged, other = await begin(store), await begin(store)
    await spoil(engine, damaged.id, **{column: {"label": 7, "seconds": "secret text"}})
    assert str((await claim_round(store)).id) == other.id
    assert {view.id for view in await store.rounds()} >= {other.id}
    assert damaged.id not in {view.id for view in await store.rounds()}
    with pytest.raises(UnreadableRoundError, match=rf"{column}\.\w+") as told:
        await store.get(UUID(damaged.id))
    assert "secret text" not in str(told.value)


async def test_a_round_of_another_version_fails_and_a_retry_with_a_configuration_goes_on(
    store: RoundStore, engine: AsyncEngine
) -> None:
    newer = await begin(store)
    config = RoundConfig().model_dump(mode="json")
    await spoil(engine, newer.id, config={**config, "later": True})
    assert await store.claim("t", LEASE, ATTEMPTS) is None
    failed = await store.get(UUID(newer.id))
    assert failed is not None
    assert failed.reason is not None
    assert "config.later" in failed.reason
    await store.retry(UUID(newer.id), RoundConfig())
    assert str((await claim_round(store)).id) == newer.id
