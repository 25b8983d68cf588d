"""The façade over real HTTP, Postgres and Redis. The worker's part is played through the store, by hand."""

import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from typing import Any
from uuid import UUID

import httpx
import pytest
import schemathesis
from sqlalchemy.ext.asyncio import AsyncEngine

from ratchet.contracts.keys import KeyLimits, KeyRequest
from ratchet.contracts.sandbox import StepStatus
from ratchet.contracts.search import EventKind, Usage, UsagePart, Verification, VerificationLevel
from ratchet.events import Event, Events, end_event, node_event
from ratchet.settings import SearchSettings
from ratchet.states import NodeState, SearchState
from ratchet.store.ids import new_id
from ratchet.store.keys import KeyStore
from ratchet.store.nodes import NodeRecord
from ratchet.store.search_results import SearchOutcome
from ratchet.store.searches import Claim, SearchStore
from ratchet.web.door import secrets
from services.search import following
from services.search.app import build_app
from tests.served_app import served

PROBLEM = "6 rows of 7 seats. How many seats are there?"
VERIFIED = Verification(
    level=VerificationLevel.AGREEMENT, votes=3, total_votes=4, independent_programs=2, forms=2, grounded=True,
    prm_share=0.8, confidence=0.9,
)  # fmt: skip
SOLVED = SearchOutcome(
    answer="42",
    program="print(6 * 7)",
    verification=VERIFIED,
    usage=Usage(policy=UsagePart(calls=1, tokens=120, prompt_tokens=30)),
)
SECONDS = 30


@pytest.fixture(scope="module")
def search_settings(database_url: str, redis_url: str) -> SearchSettings:
    return SearchSettings(database_url=database_url, redis_url=redis_url, queue_name="facade-tests")


@pytest.fixture(scope="module")
def base_url(search_settings: SearchSettings, engine: AsyncEngine) -> Iterator[str]:
    with pytest.MonkeyPatch.context() as patch:
        # Often, so that a test sees some.
        patch.setattr(following, "HEARTBEAT_SECONDS", 0.1)
        with served(build_app(search_settings), search_settings) as url:
            yield url


@pytest.fixture
async def api(base_url: str) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(base_url=base_url, timeout=SECONDS) as client:
        yield client


class Asked:
    """Finds the searches that a completion began."""

    def __init__(self, store: SearchStore) -> None:
        self._store = store
        self._known: set[str] = set()

    async def look(self) -> None:
        """What is there now is not ours."""
        self._known = {each.id for each in (await self._store.list_recent(200)).searches}

    async def next(self) -> UUID:
        """A search that was begun since, and that nobody was told of."""
        async with asyncio.timeout(SECONDS):
            while True:
                page = await self._store.list_recent(200)
                for each in reversed(page.searches):
                    if each.id not in self._known:
                        self._known.add(each.id)
                        return UUID(each.id)
                await asyncio.sleep(0.02)


@pytest.fixture
async def asked(store: SearchStore) -> Asked:
    found = Asked(store)
    await found.look()
    return found


async def claim(store: SearchStore, search_id: UUID) -> Claim:
    claimed = await store.claim(search_id, "w", 60, 5)
    assert claimed is not None
    return claimed


def step(number: int) -> Event:
    record = NodeRecord(
        id=f"n{number}", parent="root", ordinal=number, depth=1, state=NodeState.OPEN, task="t",
        text=f"x = {number}", status=StepStatus.OK,
    )  # fmt: skip
    return node_event(record.view())


async def until_over(store: SearchStore, search_id: UUID, state: SearchState) -> None:
    async with asyncio.timeout(SECONDS):
        while await store.state(search_id) is not state:
            await asyncio.sleep(0.02)


def body(**changes: Any) -> dict[str, Any]:
    return {"model": "ratchet", "messages": [{"role": "user", "content": PROBLEM}], **changes}


class Lines:
    """The lines of a stream, one at a time."""

    def __init__(self, response: httpx.Response) -> None:
        self.raw: list[str] = []
        self._lines = response.aiter_lines()

    async def chunk(self) -> dict[str, Any] | str:
        """The next event."""
        async with asyncio.timeout(SECONDS):
            async for line in self._lines:
                self.raw.append(line)
                if line.startswith("data: "):
                    data = line.removeprefix("data: ")
                    return data if data == "[DONE]" else dict(json.loads(data))
        raise AssertionError(f"the stream ended: {self.raw}")

    async def delta(self) -> dict[str, Any]:
        """What the next event adds."""
        chunk = await self.chunk()
        assert isinstance(chunk, dict)
        found: dict[str, Any] = chunk["choices"][0]["delta"]
        return found


