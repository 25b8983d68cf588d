"""The search API over real HTTP, Postgres and Redis. The worker's part is played through the store, by hand."""

import asyncio
import json
import time
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import httpx
import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from ratchet.contracts.sandbox import StepStatus
from ratchet.contracts.search import (
    Budget,
    EventKind,
    Parent,
    Proof,
    ProofProgram,
    SearchRequest,
    SearchResult,
    StatedQuantity,
    StrategyName,
    StrategyParameters,
    Usage,
    Verification,
    VerificationLevel,
)
from ratchet.events import Event, Events
from ratchet.queue import SearchQueue
from ratchet.settings import SearchSettings
from ratchet.stack.valkey import running_valkey
from ratchet.states import NodeState, SearchState
from ratchet.store.engine import transaction
from ratchet.store.ids import new_id
from ratchet.store.nodes import NodeRecord
from ratchet.store.search_results import SearchOutcome
from ratchet.store.searches import Claim, SearchStore
from services.search.app import build_app
from tests.served_app import served

VERIFIED = Verification(
    level=VerificationLevel.AGREEMENT,
    votes=3,
    total_votes=4,
    independent_programs=2,
    forms=2,
    grounded=True,
    prm_share=0.8,
    confidence=0.9,
)
ROOT = NodeRecord(id="root", parent=None, ordinal=0, depth=0, state=NodeState.OPEN, task="root")


@pytest.fixture(scope="module")
def search_settings(database_url: str, redis_url: str) -> SearchSettings:
    return SearchSettings(database_url=database_url, redis_url=redis_url, queue_name="api-tests")


@pytest.fixture(scope="module")
def base_url(search_settings: SearchSettings, engine: AsyncEngine) -> Iterator[str]:
    with served(build_app(search_settings), search_settings) as url:
        yield url


@pytest.fixture(scope="module")
async def api(base_url: str) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(base_url=base_url, timeout=20) as client:
        yield client


async def begin_search(store: SearchStore, **changes: Any) -> Claim:
    search_id, _ = await store.create(SearchRequest.model_validate({"problem": "6 * 7?", **changes}), None)
    claim = await store.claim(search_id, "w", 60, 5)
    assert claim is not None
    return claim


async def solve(store: SearchStore, claim: Claim, **changes: Any) -> SearchResult:
    outcome = SearchOutcome(answer="42", program="print(42)", verification=VERIFIED, usage=Usage(nodes=1))
    await store.finish(claim, SearchState.SOLVED_VERIFIED, replace(outcome, **changes))
    result = await store.result(claim.id)
    assert result is not None
    return result


def is_problem(response: httpx.Response, status: int) -> dict[str, Any]:
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/problem+json"
    document: dict[str, Any] = response.json()
    assert document["status"] == status
    assert "Traceback" not in response.text
    return document


async def sse(
    api: httpx.AsyncClient, path: str, headers: dict[str, str] | None = None
) -> list[dict[str, str]]:
    """All events of a stream, until the server ends it."""
    found: list[dict[str, str]] = []
    current: dict[str, str] = {}
    async with api.stream("GET", path, headers=headers) as response:
        assert response.status_code == 200
        assert response.headers["content-type"].startswith("text/event-stream")
        async for line in response.aiter_lines():
            if not line and current:
                found.append(current)
                current = {}
            elif line and not line.startswith(":"):
                name, _, value = line.partition(": ")
                current[name] = value
    return found


async def test_a_posted_search_is_stored_queued_and_shown(
    api: httpx.AsyncClient, store: SearchStore, search_settings: SearchSettings
) -> None:
    queue = SearchQueue(search_settings.redis_url, search_settings.queue_name)
    before = await queue.depth()
    response = await api.post(
        "/search", json={"problem": "6 * 7?", "reference_answer": "secret-42", "seed": 3}
    )
    assert response.status_code == 202
    result = SearchResult.model_validate(response.json())
    assert response.headers["location"] == f"/search/{result.id}"
    assert (result.state, result.problem, result.seed) == (SearchState.QUEUED, "6 * 7?", 3)
    assert result.asked is not None
    assert (result.asked.budget, result.asked.require) == (Budget(), VerificationLevel.AGREEMENT)
    assert await queue.depth() == before + 1
    await queue.aclose()
    for path in ("", "/tree"):
        shown = await api.get(response.headers["location"] + path)
        assert shown.status_code == 200
        assert "secret-42" not in shown.text
    assert (await api.get("/searches")).json()["searches"][0]["id"] == result.id
    asked: dict[str, str | int] = {"text": "6 * 7", "state": "queued", "strategy": "mcts", "limit": 1}
    assert (await api.get("/searches", params=asked)).json()["searches"][0]["id"] == result.id
    assert (await api.get("/searches", params=asked | {"level": "execution"})).json()["searches"] == []
    for field, value in (("text", "a\0b"), ("text", " "), ("model", "no version"), ("level", "best")):
        document = is_problem(await api.get("/searches", params={field: value}), 422)
        assert [each["field"] for each in document["errors"]] == [field]


