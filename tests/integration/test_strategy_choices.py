"""The strategy that measured best, kept in a real Postgres, and what stands for `auto` in a search."""

from collections.abc import AsyncIterator

import httpx
import pytest
from sqlalchemy.ext.asyncio import AsyncEngine

from ratchet.contracts.search import SearchRequest, StrategyName
from ratchet.contracts.strategies import StrategyChoice
from ratchet.settings import TrainerSettings
from ratchet.store.searches import Claim, LeaseLostError, SearchStore
from ratchet.store.strategy_choices import StrategyChoiceStore
from services.trainer.app import build_app

PAIR = ("nano@1", "prm@1")


def choice(**changes: object) -> StrategyChoice:
    fields: dict[str, object] = {
        "policy": PAIR[0],
        "prm": PAIR[1],
        "strategy": "beam",
        "accuracy": 0.5,
        "n": 100,
        "tokens": [300, 600],
        "compared": ["beam", "mcts"],
        "source": "nano:development",
    }
    return StrategyChoice.model_validate(fields | changes)


async def begun(store: SearchStore, strategy: StrategyName = StrategyName.AUTO) -> Claim:
    search_id, _ = await store.create(SearchRequest(problem="any", strategy=strategy))
    claim = await store.claim(search_id, "worker", 30.0, 5)
    assert claim is not None
    return claim


async def test_a_later_choice_replaces_an_earlier_one_and_stands_for_auto(engine: AsyncEngine) -> None:
    choices, store = StrategyChoiceStore(engine), SearchStore(engine)
    assert await store.choose_strategy(await begun(store), PAIR) is StrategyName.MCTS
    await choices.put(choice(strategy="dvts"))
    await choices.put(choice(prm="prm@2", strategy="majority"))
    await choices.put(choice())
    assert [(each.prm, each.strategy) for each in await choices.all()] == [
        ("prm@1", "beam"),
        ("prm@2", "majority"),
    ]
    claim = await begun(store)
    assert claim.request.strategy is StrategyName.AUTO
    assert await store.choose_strategy(claim, PAIR) is StrategyName.BEAM
    result = await store.result(claim.id)
    assert result is not None
    assert result.strategy is StrategyName.BEAM
    assert await store.choose_strategy(await begun(store), None) is StrategyName.MCTS


async def test_a_worker_that_lost_its_search_chooses_nothing(engine: AsyncEngine) -> None:
    store = SearchStore(engine)
    claim = await begun(store)
    await store.release(claim)
    with pytest.raises(LeaseLostError):
        await store.choose_strategy(claim, PAIR)
    result = await store.result(claim.id)
    assert result is not None
    assert result.strategy is StrategyName.AUTO


@pytest.fixture
async def trainer(database_url: str, redis_url: str, engine: AsyncEngine) -> AsyncIterator[httpx.AsyncClient]:
    del engine  # It has made the tables.
    app = build_app(TrainerSettings(database_url=database_url, redis_url=redis_url))
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://trainer") as client:
        yield client


async def test_the_trainer_keeps_choices_and_refuses_auto_for_itself(trainer: httpx.AsyncClient) -> None:
    kept = choice(policy="nano@7", strategy="rebase").model_dump(mode="json")
    assert (await trainer.put("/strategies", json=kept)).json() == kept
    assert (await trainer.get("/strategies")).json()["choices"][0] == kept
    refused = await trainer.put("/strategies", json=kept | {"strategy": "auto"})
    assert refused.status_code == 422
    assert refused.json()["errors"][0]["field"] == "strategy"
