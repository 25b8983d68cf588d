"""Rounds and models through the search API: a real trainer behind it, under the caller's own key; and none."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from sqlalchemy.ext.asyncio import AsyncEngine

from ratchet.contracts.rounds import Disagreement
from ratchet.contracts.trainer import ModelRegistration
from ratchet.settings import SearchSettings, TrainerSettings
from ratchet.stack.ports import free_port
from ratchet.states import RoundState
from ratchet.store import tables as t
from ratchet.store.engine import transaction
from ratchet.store.registry import Registry
from ratchet.store.rounds import RoundStore
from services.search.app import build_app
from services.trainer.app import build_app as build_trainer
from tests.http_double import Serve, serving
from tests.integration.round_claims import a_run, begin, claim_round, problems
from tests.served_app import served

OPERATORS_KEY = "the-operators-key-of-these-tests"
VERSION = "org/small@3f2a91c0"


@pytest.fixture(scope="module")
def settings(database_url: str, redis_url: str, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    file = tmp_path_factory.mktemp("keys") / "admin_key"
    file.write_text(OPERATORS_KEY)
    return {"database_url": database_url, "redis_url": redis_url, "admin_key_file": file}


@pytest.fixture(scope="module")
async def rounds(engine: AsyncEngine) -> list[tuple[str, str]]:
    """Ids and runs of two rounds, the second of which has failed and has set a problem aside; and a model."""
    store, found = RoundStore(engine), []
    for state in (RoundState.PROMOTED, RoundState.FAILED):
        run = a_run()
        await begin(store, run)
        claim = await claim_round(store)
        await store.add_problems(claim, "train", problems("Wrong one?"))
        await store.quarantine(claim, {0: Disagreement(answer="41", programs=3, prm_score=0.9)})
        async with transaction(engine) as connection:
            await connection.execute(t.rounds.update().where(t.rounds.c.id == claim.id).values(state=state))
        found.append((str(claim.id), run))
    await Registry(engine).register(
        ModelRegistration(version=VERSION, kind="policy", uri="/models/small", sha256="0" * 64)
    )
    return found


@pytest.fixture(scope="module")
def trainer_url(
    settings: dict[str, Any], rounds: list[tuple[str, str]], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[str]:
    # Its rounds are over: the machine beside its API has nothing to do.
    nowhere = f"http://127.0.0.1:{free_port()}"
    own = TrainerSettings(
        **settings,
        rounds_dir=tmp_path_factory.mktemp("rounds"),
        policy_url=nowhere,
        prm_url=nowhere,
        sandbox_url=nowhere,
    )
    with served(build_trainer(own), own) as url:
        yield url


def through(app: FastAPI, key: str | None) -> httpx.AsyncClient:
    headers = {} if key is None else {"authorization": f"Bearer {key}"}
    return httpx.AsyncClient(
        transport=httpx.ASGITransport(app), base_url="http://127.0.0.1", headers=headers, timeout=60
    )


@pytest.fixture(scope="module")
async def app(settings: dict[str, Any], trainer_url: str) -> AsyncIterator[FastAPI]:
    app = build_app(SearchSettings(**settings, trainer_url=trainer_url))
    yield app
    await app.state.trainer.aclose()


@pytest.fixture
async def search(app: FastAPI) -> AsyncIterator[httpx.AsyncClient]:
    async with through(app, OPERATORS_KEY) as client:
        yield client


async def test_what_the_trainer_says_is_said_here(
    search: httpx.AsyncClient, trainer_url: str, rounds: list[tuple[str, str]]
) -> None:
    (first, run), (second, _) = rounds
    headers = {"authorization": f"Bearer {OPERATORS_KEY}"}
    async with httpx.AsyncClient(base_url=trainer_url, headers=headers, trust_env=False) as trainer:
        for path in (
            "/rounds",
            f"/rounds?run={run}&limit=1",
            f"/rounds/{second}",
            f"/rounds/{first}/quarantine",
            f"/runs/{run}/quarantine",
            "/models?kind=policy",
            f"/models/{VERSION}",
            f"/models/{VERSION}/lineage",
            "/pairs",
            "/calibrations",
            "/strategies",
            # And what it refuses.
            "/rounds/00000000-0000-0000-0000-000000000000",
            "/runs/nobodys/quarantine",
            "/models/nobody@0",
        ):
            here, there = await search.get(path), await trainer.get(path)
            assert (here.status_code, here.json()) == (there.status_code, there.json()), path
            assert here.headers["content-type"] == there.headers["content-type"]
    assert len((await search.get(f"/rounds?run={run}")).json()["rounds"]) == 1


async def test_a_change_is_made_there_and_audited_once_under_the_callers_name(
    app: FastAPI, search: httpx.AsyncClient, rounds: list[tuple[str, str]]
) -> None:
    (over, run), _ = rounds
    async with app.router.lifespan_context(app):
        made = await search.post("/keys", json={"name": "steering", "scope": "admin"})
        async with through(app, made.json()["key"]) as client:
            [aside] = (await client.get(f"/runs/{run}/quarantine")).json()["problems"]
            answer = await client.post(f"/runs/{run}/quarantine/{aside['id']}/overrule")
            assert answer.json()["overruled_at"] is not None
            refused = await client.post(f"/rounds/{over}/pause")
            assert (refused.status_code, refused.json()["detail"]) == (409, "The round is over: promoted.")
            assert (await client.post("/pairs/rollback", json={"pair": 0})).status_code == 422
            async with asyncio.timeout(30):
                while len(entries := (await search.get("/audit?key=steering")).json()["entries"]) < 3:
                    await asyncio.sleep(0.1)
            await asyncio.sleep(1.0)
            entries = (await search.get("/audit?key=steering")).json()["entries"]
    calls = sorted((e["service"], e["route"], e["status"]) for e in entries)
    assert calls == [
        ("search", "/pairs/rollback", 422),
        ("trainer", "/rounds/{round_id}/pause", 409),
        ("trainer", "/runs/{run}/quarantine/{problem}/overrule", 200),
    ]


async def test_a_key_of_the_scope_solve_sees_no_round(app: FastAPI, search: httpx.AsyncClient) -> None:
    made = await search.post("/keys", json={"name": "curious"})
    async with through(app, made.json()["key"]) as client:
        for path in ("/rounds", "/models", f"/models/{VERSION}/lineage"):
            assert (await client.get(path)).status_code == 403
        assert (await client.post("/pairs/rollback", json={"pair": 1})).status_code == 403


async def test_nothing_else_of_the_trainer_is_reached(search: httpx.AsyncClient) -> None:
    for path in ("/models/a/%2e%2e/%2e%2e/metrics", "/models/a/..%2f..%2fopenapi.json/lineage"):
        assert (await search.get(path)).status_code == 404, path
    assert (await search.post("/rounds", json={"run": "x"})).status_code == 405
    assert (await search.post("/models", json={})).status_code == 405


async def test_while_the_trainer_is_away_callers_are_told_to_come_back(settings: dict[str, Any]) -> None:
    app = build_app(SearchSettings(**settings, trainer_url=f"http://127.0.0.1:{free_port()}"))
    async with through(app, OPERATORS_KEY) as client:
        for answer in (await client.get("/rounds"), await client.post("/pairs/rollback", json={"pair": 1})):
            assert (answer.status_code, answer.headers["content-type"]) == (503, "application/problem+json")
            assert int(answer.headers["retry-after"]) > 0
            assert "trainer" in answer.json()["detail"]
        assert "is not known" in answer.json()["detail"], "whether a change was made"
        assert (await client.get("/searches")).status_code == 200


async def test_a_read_is_sent_again_and_a_change_once(settings: dict[str, Any]) -> None:
    heard: list[str] = []
    double = FastAPI()

    @double.api_route("/{path:path}", methods=["GET", "POST"], status_code=503)
    async def busy(path: str) -> None:
        heard.append(path)

    def asked(serve: Serve) -> FastAPI:
        return build_app(SearchSettings(**settings, trainer_url=serve(double)))

    with serving() as serve:
        async with through(asked(serve), OPERATORS_KEY) as client:
            assert (await client.get("/pairs")).status_code == 503
            assert (await client.post("/pairs/rollback", json={"pair": 1})).status_code == 503
    assert heard.count("pairs") > 1
    assert heard.count("pairs/rollback") == 1


async def test_a_trainer_that_knows_another_key_is_told_apart_from_a_wrong_key(
    settings: dict[str, Any], trainer_url: str, tmp_path: Path
) -> None:
    (tmp_path / "key").write_text("another-operators-key")
    app = build_app(
        SearchSettings(**settings | {"admin_key_file": tmp_path / "key"}, trainer_url=trainer_url)
    )
    async with through(app, "another-operators-key") as client:
        answer = await client.get("/rounds")
    assert answer.status_code == 502
    assert "RATCHET_ADMIN_KEY_FILE" in answer.json()["detail"]