async def test_a_branch_is_a_search_of_its_own_that_knows_its_parent(
    api: httpx.AsyncClient, store: SearchStore, engine: AsyncEngine
) -> None:
    claim = await begin_search(store, reference_answer="secret-42", seed=3, budget={"tokens": 900})
    step = NodeRecord("n1", "root", 1, 1, NodeState.OPEN, "0", "x = 6", StepStatus.OK)
    await store.journal(claim, [ROOT, step], Usage())
    path = f"/search/{claim.id}/branch"
    headers = {"idempotency-key": uuid4().hex}
    body = {"node": "n1", "edit": {"text": "x = 7"}, "budget": {"tokens": 50}}
    begun = await api.post(path, json=body, headers=headers)
    assert begun.status_code == 202
    assert "secret-42" not in begun.text
    new = SearchResult.model_validate(begun.json())
    assert (new.seed, new.problem) == (3, "6 * 7?")
    assert new.parent == Parent(search=str(claim.id), node="n1")
    listed = (await api.get("/searches")).json()["searches"][0]
    assert (listed["id"], listed["parent"]) == (new.id, new.parent.model_dump())
    again = await api.post(path, json=body, headers=headers)
    assert again.json()["id"] == new.id
    is_problem(await api.post(path, json=body | {"seed": 4}, headers=headers), 409)

    taken = await store.claim(UUID(new.id), "w", 60, 5)
    assert taken is not None
    assert taken.beginning is not None
    assert (taken.beginning.steps, taken.beginning.edited) == (["x = 7"], True)
    assert (taken.request.budget.tokens, taken.has_reference) == (50, True)
    assert await store.reference_answer(taken) == "secret-42"

    await store.finish(claim, SearchState.BUDGET_EXHAUSTED, SearchOutcome())
    for wrong, status, field in (
        ({"node": "n9"}, 404, "node"),
        ({"node": "n1", "forbid": True, "edit": {"text": "x"}}, 422, "forbid"),
        ({"node": "n1", "edit": {"text": " "}}, 422, "edit.text"),
        ({"node": "n1", "edit": {"text": "#" * 100_001}}, 422, "edit.text"),
    ):
        document = is_problem(await api.post(path, json=wrong), status)
        assert [each["field"] for each in document["errors"]] == [field]
    is_problem(await api.post(f"/search/{uuid4()}/branch", json={"node": "n1"}), 404)
    async with transaction(engine) as connection:
        await connection.execute(text("DELETE FROM nodes WHERE search_id = :id"), {"id": claim.id})
    is_problem(await api.post(path, json={"node": "n1"}), 409)
    assert (await api.post(path, json={"node": "root", "seed": 9})).status_code == 202


async def test_waiting_gives_the_result_when_it_comes_in_time(
    api: httpx.AsyncClient, store: SearchStore
) -> None:
    async def work() -> None:
        while True:
            waiting = await store.find_lapsed(queued_seconds=-1)
            for one in waiting:
                result = await store.result(one.id)
                if result is not None and result.problem == "wait for me":
                    claim = await store.claim(one.id, "w", 60, 5)
                    assert claim is not None
                    await solve(store, claim)
                    return
            await asyncio.sleep(0.05)

    working = asyncio.create_task(work())
    began = time.monotonic()
    response = await api.post("/search", json={"problem": "wait for me", "wait": 15})
    await working
    assert response.status_code == 200
    assert response.json()["answer"] == "42"
    assert time.monotonic() - began < 8
    began = time.monotonic()
    late = await api.post("/search", json={"problem": "nobody comes", "wait": 0.3})
    assert late.status_code == 202
    assert 0.3 <= time.monotonic() - began < 3


