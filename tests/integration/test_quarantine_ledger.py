"""The ledger of problems set aside, in a real Postgres and through the trainer's API: a person overrules its entries."""

import re
from collections.abc import AsyncIterator

import httpx
import pytest
from alembic import command
from sqlalchemy import Connection, text
from sqlalchemy.ext.asyncio import AsyncEngine

from ratchet.contracts.round_metrics import RoundMetrics
from ratchet.contracts.rounds import Disagreement, Quarantined
from ratchet.problems import problem_id
from ratchet.settings import TrainerSettings
from ratchet.states import RoundState
from ratchet.store import tables as t
from ratchet.store.engine import make_engine, transaction
from ratchet.store.ids import new_id
from ratchet.store.migrate import alembic_config, migrate
from ratchet.store.round_searches import RoundSearchStore
from ratchet.store.rounds import RoundClaim, RoundStore
from services.trainer.app import build_app
from tests.integration.round_claims import a_run, begin, claim_round, problems, requests

WHY = Disagreement(answer="41", programs=3, prm_score=0.9)


@pytest.fixture
async def store(engine: AsyncEngine) -> AsyncIterator[RoundStore]:
    """With no round in it that a trainer could take up."""
    yield RoundStore(engine)
    async with transaction(engine) as connection:
        await connection.execute(t.rounds.update().values(state=RoundState.FAILED))


async def next_round(store: RoundStore, run: str, *texts: str) -> RoundClaim:
    """The next round of a run, which has these problems and is held."""
    await begin(store, run)
    claim = await claim_round(store)
    await store.add_problems(claim, "train", problems(*texts))
    return claim


async def test_the_searches_of_what_is_set_aside_are_named_with_it(
    store: RoundStore, engine: AsyncEngine
) -> None:
    texts = ["One?", "Two?"]
    claim = await next_round(store, a_run(), *texts)
    searches = RoundSearchStore(engine)
    first = await searches.plan(claim, "label", 0, requests(texts))
    again = await searches.plan(claim, "label", 1, {1: requests(texts)[1]})
    await searches.plan(claim, "candidate.held_out.mcts", 0, requests(texts))
    await store.quarantine(claim, {1: WHY})
    [aside] = await store.quarantined(round_id=claim.id)
    assert aside.searches == [str(first[1].id), str(again[0].id)]


async def end(store: RoundStore, claim: RoundClaim) -> None:
    await store.advance(claim, RoundState.FAILED, RoundMetrics(), "x")


async def test_what_is_set_aside_is_listed_for_its_round_and_its_run(store: RoundStore) -> None:
    run = a_run()
    first = await next_round(store, run, "Wrong one?", "Good one?")
    for _ in range(2):
        await store.quarantine(first, {0: WHY})
    await end(store, first)
    second = await next_round(store, run, "Good one?", "Another?")
    await store.quarantine(second, {1: WHY})
    found = await store.quarantined(run=run)
    assert [(each.problem, each.round) for each in found] == [("Wrong one?", 1), ("Another?", 2)]
    [aside] = await store.quarantined(round_id=first.id)
    assert aside == Quarantined(
        id=problem_id("Wrong one?", "42"),
        problem="Wrong one?",
        reference="42",
        source="file:1",
        round=1,
        created_at=aside.created_at,
        overruled_at=None,
        **WHY.model_dump(),
    )
    assert await store.quarantined(run=a_run()) == []


async def test_a_stage_that_runs_again_enters_what_it_finds_then(store: RoundStore) -> None:
    claim = await next_round(store, a_run(), "One?", "Two?", "Three?")
    await store.quarantine(claim, {0: WHY, 1: WHY})
    await store.quarantine(claim, {1: WHY, 2: WHY})
    assert {each.problem for each in await store.quarantined(round_id=claim.id)} == {"Two?", "Three?"}


async def test_what_was_overruled_stays_overruled_whatever_rounds_find_later(store: RoundStore) -> None:
    run = a_run()
    first = await next_round(store, run, "One?", "Two?")
    await store.quarantine(first, {0: WHY, 1: WHY})
    one = problem_id("One?", "42")
    overruled = await store.overrule(run, one)
    assert overruled is not None
    assert overruled.overruled_at is not None
    assert await store.overrule(run, one) == overruled, "once is enough"
    await store.quarantine(first, {0: WHY})
    await end(store, first)
    second = await next_round(store, run, "One?")
    await store.quarantine(second, {0: WHY})
    assert await store.quarantined(run=run) == [overruled]
    assert await store.overrule(a_run(), one) is None, "another run decides for itself"


