"""What is deleted, and what never is: rounds, their data sets, quarantine and pairs keep what they were made of."""

import asyncio
from collections.abc import Sequence
from dataclasses import asdict
from uuid import UUID

import pytest
from sqlalchemy import delete, func, select
from sqlalchemy.ext.asyncio import AsyncEngine

from ratchet.contracts.rounds import Disagreement
from ratchet.contracts.search import SearchRequest, Usage
from ratchet.settings import SearchSettings
from ratchet.states import NodeState, RoundState, SearchState
from ratchet.store import tables as t
from ratchet.store.engine import from_now, transaction
from ratchet.store.ids import new_id
from ratchet.store.nodes import NodeRecord
from ratchet.store.retention import BATCH, Amount, Retention, Waste, WasteStore
from ratchet.store.round_searches import RoundSearchStore
from ratchet.store.rounds import RoundStore
from ratchet.store.search_results import SearchOutcome
from ratchet.store.searches import SearchStore
from services.search.app import build_app
from services.search.pruning import pruning
from tests.integration.round_claims import a_run, begin, claim_round, problems, requests
from tests.served_app import served

OLD = Retention(searches_days=30)
OLD_TREES = Retention(trees_days=30)
NOTHING = {waste: Amount() for waste in Waste}


@pytest.fixture(autouse=True)
async def empty(engine: AsyncEngine) -> None:
    async with transaction(engine) as connection:
        for table in (t.quarantine, t.datasets, t.searches, t.rounds, t.problems):
            await connection.execute(delete(table))


@pytest.fixture
def store(engine: AsyncEngine) -> SearchStore:
    return SearchStore(engine)


@pytest.fixture
def waste(engine: AsyncEngine) -> WasteStore:
    return WasteStore(engine)


async def ended(
    store: SearchStore, search_id: UUID, state: SearchState = SearchState.ANSWERED_UNVERIFIED
) -> UUID:
    claim = await store.claim(search_id, "w", 60, 5)
    assert claim is not None
    root = NodeRecord(
        id="root", parent=None, ordinal=0, depth=0, state=NodeState.OPEN, task="0", text="x" * 5000
    )
    await store.journal(claim, [root], Usage())
    await store.finish(claim, state, SearchOutcome(answer="42", proof={"program": "print(42)"}))
    return search_id


async def a_search(store: SearchStore, problem: str) -> UUID:
    return await ended(store, (await store.create(SearchRequest(problem=problem), None))[0])


async def age(engine: AsyncEngine, ids: Sequence[UUID], days: float = 31) -> None:
    async with transaction(engine) as connection:
        await connection.execute(
            t.searches.update().where(t.searches.c.id.in_(ids)).values(ended_at=from_now(-days * 86_400))
        )


async def count(engine: AsyncEngine, table: str) -> int:
    async with transaction(engine) as connection:
        return await connection.scalar(select(func.count()).select_from(t.metadata.tables[table])) or 0


async def a_round(
    engine: AsyncEngine, store: SearchStore, run: str, *, ended_as: RoundState | None
) -> list[UUID]:
    """The old searches of a round in this state; None: it is under way."""
    rounds, planned = RoundStore(engine), RoundSearchStore(engine)
    await begin(rounds, run)
    claim = await claim_round(rounds)
    await rounds.add_problems(claim, "train", problems(f"{run} a", f"{run} b"))
    waiting = await planned.plan(claim, "label", 0, requests([f"{run} a", f"{run} b"]))
    ids = [await ended(store, each.id) for each in waiting]
    await age(engine, ids)
    if ended_as is not None:
        async with transaction(engine) as connection:
            await connection.execute(
                t.rounds.update()
                .where(t.rounds.c.id == claim.id)
                .values(state=ended_as, failed_in=RoundState.SELECTING, ended_at=func.clock_timestamp())
            )
    return ids


async def alive(engine: AsyncEngine, ids: Sequence[UUID]) -> int:
    async with transaction(engine) as connection:
        query = select(func.count()).select_from(t.searches).where(t.searches.c.id.in_(ids))
        return await connection.scalar(query) or 0


async def test_by_default_nothing_goes(engine: AsyncEngine, store: SearchStore, waste: WasteStore) -> None:
    await age(engine, [await a_search(store, "a")], days=10_000)
    assert await waste.survey(Retention()) == await waste.prune(Retention()) == NOTHING
    assert await count(engine, "searches") == 1


async def test_old_searches_go_with_all_that_is_theirs_and_a_dry_run_says_what(
    engine: AsyncEngine, store: SearchStore, waste: WasteStore
) -> None:
    old = [await a_search(store, f"old {number}") for number in range(BATCH + 5)]
    await age(engine, old)
    young = await a_search(store, "young")
    running, _ = await store.create(SearchRequest(problem="old 0"), None)
    told = await waste.survey(OLD)
    assert (
        told[Waste.SEARCHES].searches
        == told[Waste.SEARCHES].nodes
        == told[Waste.SEARCHES].solutions
        == BATCH + 5
    )
    assert told[Waste.SEARCHES].bytes > 100 * (BATCH + 5)
    # The problem of the one that waits stays.
    assert told[Waste.PROBLEMS].problems == BATCH + 4
    assert await count(engine, "searches") == BATCH + 7, "it was a dry run"
    assert await waste.prune(OLD) == told
    assert await alive(engine, [young, running]) == 2 == await count(engine, "searches")
    assert (
        await count(engine, "nodes"),
        await count(engine, "solutions"),
        await count(engine, "problems"),
    ) == (1, 1, 2)
    assert await waste.prune(OLD) == NOTHING


