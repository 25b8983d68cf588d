"""The list of searches, narrowed down: a real store, with a history that is longer than one page looks at."""

from collections.abc import Sequence
from uuid import UUID

import pytest
from sqlalchemy.ext.asyncio import AsyncEngine

from ratchet.contracts.search import SearchRequest, StrategyName, Usage, Verification, VerificationLevel
from ratchet.contracts.search_list import SearchFilter, SearchSummary
from ratchet.states import SearchState
from ratchet.store import search_list
from ratchet.store.ids import new_id
from ratchet.store.search_results import SearchOutcome
from ratchet.store.searches import SearchStore


@pytest.fixture
def store(engine: AsyncEngine) -> SearchStore:
    return SearchStore(engine)


async def solved(
    store: SearchStore, problem: str, answer: str, *, models: dict[str, str], **changes: object
) -> str:
    request = SearchRequest.model_validate({"problem": problem, **changes})
    search_id, _ = await store.create(request)
    claim = await store.claim(search_id, "w", 30, 5)
    assert claim is not None
    verification = Verification(
        level=VerificationLevel.EXECUTION,
        votes=1,
        total_votes=1,
        independent_programs=1,
        forms=1,
        prm_share=1.0,
        confidence=0.75,
    )
    outcome = SearchOutcome(answer=answer, verification=verification, usage=Usage(), models=models)
    await store.finish(claim, SearchState.ANSWERED_UNVERIFIED, outcome)
    return str(search_id)


async def every(store: SearchStore, narrowed: SearchFilter, limit: int = 2) -> list[SearchSummary]:
    """All pages. Raises AssertionError where they do not end."""
    found: list[SearchSummary] = []
    cursor: UUID | None = None
    for _ in range(200):
        page = await store.list_recent(limit, narrowed, cursor)
        assert len(page.searches) <= limit
        found += page.searches
        if page.next is None:
            return found
        cursor = UUID(page.next)
    raise AssertionError("the pages have no end")


def ids(searches: Sequence[SearchSummary]) -> list[str]:
    return [each.id for each in searches]


async def test_searches_are_found_by_what_they_say_stand_at_and_were_made_with(
    store: SearchStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    mark = new_id().hex
    monkeypatch.setattr(search_list, "LOOKED_AT", 3)
    models = {"policy": f"nano-{mark}@1", "prm": f"prm-{mark}@1"}
    sheep = await solved(store, f"{mark}: 17 Sheep_s, 100% wool?", "1/3", models=models)
    goats = await solved(store, f"{mark}: 18 goats?", f"x*{mark.upper()}", models=models, strategy="beam")
    later = [str((await store.create(SearchRequest(problem=f"{mark}: later {n}")))[0]) for n in range(7)]

    everything = [*later[::-1], goats, sheep]
    assert ids(await every(store, SearchFilter(text=mark))) == everything
    assert ids(await every(store, SearchFilter(text=f"{mark.upper()}: 17 sHEEP"))) == [sheep]
    assert ids(await every(store, SearchFilter(text=f"X*{mark}"))) == [goats], "an answer"
    for no_wildcard in (f"{mark}%", f"{mark}_ 1", f"{mark}: 18\\ goats"):
        assert await every(store, SearchFilter(text=no_wildcard)) == []
    assert ids(await every(store, SearchFilter(text=f"{mark}: 17 sheep_s, 100% "))) == [sheep]

    assert ids(await every(store, SearchFilter(model=models["policy"]))) == [goats, sheep]
    assert ids(await every(store, SearchFilter(model=models["prm"], text="wool"))) == [sheep]
    level = SearchFilter(text=mark, level=VerificationLevel.EXECUTION)
    assert ids(await every(store, level)) == [goats, sheep]
    assert ids(await every(store, SearchFilter(text=mark, state=SearchState.QUEUED))) == later[::-1]
    assert ids(await every(store, SearchFilter(text=mark, strategy=StrategyName.BEAM))) == [goats]
    [shown] = await every(store, SearchFilter(text=f"{mark}: 17"))
    assert (shown.level, shown.confidence, shown.models) == (VerificationLevel.EXECUTION, 0.75, models)
    assert shown.parent is None


async def test_a_page_that_finds_nothing_where_it_looks_says_where_to_go_on(
    store: SearchStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    mark = new_id().hex
    wanted = str((await store.create(SearchRequest(problem=mark)))[0])
    for _ in range(4):
        await store.create(SearchRequest(problem="another"))
    monkeypatch.setattr(search_list, "LOOKED_AT", 4)
    page = await store.list_recent(50, SearchFilter(text=mark))
    assert page.searches == []
    assert page.next is not None
    page = await store.list_recent(50, SearchFilter(text=mark), UUID(page.next))
    assert ids(page.searches) == [wanted]