@pytest.fixture
async def api(engine: AsyncEngine, database_url: str) -> AsyncIterator[httpx.AsyncClient]:
    # Without what runs beside its API: the round machine would take the rounds of these tests up.
    transport = httpx.ASGITransport(build_app(TrainerSettings(database_url=database_url)))
    async with httpx.AsyncClient(transport=transport, base_url="http://trainer") as client:
        yield client


async def test_a_person_lists_and_overrules_over_http(store: RoundStore, api: httpx.AsyncClient) -> None:
    run = a_run()
    claim = await next_round(store, run, "One?", "Two?")
    await store.quarantine(claim, {0: WHY, 1: WHY})
    one = problem_id("One?", "42")
    listed = (await api.get(f"/runs/{run}/quarantine")).json()["problems"]
    assert listed == (await api.get(f"/rounds/{claim.id}/quarantine")).json()["problems"]
    assert {(each["problem"], each["overruled_at"]) for each in listed} == {("One?", None), ("Two?", None)}
    answer = await api.post(f"/runs/{run}/quarantine/{one}/overrule", json={"reason": "It counts both."})
    assert answer.status_code == 200, answer.text
    assert answer.json()["overruled_because"] == "It counts both."
    again = await api.post(f"/runs/{run}/quarantine/{one}/overrule")
    assert again.json() == answer.json()
    listed = (await api.get(f"/runs/{run}/quarantine")).json()["problems"]
    assert [each["id"] for each in listed if each["overruled_at"] is not None] == [one]


@pytest.mark.parametrize(
    ("method", "path", "status", "says"),
    [
        ("GET", "/runs/nowhere/quarantine", 404, "There is no run nowhere."),
        ("GET", "/runs/a b/quarantine", 422, "run"),
        ("POST", f"/runs/nowhere/quarantine/{'0' * 16}/overrule", 404, "has set no problem"),
        ("POST", "/runs/nowhere/quarantine/x/overrule", 422, "problem"),
    ],
)
async def test_what_there_is_not_is_named(
    store: RoundStore, api: httpx.AsyncClient, method: str, path: str, status: int, says: str
) -> None:
    answer = await api.request(method, path)
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    assert says in answer.json()["detail"]


async def test_what_rounds_have_set_aside_before_there_was_a_ledger_comes_along(database_url: str) -> None:
    admin = make_engine(database_url)
    url = re.sub(r"/[^/]+$", f"/before_{new_id().hex}", database_url)
    async with admin.execution_options(isolation_level="AUTOCOMMIT").connect() as connection:
        await connection.execute(text(f"CREATE DATABASE {url.rpartition('/')[2]}"))
    engine = make_engine(url)

    def to_nine(connection: Connection) -> None:
        config = alembic_config()
        config.attributes["connection"] = connection
        command.upgrade(config, "0009")

    one, two = new_id(), new_id()
    rounds = [new_id(), new_id(), new_id()]
    async with transaction(engine) as connection:
        await connection.run_sync(to_nine)
        for problem, said in ((one, "One?"), (two, "Two?")):
            await connection.execute(
                text("INSERT INTO problems (id, sha256, text) VALUES (:id, :said, :said)"),
                {"id": problem, "said": said},
            )
        for number, round_id in enumerate(rounds):
            await connection.execute(
                text("INSERT INTO rounds (id, run, number, state) VALUES (:id, :run, :number, 'failed')"),
                {"id": round_id, "run": "a" if number < 2 else "b", "number": number + 1},
            )
            for place, problem in enumerate((one, two)):
                await connection.execute(
                    text(
                        "INSERT INTO round_problems (round_id, split, place, problem_id, answer, family, source, quarantine)"
                        " VALUES (:round, 'train', :place, :problem, '42', 'f', 's', CAST(:why AS jsonb))"
                    ),
                    {
                        "round": round_id,
                        "place": place,
                        "problem": problem,
                        # Both rounds of run a have set One aside, and the round of run b has set Two aside.
                        "why": WHY.model_dump_json() if (place == 1) == (number == 2) else None,
                    },
                )
    await migrate(engine)
    store = RoundStore(engine)
    assert [(each.problem, each.round, each.answer) for each in await store.quarantined(run="a")] == [
        ("One?", 1, "41")
    ]
    assert [each.problem for each in await store.quarantined(round_id=rounds[2])] == ["Two?"]
    await engine.dispose()
    async with admin.execution_options(isolation_level="AUTOCOMMIT").connect() as connection:
        await connection.execute(text(f"DROP DATABASE {url.rpartition('/')[2]}"))
    await admin.dispose()