async def test_old_trees_go_and_their_answers_and_proofs_stay(
    engine: AsyncEngine, store: SearchStore, waste: WasteStore
) -> None:
    old = await a_search(store, "old")
    await age(engine, [old])
    await a_search(store, "young")
    told = await waste.survey(OLD_TREES)
    assert (told[Waste.TREES].nodes, told[Waste.TREES].searches) == (1, 0)
    assert await waste.prune(OLD_TREES) == told
    assert await count(engine, "nodes") == 1
    assert await store.proof(old) == {"program": "print(42)"}
    result = await store.result(old)
    assert result is not None
    assert result.answer == "42"
    assert await store.load_nodes(old) == []


@pytest.mark.parametrize("retention", [OLD, OLD_TREES])
@pytest.mark.parametrize("keeper", ["under way", "retryable", "data set", "quarantine", "pair"])
async def test_what_a_round_needs_stays(
    engine: AsyncEngine, store: SearchStore, waste: WasteStore, keeper: str, retention: Retention
) -> None:
    run = a_run()
    ids = await a_round(engine, store, run, ended_as=None if keeper == "under way" else RoundState.FAILED)
    async with transaction(engine) as connection:
        round_id = (await connection.execute(select(t.rounds.c.id))).scalar_one()
        if keeper not in ("under way", "retryable"):
            # Another round of the run has begun, so a retry keeps it no longer.
            values = {"id": new_id(), "run": run, "number": 2, "state": RoundState.REJECTED}
            await connection.execute(t.rounds.insert().values(**values))
        if keeper == "data set":
            values = {
                "id": new_id(),
                "round_id": round_id,
                "name": "sft",
                "uri": "/x",
                "sha256": "0",
                "rows": 1,
            }
            await connection.execute(t.datasets.insert().values(**values))
        if keeper == "quarantine":
            problem = (await connection.execute(select(t.problems.c.id).limit(1))).scalar_one()
            disagreement = Disagreement(answer="41", programs=3, prm_score=0.9).model_dump()
            entry = {
                "run": run,
                "problem_id": problem,
                "round_id": round_id,
                "reference": "42",
                "source": "x",
            }
            await connection.execute(t.quarantine.insert().values(**entry, disagreement=disagreement))
        if keeper == "pair":
            model = {"version": run, "kind": "policy", "state": "retired", "uri": "/x", "sha256": "0"}
            await connection.execute(t.models.insert().values(**model))
            pair = {"policy": run, "prm": "prm1-likelihood", "round_id": round_id, "why": "round"}
            await connection.execute(t.serving_pairs.insert().values(**pair))
    assert await waste.survey(retention) == await waste.prune(retention) == NOTHING
    assert await alive(engine, ids) == len(ids)
    assert await count(engine, "nodes") == len(ids)
    if keeper == "pair":
        async with transaction(engine) as connection:
            await connection.execute(delete(t.serving_pairs))


async def test_what_no_round_needs_any_more_goes(
    engine: AsyncEngine, store: SearchStore, waste: WasteStore
) -> None:
    run = a_run()
    ids = await a_round(engine, store, run, ended_as=RoundState.FAILED)
    async with transaction(engine) as connection:
        values = {"id": new_id(), "run": run, "number": 2, "state": RoundState.REJECTED}
        await connection.execute(t.rounds.insert().values(**values))
    assert (await waste.prune(OLD))[Waste.SEARCHES].searches == len(ids)
    # The round itself stays, with the problems that it names.
    assert (await count(engine, "rounds"), await count(engine, "problems")) == (2, 2)


async def test_searches_that_a_retried_round_has_replaced_go_whatever_their_age(
    engine: AsyncEngine, store: SearchStore, waste: WasteStore
) -> None:
    run = a_run()
    rounds, planned = RoundStore(engine), RoundSearchStore(engine)
    view = await begin(rounds, run)
    claim = await claim_round(rounds)
    await rounds.add_problems(claim, "train", problems("a", "b"))
    first, second = await planned.plan(claim, "label", 0, requests(["a", "b"]))
    await ended(store, first.id, SearchState.FAILED)
    await ended(store, second.id)
    async with transaction(engine) as connection:
        failed = {"state": RoundState.FAILED, "failed_in": RoundState.SEARCHING}
        await connection.execute(t.rounds.update().values(**failed))
    assert await waste.survey(Retention()) == NOTHING
    await rounds.retry(UUID(view.id))
    told = await waste.survey(Retention())
    assert asdict(told[Waste.ORPHANS]) | {"bytes": 0} == asdict(Amount(searches=1, nodes=1, solutions=1))
    assert await waste.prune(Retention()) == told
    assert (await alive(engine, [first.id]), await alive(engine, [second.id])) == (0, 1)


async def test_the_search_api_deletes_what_the_settings_say_and_nothing_without_them(
    engine: AsyncEngine, store: SearchStore, database_url: str, redis_url: str
) -> None:
    old, young = await a_search(store, "old"), await a_search(store, "young")
    await age(engine, [old])
    settings = SearchSettings(database_url=database_url, redis_url=redis_url, queue_name="retention")
    assert pruning(settings, engine) == []
    changed = settings.model_copy(update={"keep_searches_days": 30.0})
    with served(build_app(changed), changed):
        async with asyncio.timeout(60):
            while await alive(engine, [old]):
                await asyncio.sleep(0.1)
    assert await alive(engine, [young]) == 1