async def test_steps_are_streamed_before_the_search_is_over(
    api: httpx.AsyncClient, store: SearchStore, events: Events, asked: Asked
) -> None:
    options = body(stream=True, stream_options={"include_usage": True})
    async with api.stream("POST", "/v1/chat/completions", json=options) as response:
        assert response.headers["content-type"].startswith("text/event-stream")
        lines = Lines(response)
        assert await lines.delta() == {"role": "assistant", "content": ""}
        search_id = await asked.next()
        claimed = await claim(store, search_id)
        for number in (1, 2):
            # The next is published when this one was read: no step waits for another.
            await events.publish(search_id, [step(number)])
            found = await lines.delta()
            assert found["reasoning_content"] == found["reasoning"]
            assert f"x = {number}" in found["reasoning"]
        await events.publish(search_id, [step(1), step(3)])
        assert "x = 3" in (await lines.delta())["reasoning"], "a step that was told is not told again"
        await asyncio.sleep(0.3)
        await store.finish(claimed, SearchState.SOLVED_VERIFIED, SOLVED)
        await events.publish(search_id, [end_event()])
        assert (await lines.delta())["content"].endswith("\n#### 42")
        ended = await lines.chunk()
        assert isinstance(ended, dict)
        assert ended["choices"][0]["finish_reason"] == "stop"
        assert ended["choices"][0]["ratchet"]["search"] == str(search_id)
        usage = await lines.chunk()
        assert isinstance(usage, dict)
        assert (usage["choices"], usage["usage"]["prompt_tokens"], usage["usage"]["completion_tokens"]) == (
            [],
            30,
            120,
        )
        assert await lines.chunk() == "[DONE]"
    assert [line for line in lines.raw if line.startswith(":")], "no ping in 0.3 s"
    assert not [line for line in lines.raw if line.startswith(("id:", "event:", "retry:"))]


async def test_a_completion_waits_for_the_end(
    api: httpx.AsyncClient, store: SearchStore, events: Events, asked: Asked
) -> None:
    waiting = asyncio.create_task(api.post("/v1/chat/completions", json=body(n=2, seed=7)))
    for _ in range(2):
        search_id = await asked.next()
        claimed = await claim(store, search_id)
        assert claimed.request.problem == PROBLEM
        await store.finish(claimed, SearchState.SOLVED_VERIFIED, SOLVED)
        await events.publish(search_id, [end_event()])
    answer = await waiting
    assert answer.status_code == 200, answer.text
    schema = await asyncio.to_thread(schemathesis.openapi.from_url, f"{api.base_url}/openapi.json")
    schema["/v1/chat/completions"]["POST"].validate_response(answer)
    document = answer.json()
    assert [choice["ratchet"]["seed"] for choice in document["choices"]] == [7, 8]
    assert all(choice["message"]["content"].endswith("\n#### 42") for choice in document["choices"])
    assert document["usage"]["completion_tokens"] == 240


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("running", [False, True])
async def test_who_goes_away_cancels(
    base_url: str, store: SearchStore, asked: Asked, stream: bool, running: bool
) -> None:
    async with httpx.AsyncClient(base_url=base_url, timeout=SECONDS) as api:
        waiting = asyncio.create_task(read_all(api, body(stream=stream, n=2)))
        ids = [await asked.next(), await asked.next()]
        claims = [await claim(store, each) for each in ids] if running else []
        waiting.cancel()
        await asyncio.gather(waiting, return_exceptions=True)
    if not running:
        for each in ids:
            await until_over(store, each, SearchState.CANCELLED)
    for claimed in claims:
        async with asyncio.timeout(SECONDS):
            while not await store.renew(claimed, 60):
                await asyncio.sleep(0.02)


async def read_all(api: httpx.AsyncClient, asking: dict[str, Any]) -> None:
    async with api.stream("POST", "/v1/chat/completions", json=asking) as response:
        await response.aread()


