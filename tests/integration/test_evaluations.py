"""Evaluations compared through the trainer's API: of rounds, with their problems and searches, and of files."""

from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
from sqlalchemy.ext.asyncio import AsyncEngine

from ratchet.contracts.round_metrics import Measured, MeasuredPair, MeasuredPairs, RoundMetrics
from ratchet.contracts.rounds import RoundConfig, RoundRequest
from ratchet.problems import problem_id
from ratchet.settings import TrainerSettings
from ratchet.states import RoundState
from ratchet.statistics import mcnemar
from ratchet.store import tables as t
from ratchet.store.engine import transaction
from ratchet.store.round_searches import RoundSearchStore
from ratchet.store.rounds import RoundStore
from services.trainer.app import build_app
from services.trainer.stages.measuring import figures
from tests.integration.round_claims import a_run, claim_round, problems, requests

TEXTS = [f"Problem {place}?" for place in range(6)]


@pytest.fixture(scope="module")
async def api(engine: AsyncEngine, database_url: str) -> AsyncIterator[httpx.AsyncClient]:
    app = build_app(TrainerSettings(database_url=database_url))
    transport = httpx.ASGITransport(app)
    async with httpx.AsyncClient(transport=transport, base_url="http://trainer") as client:
        yield client


def measured(outcomes: str, samples: int = 1) -> Measured:
    return figures(outcomes=outcomes, samples=samples, answered=len(outcomes), tokens=1.0)


async def a_round(engine: AsyncEngine) -> tuple[str, list[str]]:
    """A round that has measured two pairs, two of whose development problems chose; and the searches of the new one."""
    store, searches = RoundStore(engine), RoundSearchStore(engine)
    config = RoundConfig.model_validate({"gate": {"selection": 2}})
    view = await store.create(RoundRequest(run=a_run(), config=config))
    claim = await claim_round(store)
    for split in ("development", "held_out"):
        await store.add_problems(claim, split, problems(*TEXTS))
    planned = await searches.plan(claim, "candidate.held_out.best_of_n", 0, requests(TEXTS, None))
    old = {"held_out.majority": measured("110000"), "development.samples": measured("0213", 3)}
    new = {"held_out.majority": measured("011110"), "development.samples": measured("330-", 3)}
    pairs = MeasuredPairs(
        incumbent=MeasuredPair(pair="p0 prm1", measured=old),
        candidate=MeasuredPair(pair="p1 prm2", measured=new),
    )
    async with transaction(engine) as connection:
        await connection.execute(
            t.rounds.update()
            .where(t.rounds.c.id == claim.id)
            .values(
                state=RoundState.PROMOTED,
                metrics=RoundMetrics(evaluation=pairs).model_dump(mode="json", exclude_unset=True),
            )
        )
    return view.id, [str(each.id) for each in planned]


def of_round(round_id: str, pair: str, measured: str = "held_out.majority") -> dict[str, Any]:
    return {"round": {"round": round_id, "pair": pair, "measured": measured}}


async def test_a_rounds_old_and_new_pair_are_compared_with_their_problems_and_searches(
    api: httpx.AsyncClient, engine: AsyncEngine
) -> None:
    round_id, searches = await a_round(engine)
    body = {"first": of_round(round_id, "incumbent"), "second": of_round(round_id, "candidate")}
    found = (await api.post("/evaluations/compare", json=body)).json()
    assert (found["n"], found["better"], found["worse"]) == (6, 3, 1)
    assert found["difference"] == pytest.approx(2 / 6)
    assert found["p"] == pytest.approx(mcnemar(3, 1))
    lost, *won = found["differing"]
    assert (lost["problem"], lost["id"]) == (TEXTS[0], problem_id(TEXTS[0], "42"))
    assert [each["problem"] for each in won] == TEXTS[2:5]
    assert (lost["first_search"], lost["second_search"]) == (None, searches[0])

    # Of development the first two problems chose the pair; the search of the last one failed.
    body = {
        side: of_round(round_id, pair, "development.samples")
        for side, pair in (("first", "incumbent"), ("second", "candidate"))
    }
    found = (await api.post("/evaluations/compare", json=body)).json()
    assert (found["n"], found["first"]["tries"], found["first"]["left_out"]) == (3, 3, 1)
    assert [each["problem"] for each in found["differing"]] == [TEXTS[4], TEXTS[2], TEXTS[3]]


async def test_a_round_is_compared_with_a_file_of_the_same_problems(
    api: httpx.AsyncClient, engine: AsyncEngine
) -> None:
    round_id, _ = await a_round(engine)
    lines = [{"id": problem_id(text, "42"), "right": place % 2} for place, text in enumerate(TEXTS[:4])]
    file = {"file": {"name": "my run", "problems": lines}}
    answer = await api.post(
        "/evaluations/compare", json={"first": file, "second": of_round(round_id, "candidate")}
    )
    found = answer.json()
    assert (found["n"], found["first"]["name"], found["second"]["left_out"]) == (4, "my run", 2)
    assert [each["problem"] for each in found["differing"]] == [TEXTS[2]]
    assert found["first"]["accuracy"] == 0.5


async def test_what_cannot_be_compared_is_refused_by_its_name(
    api: httpx.AsyncClient, engine: AsyncEngine
) -> None:
    round_id, _ = await a_round(engine)
    good = of_round(round_id, "candidate")
    problem = {"id": "0" * 16, "right": 1}
    one: dict[str, Any] = {"name": "x", "problems": [problem]}
    cases: list[tuple[dict[str, Any], int, str]] = [
        ({"file": one}, 422, "no problem in common"),
        ({}, 422, "second"),
        ({"file": one | {"problems": []}}, 422, "second.file.problems"),
        ({"file": one | {"problems": [problem, problem]}}, 422, "twice"),
        ({"file": {"name": "x", "problems": [{"id": "0" * 16, "right": 2}]}}, 422, "more tries were right"),
        (of_round(round_id, "reference"), 404, "second.round.measured"),
        (of_round(round_id, "candidate", "held_out.beam"), 404, "second.round.measured"),
        (of_round("00000000-0000-0000-0000-000000000000", "candidate"), 404, "second.round.round"),
        (of_round(round_id, "candidate", "train.mcts"), 422, "second.round.measured"),
    ]
    for second, status, told in cases:
        answer = await api.post("/evaluations/compare", json={"first": good, "second": second})
        assert (answer.status_code, answer.headers["content-type"]) == (status, "application/problem+json")
        assert told in answer.text, answer.text
