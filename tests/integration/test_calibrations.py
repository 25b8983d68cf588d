"""Calibrations through the trainer's API: fitted to searches in a real Postgres, and refused where those do not fit."""

import random
from collections.abc import AsyncIterator
from uuid import UUID

import httpx
import pytest
from sqlalchemy.ext.asyncio import AsyncEngine

from ratchet.contracts.calibration import AnswerCalibration
from ratchet.contracts.search import SearchRequest, StrategyName, StrategyParameters, Usage
from ratchet.settings import TrainerSettings
from ratchet.states import NodeState, SearchState
from ratchet.store import calibrations
from ratchet.store.calibrations import CalibrationStore
from ratchet.store.ids import new_id
from ratchet.store.nodes import NodeRecord
from ratchet.store.round_searches import RoundSearchStore
from ratchet.store.rounds import RoundProblem, RoundStore
from ratchet.store.search_results import SearchOutcome
from ratchet.store.searches import SearchStore
from services.trainer.app import build_app
from services.trainer.pairs import Pair
from services.trainer.stages.evaluate import calibrate_pair
from services.trainer.stages.measuring import SYSTEM_PLAN, Job
from tests.integration.round_claims import begin, claim_round, requests, stage_context

MODELS = {"policy": "small@1", "prm": "prm1-likelihood@small@1"}


@pytest.fixture(scope="module")
async def api(engine: AsyncEngine, database_url: str) -> AsyncIterator[httpx.AsyncClient]:
    app = build_app(TrainerSettings(database_url=database_url))
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://trainer") as client,
    ):
        yield client


def end(number: int, answer: str, score: float) -> NodeRecord:
    return NodeRecord(
        f"n{number}",
        "n0",
        number,
        1,
        NodeState.TERMINAL,
        f"t{number}",
        text=f"print({answer})  # {number}",
        answer=answer,
        prm_score=score,
        visits=1,
    )


async def a_search(
    engine: AsyncEngine,
    answers: list[str],
    *,
    models: dict[str, str] | None = None,
    reference: str | None = None,
    strategy: StrategyName = StrategyName.MCTS,
    over: bool = True,
    early_stop: bool = False,
) -> UUID:
    """A search in which a trajectory gave each of these answers."""
    store = SearchStore(engine)
    request = SearchRequest(
        problem=f"What is {new_id()}?",
        reference_answer=reference,
        strategy=strategy,
        parameters=StrategyParameters(early_stop=early_stop),
    )
    search_id, _ = await store.create(request)
    await end_search(store, search_id, answers, MODELS if models is None else models, over=over)
    return search_id


async def end_search(
    store: SearchStore, search_id: UUID, answers: list[str], models: dict[str, str], *, over: bool = True
) -> None:
    claim = await store.claim(search_id, "w", 30.0, 5)
    assert claim is not None
    root = NodeRecord("n0", None, -1, 0, NodeState.OPEN, "-1", visits=len(answers), expansions=len(answers))
    ends = [end(number, answer, 0.5) for number, answer in enumerate(answers, 1)]
    await store.journal(claim, [root, *ends], Usage())
    if over:
        outcome = SearchOutcome(answer=answers[0], models=models)
        await store.finish(claim, SearchState.ANSWERED_UNVERIFIED, outcome)


async def searched(engine: AsyncEngine, n: int, *, early_stop: bool = False) -> list[dict[str, str]]:
    """Searches, labelled: the more trajectories agree, the likelier are they right."""
    rng = random.Random(0)
    found = []
    for _ in range(n):
        share = rng.random()
        answers = ["7" if rng.random() < share else str(rng.randint(8, 12)) for _ in range(8)]
        search_id = await a_search(engine, answers, early_stop=early_stop)
        found.append({"search": str(search_id), "reference_answer": "7.0"})
    return found


async def test_searches_that_are_over_calibrate_their_pair(
    api: httpx.AsyncClient, engine: AsyncEngine
) -> None:
    labelled = await searched(engine, 60)
    answer = await api.post("/calibrations", json={"searches": labelled, "source": "60 problems"})
    assert answer.status_code == 201, answer.text
    made = AnswerCalibration.model_validate(answer.json())
    assert (made.policy, made.prm, made.problems) == (MODELS["policy"], MODELS["prm"], 60)
    assert not made.early_stop
    weights = {feature.name: feature.coefficient for feature in made.features}
    assert weights["log_share"] + weights["log_votes"] > 0
    store = CalibrationStore(engine)
    assert await store.get(made.policy, made.prm) == made
    assert await store.get(made.policy, "another") is None
    again = await api.post("/calibrations", json={"searches": labelled[:50], "source": "fewer"})
    assert again.status_code == 201
    listed = (await api.get("/calibrations")).json()["calibrations"]
    assert [each["source"] for each in listed if each["policy"] == made.policy] == ["fewer"]