@pytest.mark.parametrize("stream", [False, True])
async def test_a_search_that_failed_is_an_error(
    api: httpx.AsyncClient, store: SearchStore, events: Events, asked: Asked, stream: bool
) -> None:
    waiting = asyncio.create_task(api.post("/v1/chat/completions", json=body(stream=stream)))
    search_id = await asked.next()
    claimed = await claim(store, search_id)
    await store.finish(claimed, SearchState.FAILED, SearchOutcome(reason="the policy is gone"))
    await events.publish(search_id, [end_event()])
    answer = await waiting
    if stream:
        told = [line for line in answer.text.splitlines() if line.startswith("data: ")]
        error = json.loads(told[-1].removeprefix("data: "))["error"]
    else:
        assert answer.status_code == 500
        error = answer.json()["error"]
    assert "the policy is gone" in error["message"]
    assert error["type"] == "server_error"


@pytest.mark.parametrize(
    ("method", "path", "sent", "status", "param", "code"),
    [
        ("POST", "/v1/chat/completions", body(tools=[{}]), 422, "tools", None),
        (
            "POST",
            "/v1/chat/completions",
            body(messages=[{"role": "user", "content": " "}]),
            422,
            "messages",
            None,
        ),
        ("POST", "/v1/chat/completions", body(model="gpt-4"), 404, "model", "model_not_found"),
        ("GET", "/v1/models/gpt-4", None, 404, "model", "model_not_found"),
        ("GET", "/v1/nothing", None, 404, None, "not_found"),
        ("GET", "/v1/chat/completions", None, 405, None, None),
    ],
)
async def test_errors_are_problems_and_what_openais_clients_read(
    api: httpx.AsyncClient,
    method: str,
    path: str,
    sent: Any,
    status: int,
    param: str | None,
    code: str | None,
) -> None:
    answer = await api.request(method, path, json=sent)
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    document = answer.json()
    assert (document["status"], document["instance"]) == (status, path)
    assert document["error"]["message"]
    assert (document["error"]["param"], document["error"]["code"]) == (param, code)
    if status == 422:
        schema = await asyncio.to_thread(schemathesis.openapi.from_url, f"{api.base_url}/openapi.json")
        schema[path][method].validate_response(answer)


async def test_choices_beyond_a_keys_limit_begin_no_search(
    base_url: str, engine: AsyncEngine, store: SearchStore, asked: Asked
) -> None:
    key_id = new_id()
    key = secrets.new_key(key_id)
    limits = KeyLimits(concurrent_searches=1)
    await KeyStore(engine).create(key_id, KeyRequest(name="one", limits=limits), secrets.digest(key))
    headers = {"authorization": f"Bearer {key}"}
    async with httpx.AsyncClient(base_url=base_url, timeout=SECONDS, headers=headers) as api:
        refused = await api.post("/v1/chat/completions", json=body(n=2))
        assert refused.status_code == 429, refused.text
        assert refused.json()["error"]["code"] == "rate_limit_exceeded"
        assert int(refused.headers["retry-after"]) > 0
        begun = await asked.next()
        await until_over(store, begun, SearchState.CANCELLED)
        assert (await api.get(f"/search/{begun}")).status_code == 200, "it is the key's own"
        assert (await api.get("/v1/models")).status_code == 200


async def test_other_routes_have_the_problem_alone(api: httpx.AsyncClient) -> None:
    assert "error" not in (await api.get("/search/none")).json()


async def test_models_are_listed(api: httpx.AsyncClient) -> None:
    listed = (await api.get("/v1/models")).json()
    assert [each["id"] for each in listed["data"]] == ["ratchet", "ratchet-fast", "ratchet-max"]
    assert (await api.get("/v1/models/ratchet-max")).json() == listed["data"][2]


async def test_events_that_a_completion_does_not_tell_do_not_disturb_it(
    api: httpx.AsyncClient, store: SearchStore, events: Events, asked: Asked
) -> None:
    waiting = asyncio.create_task(api.post("/v1/chat/completions", json=body(stream=True)))
    search_id = await asked.next()
    claimed = await claim(store, search_id)
    await events.publish(search_id, [Event(EventKind.STATE, {"state": "running", "reason": None})])
    await store.finish(claimed, SearchState.BUDGET_EXHAUSTED, SearchOutcome(reason="used up"))
    await events.publish(search_id, [end_event()])
    chunks = [
        line.removeprefix("data: ") for line in (await waiting).text.splitlines() if line.startswith("data: ")
    ]
    assert chunks[-1] == "[DONE]"
    assert json.loads(chunks[-2])["choices"][0]["finish_reason"] == "length"