async def test_a_caller_who_goes_away_does_not_cancel(api: httpx.AsyncClient, store: SearchStore) -> None:
    key = new_id().hex
    body = {"problem": "impatient", "wait": 30}
    with pytest.raises(httpx.ReadTimeout):
        await api.post("/search", json=body, headers={"Idempotency-Key": key}, timeout=0.5)
    again = await api.post("/search", json=body | {"wait": 0}, headers={"Idempotency-Key": key})
    assert (again.status_code, again.json()["state"]) == (202, "queued")


async def test_a_retry_with_its_key_gets_the_same_search(api: httpx.AsyncClient) -> None:
    headers = {"Idempotency-Key": new_id().hex}
    first, second = [await api.post("/search", json={"problem": "6 * 7?"}, headers=headers) for _ in range(2)]
    assert first.json()["id"] == second.json()["id"]
    other = await api.post("/search", json={"problem": "6 * 8?"}, headers=headers)
    assert "Idempotency-Key" in is_problem(other, 409)["detail"]


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({}, "problem"),
        ({"problem": ""}, "problem"),
        ({"problem": " \n"}, "problem"),
        ({"problem": "x" * 1_000_000}, "problem"),
        ({"problem": "a\x00b"}, "problem"),
        ({"problem": ["not text"]}, "problem"),
        ({"problem": "x", "strategy": "luck"}, "strategy"),
        ({"problem": "x", "budget": {"tokens": -1}}, "budget.tokens"),
        ({"problem": "x", "parameters": {"rollouts": 0}}, "parameters.rollouts"),
        ({"problem": "x", "parametres": {}}, "parametres"),
        ({"problem": "x", "seed": 2**70}, "seed"),
        ({"problem": "x", "reference_answer": " \t"}, "reference_answer"),
    ],
)
async def test_a_bad_request_is_told_which_field(
    api: httpx.AsyncClient, body: dict[str, Any], field: str
) -> None:
    document = is_problem(await api.post("/search", json=body), 422)
    assert field in [error["field"] for error in document["errors"]]


@pytest.mark.parametrize(
    ("body", "field"),
    [
        (r'{"problem": "half of \ud83d"}', "problem"),
        (r'{"problem": "x", "reference_answer": "\udc00"}', "reference_answer"),
        ('{"problem": "x", "budget": {"seconds": NaN}}', "budget.seconds"),
        ('{"problem": "x", "budget": {"seconds": Infinity}}', "budget.seconds"),
        ('{"problem": "x", "seed": 1e999}', "seed"),
    ],
)
async def test_what_no_json_document_may_say_is_told_in_one(
    api: httpx.AsyncClient, body: str, field: str
) -> None:
    asked = await api.post("/search", content=body, headers={"Content-Type": "application/json"})
    assert [error["field"] for error in is_problem(asked, 422)["errors"]] == [field]


@pytest.mark.parametrize("path", ["", "/tree", "/tree?format=dot", "/events", "/proof"])
async def test_unknown_and_malformed_ids_are_problems(api: httpx.AsyncClient, path: str) -> None:
    is_problem(await api.get(f"/search/{new_id()}{path}"), 404)
    is_problem(await api.get(f"/search/nonsense{path}"), 422)
    is_problem(await api.delete(f"/search/{new_id()}"), 404)
    is_problem(await api.delete("/search/nonsense"), 422)


async def test_events_come_in_order_end_and_can_be_resumed(
    api: httpx.AsyncClient, store: SearchStore, events: Events
) -> None:
    claim = await begin_search(store)
    path = f"/search/{claim.id}/events"
    state = {"state": "running", "reason": None}

    async def work() -> None:
        await events.publish(claim.id, [Event(EventKind.STATE, state)])
        for number in range(3):
            await asyncio.sleep(0.05)
            shown = replace(ROOT, id=f"n{number}").view().model_dump(mode="json")
            await events.publish(claim.id, [Event(EventKind.NODE, shown)])
        result = await solve(store, claim)
        await events.publish(claim.id, [Event(EventKind.END, result.model_dump(mode="json"))])

    live, _ = await asyncio.gather(sse(api, path), work())
    assert [event["event"] for event in live] == ["state", "node", "node", "node", "end"]
    assert json.loads(live[0]["data"]) == state
    assert SearchResult.model_validate_json(live[-1]["data"]).answer == "42"
    ids = [event["id"] for event in live]
    assert await sse(api, path) == live, "from the beginning, once more"
    assert [e["id"] for e in await sse(api, path, {"Last-Event-ID": ids[1]})] == ids[2:]
    assert [e["id"] for e in await sse(api, f"{path}?after={ids[2]}")] == ids[3:]
    assert (await api.get(path, headers={"Last-Event-ID": ids[-1]})).status_code == 204, (
        "EventSource stops here"
    )
    is_problem(await api.get(f"{path}?after=yesterday"), 422)


