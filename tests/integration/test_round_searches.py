"""The searches of a round against a real Postgres: planned once, again where a retry asks for it, and cancelled together."""

from collections.abc import AsyncIterator

import pytest
from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncEngine

from ratchet.contracts.round_metrics import RoundMetrics
from ratchet.contracts.search import SearchRequest
from ratchet.states import RoundState, SearchState
from ratchet.store import tables as t
from ratchet.store.engine import transaction
from ratchet.store.round_searches import RoundSearchStore
from ratchet.store.rounds import RoundStore
from ratchet.store.search_results import SearchOutcome
from ratchet.store.searches import SearchStore
from tests.integration.round_claims import begin, claim_round, requests


@pytest.fixture
async def store(engine: AsyncEngine) -> AsyncIterator[RoundStore]:
    """With no round in it that a trainer could take up."""
    yield RoundStore(engine)
    async with transaction(engine) as connection:
        await connection.execute(t.rounds.update().values(state=RoundState.FAILED))


@pytest.fixture
def searches(engine: AsyncEngine) -> RoundSearchStore:
    return RoundSearchStore(engine)


async def test_a_plan_that_is_made_again_adds_only_what_is_missing(
    store: RoundStore, searches: RoundSearchStore, engine: AsyncEngine
) -> None:
    await begin(store)
    claim = await claim_round(store)
    first = await searches.plan(claim, "label", 0, requests(["One?", "Two?"]))
    assert len(first) == 2
    assert await searches.plan(claim, "label", 0, requests(["One?", "Two?"])) == []
    third = await searches.plan(claim, "label", 0, requests(["One?", "Two?", "Three?"]))
    assert len(third) == 1
    again = await searches.plan(claim, "label", 1, requests(["One?"]))
    other = await searches.plan(claim, "candidate.greedy", 0, requests(["One?"], reference=None))
    assert len(again) == len(other) == 1
    found = await searches.results(claim.id, "label")
    assert [(each.place, each.attempt) for each in found] == [(0, 0), (0, 1), (1, 0), (2, 0)]
    assert {each.search_id for each in found} == {each.id for each in [*first, *third, *again]}
    assert {each.state for each in found} == {SearchState.QUEUED}
    assert await searches.count_ended(claim.id, "label") == (0, 4)

    async with transaction(engine) as connection:
        known = await connection.execute(
            select(t.reference_answers.c.search_id)
            .join(t.searches, t.searches.c.id == t.reference_answers.c.search_id)
            .where(t.searches.c.round_id == claim.id)
        )
        assert set(known.scalars()) == {each.search_id for each in found}, (
            "an evaluation has no reference answer"
        )


async def test_a_planned_search_that_asked_for_something_else_gives_way(
    store: RoundStore, searches: RoundSearchStore
) -> None:
    await begin(store)
    claim = await claim_round(store)
    asked = requests(["One?", "Two?"])
    first, second = await searches.plan(claim, "label", 0, asked)
    changed = {0: asked[0], 1: asked[1].model_copy(update={"seed": 7})}
    [anew] = await searches.plan(claim, "label", 0, changed)
    found = await searches.results(claim.id, "label")
    assert [each.search_id for each in found] == [first.id, anew.id]
    assert anew.id != second.id


async def test_cancelling_a_rounds_searches_leaves_those_of_others_alone(
    store: RoundStore, searches: RoundSearchStore, engine: AsyncEngine
) -> None:
    others = SearchStore(engine)
    await begin(store)
    claim = await claim_round(store)
    planned = await searches.plan(claim, "label", 0, requests(["One?", "Two?", "Three?"]))
    alone, _ = await others.create(SearchRequest(problem="Mine?"), None)
    await others.request_cancel(planned[0].id)
    assert await searches.count_ended(claim.id, "label") == (1, 3), (
        "one that nobody had begun is over at once"
    )
    assert await searches.cancel(claim.id) == 2
    async with transaction(engine) as connection:
        asked = await connection.execute(select(t.searches.c.id).where(t.searches.c.cancel_requested))
        assert alone not in set(asked.scalars())


async def test_a_retry_plans_failed_and_cancelled_searches_anew_and_keeps_the_others(
    store: RoundStore, searches: RoundSearchStore, engine: AsyncEngine
) -> None:
    await begin(store)
    claim = await store.advance(await claim_round(store), RoundState.SEARCHING, RoundMetrics())
    texts = ["Solved?", "Failed?", "Cancelled?", "Being cancelled?"]
    planned = await searches.plan(claim, "label", 0, requests(texts))
    ends = (SearchState.SOLVED_VERIFIED, SearchState.FAILED, SearchState.CANCELLED, SearchState.RUNNING)
    async with transaction(engine) as connection:
        for each, state in zip(planned, ends, strict=True):
            await connection.execute(
                t.searches.update()
                .where(t.searches.c.id == each.id)
                .values(state=state, cancel_requested=state is SearchState.RUNNING)
            )
    await store.advance(claim, RoundState.FAILED, RoundMetrics(), "x")
    await store.retry(claim.id)
    claim = await claim_round(store)
    anew = await searches.plan(claim, "label", 0, requests(texts))
    assert len(anew) == 3
    found = await searches.results(claim.id, "label")
    assert [each.search_id for each in found] == [planned[0].id, *(each.id for each in anew)]


async def test_a_search_that_failed_is_queued_again_and_one_that_ended_well_is_not(
    store: RoundStore, searches: RoundSearchStore, engine: AsyncEngine
) -> None:
    await begin(store)
    claim = await claim_round(store)
    failed, well = await searches.plan(claim, "label", 0, requests(["One?", "Two?"]))
    store_of_all = SearchStore(engine)
    for each, state in ((failed, SearchState.FAILED), (well, SearchState.BUDGET_EXHAUSTED)):
        work = await store_of_all.claim(each.id, "w", 60, 5)
        assert work is not None
        await store_of_all.finish(work, state, SearchOutcome())
    (again,) = await searches.queue_failed_again(claim, "label")
    assert again.id == failed.id
    assert await store_of_all.state(failed.id) is SearchState.QUEUED
    assert await store_of_all.claim(failed.id, "w", 60, 5) is not None
    assert await store_of_all.state(well.id) is SearchState.BUDGET_EXHAUSTED
    assert await searches.queue_failed_again(claim, "other") == []