async def test_a_calibration_says_how_its_searches_ended_and_mixes_no_two_kinds(
    api: httpx.AsyncClient, engine: AsyncEngine
) -> None:
    early = await searched(engine, 40, early_stop=True)
    answer = await api.post("/calibrations", json={"searches": early, "source": "40 problems"})
    assert answer.status_code == 201, answer.text
    assert answer.json()["early_stop"] is True
    mixed = [*early, *await searched(engine, 1)]
    refused = await api.post("/calibrations", json={"searches": mixed, "source": "41 problems"})
    assert refused.status_code == 422
    [error] = refused.json()["errors"]
    assert error["field"] == "searches"
    assert "might end early, others not" in error["message"]


async def test_a_round_calibrates_the_pair_that_its_development_searches_were_of(engine: AsyncEngine) -> None:
    rounds, searches, store = RoundStore(engine), RoundSearchStore(engine), SearchStore(engine)
    await begin(rounds)
    claim = await claim_round(rounds)
    texts = [f"What is {new_id()}?" for _ in range(40)]
    planned = await searches.plan(claim, "candidate.development.mcts", 0, requests(texts, reference=None))
    models = {"policy": "r1-policy@1", "prm": "r1-prm@1"}
    pair = Pair(models["policy"], models["prm"])
    rng = random.Random(1)
    for each in planned:
        share = rng.random()
        answers = ["42" if rng.random() < share else str(rng.randint(1, 5)) for _ in range(8)]
        await end_search(store, each.id, answers, models)
    problems = [
        RoundProblem(place, text, "42.0", "family", None, "source") for place, text in enumerate(texts)
    ]
    async with stage_context(engine, claim) as context:
        await calibrate_pair(context, Job("candidate", SYSTEM_PLAN, pair, problems[:20]))
        assert await CalibrationStore(engine).get(models["policy"], models["prm"]) is None, "too few"
        await calibrate_pair(context, Job("candidate", SYSTEM_PLAN, pair, problems))
    found = await CalibrationStore(engine).get(models["policy"], models["prm"])
    assert found is not None
    assert (found.problems, found.reliability.n) == (40, 40)
    assert found.source == f"round 1 of run {claim.run}: 40 development problems"


async def test_a_packaged_calibration_stands_where_the_registry_has_none(
    engine: AsyncEngine, api: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    labelled = await searched(engine, 40)
    made = AnswerCalibration.model_validate(
        (await api.post("/calibrations", json={"searches": labelled, "source": "mine"})).json()
    )
    shipped = made.model_copy(update={"source": "shipped"})
    other = shipped.model_copy(update={"policy": "small@2"})
    monkeypatch.setattr(calibrations, "packaged", lambda: (shipped, other))
    store = CalibrationStore(engine)
    assert await store.get(other.policy, other.prm) == other
    assert (await store.get(made.policy, made.prm)) == made
    pairs = [(each.policy, each.source) for each in await store.all() if each.prm == made.prm]
    assert pairs == [(made.policy, "mine"), (other.policy, "shipped")]


async def test_what_does_not_fit_is_refused_with_the_reason(
    api: httpx.AsyncClient, engine: AsyncEngine
) -> None:
    good = str(await a_search(engine, ["7"]))
    unfit = {
        "knew its reference answer": await a_search(engine, ["7"], reference="7"),
        "was greedy": await a_search(engine, ["7"], strategy=StrategyName.GREEDY),
        "is not over": await a_search(engine, ["7"], over=False),
        "several pairs of models": await a_search(engine, ["7"], models={"policy": "small@2", "prm": "p@1"}),
        "was not scored by a PRM": await a_search(engine, ["7"], models={"policy": "small@1"}),
        "1 of the searches are not there": new_id(),
        "it takes 30": None,
    }
    for reason, search in unfit.items():
        ids = [good] if search is None else [good, str(search)]
        body = {"searches": [{"search": each, "reference_answer": "7"} for each in ids], "source": "s"}
        answer = await api.post("/calibrations", json=body)
        assert answer.status_code == 422, (reason, answer.text)
        assert reason in answer.json()["detail"]
        assert answer.json()["errors"][0]["field"] == "searches"
    body = {"searches": [{"search": "no id", "reference_answer": "7"}], "source": "s"}
    answer = await api.post("/calibrations", json=body)
    assert (answer.status_code, answer.json()["errors"][0]["field"]) == (422, "searches.0.search")