async def test_a_search_whose_events_are_gone_still_tells_its_end(
    api: httpx.AsyncClient, store: SearchStore
) -> None:
    claim = await begin_search(store)
    await solve(store, claim)
    shown = await sse(api, f"/search/{claim.id}/events")
    assert [event["event"] for event in shown] == ["state", "end"]
    assert json.loads(shown[0]["data"])["state"] == "solved_verified"
    assert json.loads(shown[1]["data"])["answer"] == "42"


async def test_a_reader_hears_of_an_end_that_nobody_published(
    api: httpx.AsyncClient, store: SearchStore
) -> None:
    claim = await begin_search(store)
    reading = asyncio.create_task(sse(api, f"/search/{claim.id}/events"))
    await asyncio.sleep(0.3)
    await solve(store, claim)
    assert [event["event"] for event in await asyncio.wait_for(reading, 10)] == ["state", "end"]


async def test_the_tree_is_json_or_valid_graphviz(api: httpx.AsyncClient, store: SearchStore) -> None:
    claim = await begin_search(store)
    nasty = 'x = "a\\n"\nprint(x) # "];} \\ é'
    child = replace(ROOT, id="n1", parent="root", ordinal=1, depth=1, text=nasty, answer='4"2', prm_score=0.5)
    await store.journal(claim, [ROOT, child], Usage())
    tree = await api.get(f"/search/{claim.id}/tree")
    assert [node["id"] for node in tree.json()["nodes"]] == ["root", "n1"]
    dot = await api.get(f"/search/{claim.id}/tree?format=dot")
    assert dot.headers["content-type"].startswith("text/vnd.graphviz")
    edges, labels = parsed_dot(dot.text)
    assert edges == [("root", "n1")]
    assert labels["n1"] == nasty + '\nN=0 Q=0.00 PRM=0.50\n= 4"2\n'
    is_problem(await api.get(f"/search/{claim.id}/tree?format=png"), 422)


def parsed_dot(source: str) -> tuple[list[tuple[str, str]], dict[str, str]]:
    """The edges and labels, by the grammar of Graphviz's quoted strings; fails on what the grammar does not allow."""
    edges, labels = [], {}
    lines = source.splitlines()
    assert (lines[0], lines[-1]) == ("digraph search {", "}")
    for line in lines[2:-1]:
        strings, rest, place = [], "", 0
        while place < len(line):
            if line[place] == '"':
                text, place = "", place + 1
                while line[place] != '"':
                    if line[place] == "\\":
                        text += {"l": "\n", '"': '"', "\\": "\\"}[line[place + 1]]
                        place += 1
                    else:
                        text += line[place]
                    place += 1
                strings.append(text)
                rest += "S"
            else:
                rest += line[place]
            place += 1
        if rest == "  S -> S;":
            edges.append((strings[0], strings[1]))
        else:
            assert rest == "  S [label=S, fillcolor=S];"
            labels[strings[0]] = strings[1]
    return edges, labels


async def test_cancelling_is_idempotent_and_keeps_the_best_answer(
    api: httpx.AsyncClient, store: SearchStore
) -> None:
    queued = (await api.post("/search", json={"problem": "6 * 7?"})).headers["location"]
    for _ in range(2):
        response = await api.delete(queued)
        assert (response.status_code, response.json()["state"]) == (200, "cancelled")
    assert [event["event"] for event in await sse(api, f"{queued}/events")] == ["state", "state", "end"]
    claim = await begin_search(store)
    for _ in range(2):
        assert (await api.delete(f"/search/{claim.id}")).status_code == 202
    assert await store.renew(claim, 60) is True
    await store.finish(claim, SearchState.CANCELLED, SearchOutcome(answer="41"))
    after = await api.delete(f"/search/{claim.id}")
    assert (after.status_code, after.json()["answer"]) == (200, "41")


async def test_a_proof_is_given_or_the_reason_why_not(api: httpx.AsyncClient, store: SearchStore) -> None:
    claim = await begin_search(store)
    path = f"/search/{claim.id}/proof"
    is_problem(await api.get(path), 409)
    bundle = Proof(
        search=str(claim.id),
        problem="6 * 7?",
        answer="42",
        verification=VERIFIED,
        quantities=[StatedQuantity(text="6", start=0, values=["6"])],
        variants=[{"6": "12"}],
        programs=[
            ProofProgram(
                steps=["print(6 * 7)"], stdout=["42\n"], found=2, answers=["number:84"], sha256="0" * 64
            )
        ],
        seed=0,
        strategy=StrategyName.MCTS,
        parameters=StrategyParameters(),
        models={},
        versions={},
        usage=Usage(),
        created_at=datetime.now(UTC),
        sha256="1" * 64,
    )
    await solve(store, claim, proof=bundle.model_dump(mode="json"))
    given = await api.get(path)
    assert given.status_code == 200
    assert Proof.model_validate(given.json()) == bundle
    without = await begin_search(store)
    await store.finish(without, SearchState.BUDGET_EXHAUSTED, SearchOutcome())
    is_problem(await api.get(f"/search/{without.id}/proof"), 404)


async def test_the_api_puts_jobs_for_searches_that_lost_theirs(
    store: SearchStore, api: httpx.AsyncClient, search_settings: SearchSettings
) -> None:
    queue = SearchQueue(search_settings.redis_url, search_settings.queue_name)
    before = await queue.depth()
    search_id, _ = await store.create(SearchRequest(problem="orphan"), None)
    assert await store.claim(search_id, "dead", 0.01, 5) is not None
    deadline = time.monotonic() + 10
    while await queue.depth() <= before and time.monotonic() < deadline:
        await asyncio.sleep(0.1)
    assert await queue.depth() > before
    await queue.aclose()


async def test_health_says_what_is_there(api: httpx.AsyncClient) -> None:
    health = await api.get("/health")
    assert health.status_code == 200
    assert (health.json()["detail"]["database"], health.json()["detail"]["redis"]) == ("ok", "ok")


async def test_without_redis_or_postgres_callers_are_told_to_come_back(
    search_settings: SearchSettings, tmp_path: Path, free_port: int, store: SearchStore
) -> None:
    claim = await begin_search(store)
    changes: list[dict[str, Any]] = [
        {"redis_url": f"redis://127.0.0.1:{free_port}/0"},
        {"database_url": f"postgresql+asyncpg://ratchet@127.0.0.1:{free_port}/ratchet"},
    ]
    for change in changes:
        changed = search_settings.model_copy(update=change)
        with served(build_app(changed), changed) as url:
            async with httpx.AsyncClient(base_url=url, timeout=20) as api:
                health = await api.get("/health")
                assert (health.status_code, health.json()["ready"]) == (503, False)
                asked = [
                    await api.post("/search", json={"problem": "6 * 7?"}),
                    await api.get(f"/search/{claim.id}/events"),
                ]
                if "database_url" in change:
                    asked += [await api.get(f"/search/{claim.id}{path}") for path in ("", "/tree", "/proof")]
                    asked += [await api.get("/searches"), await api.delete(f"/search/{claim.id}")]
                for response in asked:
                    assert "not available" in is_problem(response, 503)["detail"]
                    assert int(response.headers["retry-after"]) > 0
                if "redis_url" in change:
                    assert (await api.get(f"/search/{claim.id}")).status_code == 200
                    # The flag is in Postgres, where the worker reads it.
                    assert (await api.delete(f"/search/{claim.id}")).status_code == 202
                    assert await store.renew(claim, 60) is True


async def test_the_service_recovers_when_redis_comes_back(
    search_settings: SearchSettings, tmp_path: Path, free_port: int
) -> None:
    with running_valkey(tmp_path / "valkey", port=free_port, durable=False) as server:
        changed = search_settings.model_copy(update={"redis_url": server.url()})
    with served(build_app(changed), changed) as url:
        async with httpx.AsyncClient(base_url=url, timeout=20) as api:
            is_problem(await api.post("/search", json={"problem": "6 * 7?"}), 503)
            with running_valkey(tmp_path / "valkey", port=free_port, durable=False):
                deadline = time.monotonic() + 10
                status = 503
                while status == 503 and time.monotonic() < deadline:
                    status = (await api.post("/search", json={"problem": "6 * 7?"})).status_code
                assert status == 202


async def test_the_openapi_document_is_complete(api: httpx.AsyncClient) -> None:
    paths = (await api.get("/openapi.json")).json()["paths"]
    expected = {
        ("/search", "post"): {"200", "202", "409", "422", "503"},
        ("/search/{search_id}", "get"): {"200", "404", "422", "503"},
        ("/search/{search_id}", "delete"): {"200", "202", "404", "422", "503"},
        ("/searches", "get"): {"200", "422", "503"},
        ("/search/{search_id}/events", "get"): {"200", "204", "404", "422", "503"},
        ("/search/{search_id}/tree", "get"): {"200", "404", "422", "503"},
        ("/search/{search_id}/proof", "get"): {"200", "404", "409", "422", "503"},
    }
    for (path, method), statuses in expected.items():
        operation = paths[path][method]
        assert statuses <= set(operation["responses"]), (path, method)
        assert operation["summary"]
    assert "text/event-stream" in paths["/search/{search_id}/events"]["get"]["responses"]["200"]["content"]
    assert "text/vnd.graphviz" in paths["/search/{search_id}/tree"]["get"]["responses"]["200"]["content"]


async def test_a_failed_search_is_taken_up_again_under_its_id_and_key(
    api: httpx.AsyncClient, store: SearchStore
) -> None:
    body, headers = {"problem": "6 * 7, again?"}, {"Idempotency-Key": new_id().hex}
    search_id = (await api.post("/search", json=body, headers=headers)).json()["id"]
    claim = await store.claim(UUID(search_id), "w", 60, 5)
    assert claim is not None
    await store.finish(claim, SearchState.FAILED, SearchOutcome(reason="out of luck"))
    assert (await api.get(f"/search/{search_id}")).json()["state"] == "failed"

    for _ in range(2):
        # Asked again, it changes nothing.
        again = await api.post(f"/search/{search_id}/retry")
        assert (again.status_code, again.headers["location"]) == (202, f"/search/{search_id}")
        found = again.json()
        assert (found["state"], found["reason"], found["ended_at"]) == ("queued", None, None)
    assert (await api.post("/search", json=body, headers=headers)).json()["id"] == search_id
    next_claim = await store.claim(UUID(search_id), "w", 60, 5)
    assert next_claim is not None
    await solve(store, next_claim)
    assert "solved_verified" in is_problem(await api.post(f"/search/{search_id}/retry"), 409)["detail"]
    is_problem(await api.post(f"/search/{new_id()}/retry"), 404)


async def test_a_search_that_is_over_is_given_more_and_concluded_anew(
    api: httpx.AsyncClient, store: SearchStore
) -> None:
    claim = await begin_search(store, budget=Budget(tokens=1000), parameters=StrategyParameters(rollouts=8))
    path = f"/search/{claim.id}"
    await store.journal(claim, [ROOT], Usage(nodes=1))
    assert "running" in is_problem(await api.post(f"{path}/extend", json={"tokens": 2000}), 409)["detail"]
    await solve(store, claim)

    smaller = is_problem(await api.post(f"{path}/extend", json={"tokens": 999}), 422)
    assert [each["field"] for each in smaller["errors"]] == ["tokens"]
    is_problem(await api.post(f"{path}/extend", json={}), 422)
    same = await api.post(f"{path}/extend", json={"tokens": 1000})
    assert (same.status_code, same.json()["state"]) == (202, "solved_verified")
    for _ in range(2):
        # Asked again, it changes nothing.
        more = await api.post(f"{path}/extend", json={"tokens": 2000})
        assert (more.status_code, more.headers["location"]) == (202, path)
        found = more.json()
        assert (found["state"], found["ended_at"], found["answer"]) == ("queued", None, "42")
        assert (found["asked"]["budget"]["tokens"], found["asked"]["parameters"]["rollouts"]) == (2000, 16)
    again = await store.claim(claim.id, "w", 60, 5)
    assert again is not None
    assert (again.request.budget.tokens, again.request.parameters.rollouts) == (2000, 16)
    assert (await solve(store, again, answer="43", usage=Usage(nodes=2))).answer == "43"
    assert (await api.get(path)).json()["verification"]["level"] == "agreement"
    is_problem(await api.post(f"/search/{new_id()}/extend", json={"tokens": 1}), 404)


async def test_what_failed_or_has_no_tree_any_more_is_not_given_more(
    api: httpx.AsyncClient, store: SearchStore
) -> None:
    failed = await begin_search(store)
    await store.finish(failed, SearchState.FAILED, SearchOutcome(reason="out of luck"))
    pruned = await begin_search(store)
    await solve(store, pruned)
    for claim, why in ((failed, "/retry"), (pruned, "no longer kept")):
        refused = is_problem(await api.post(f"/search/{claim.id}/extend", json={"tokens": 90_000}), 409)
        assert why in refused["detail"]
