"""Many followers of searches: they cost the stores nothing while nothing happens, and hear at once when something does."""

import asyncio
import contextlib
import json
import re
import time
from collections.abc import AsyncIterator, Iterator
from typing import Any
from uuid import UUID

import asyncpg
import httpx
import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from ratchet.contracts.search import EventKind, SearchRequest, TreeView
from ratchet.events import KEEP_EVENTS, PAGE, START, Event, Events, end_event
from ratchet.redis import make_redis
from ratchet.settings import SearchSettings
from ratchet.states import NodeState, SearchState
from ratchet.store.followed import PAGE_BYTES
from ratchet.store.nodes import NodeRecord
from ratchet.store.search_results import SearchOutcome
from ratchet.store.searches import Claim, SearchStore
from services.search import following, intake
from services.search.app import build_app
from services.search.news import POLL_SECONDS, Newsroom
from tests.served_app import served

READERS = 100
MOST = 150


@pytest.fixture(scope="module")
def search_settings(database_url: str, redis_url: str) -> SearchSettings:
    return SearchSettings(
        database_url=database_url,
        redis_url=redis_url,
        queue_name="followers",
        max_followers=MOST,
        max_queued=3,
    )


@pytest.fixture(scope="module")
def base_url(search_settings: SearchSettings, engine: AsyncEngine) -> Iterator[str]:
    with served(build_app(search_settings), search_settings) as url:
        yield url


@pytest.fixture
async def api(base_url: str) -> AsyncIterator[httpx.AsyncClient]:
    limits = httpx.Limits(max_connections=None)
    async with httpx.AsyncClient(base_url=base_url, timeout=60, limits=limits) as client:
        yield client


async def running_search(store: SearchStore, **changes: Any) -> Claim:
    search_id, _ = await store.create(SearchRequest.model_validate({"problem": "6 * 7?", **changes}), None)
    claim = await store.claim(search_id, "w", 600, 5)
    assert claim is not None
    return claim


async def finish(store: SearchStore, claim: Claim) -> None:
    await store.finish(claim, SearchState.ANSWERED_UNVERIFIED, SearchOutcome(answer="42"))


def an_event(number: int) -> Event:
    return Event(EventKind.STATE, {"state": "running", "reason": str(number)})


class Reader:
    """Somebody who reads the events of a search."""

    def __init__(self, api: httpx.AsyncClient, search_id: UUID, after: str = START) -> None:
        self._api, self._search_id, self._after = api, search_id, after
        self.opened = asyncio.Event()
        self.heard: list[tuple[str, str, Any]] = []
        """Id, kind and data."""
        self.task = asyncio.create_task(self._read())

    async def _read(self) -> None:
        path = f"/search/{self._search_id}/events?after={self._after}"
        async with self._api.stream("GET", path) as response:
            assert response.status_code == 200
            self.opened.set()
            event: dict[str, str] = {}
            async for line in response.aiter_lines():
                if line:
                    name, _, value = line.partition(": ")
                    event[name] = value
                elif "event" in event:
                    self.heard.append((event.get("id", ""), event["event"], json.loads(event["data"])))
                    event = {}

    async def hears(self, kind: str, seconds: float = 20) -> None:
        async with asyncio.timeout(seconds):
            while not any(heard == kind for _, heard, _ in self.heard):
                await asyncio.sleep(0.01)


@contextlib.asynccontextmanager
async def reading(api: httpx.AsyncClient, *search_ids: UUID) -> AsyncIterator[list[Reader]]:
    """A reader of each, once all are there."""
    readers = [Reader(api, each) for each in search_ids]
    try:
        async with asyncio.timeout(60):
            await asyncio.gather(*(each.opened.wait() for each in readers))
        yield readers
    finally:
        for each in readers:
            each.task.cancel()
        await asyncio.gather(*(each.task for each in readers), return_exceptions=True)


async def test_idle_readers_ask_postgres_and_redis_for_nothing_of_their_own(
    api: httpx.AsyncClient, store: SearchStore, database_url: str, redis_url: str
) -> None:
    claims = [await running_search(store) for _ in range(10)]
    redis = make_redis(redis_url)
    connection = await asyncpg.connect(re.sub(r"^postgresql\+asyncpg", "postgresql", database_url))

    async def counts() -> tuple[int, int]:
        """Commits of Postgres and commands of Redis so far."""
        # Postgres counts what a connection has done a second or so later.
        await asyncio.sleep(1.5)
        query = "SELECT xact_commit FROM pg_stat_database WHERE datname = current_database()"
        commands = (await redis.info("stats"))["total_commands_processed"]
        return int(await connection.fetchval(query)), commands

    async def a_second(readers: int) -> tuple[float, float]:
        """What that many idle readers, and all else in the process, ask of the two."""
        async with reading(api, *(claims[n % 10].id for n in range(readers))) as open_:
            await asyncio.sleep(2 * POLL_SECONDS)
            began, before = time.monotonic(), await counts()
            await asyncio.sleep(5)
            after, seconds = await counts(), time.monotonic() - began
            assert not any(each.task.done() for each in open_)
        return (after[0] - before[0]) / seconds, (after[1] - before[1]) / seconds

    one, many = await a_second(1), await a_second(READERS)
    # Each used to ask both every two seconds: 50 times a second.
    assert many[0] - one[0] < 10, f"transactions a second: {one[0]:.1f} for one, {many[0]:.1f} for {READERS}"
    assert many[1] - one[1] < 10, f"commands a second: {one[1]:.1f} for one, {many[1]:.1f} for {READERS}"
    await connection.close()
    await redis.aclose()


async def test_all_readers_hear_an_event_and_the_end_and_are_gone(
    api: httpx.AsyncClient, store: SearchStore, events: Events
) -> None:
    claim = await running_search(store)
    async with reading(api, *[claim.id] * 20) as readers:
        await events.publish(claim.id, [an_event(1)])
        await asyncio.gather(*(each.hears("state") for each in readers))
        await finish(store, claim)
        await events.publish(claim.id, [end_event()])
        async with asyncio.timeout(20):
            await asyncio.gather(*(each.task for each in readers))
        for each in readers:
            assert [kind for _, kind, _ in each.heard] == ["state", "end"]


async def test_who_waits_hears_of_the_end_from_the_store_alone(
    api: httpx.AsyncClient, store: SearchStore
) -> None:
    asked = asyncio.create_task(
        api.post("/search", json={"problem": "a", "wait": 60}, headers={"idempotency-key": "waits"})
    )
    async with asyncio.timeout(20):
        while not (found := (await store.list_recent(1)).searches) or found[0].problem != "a":
            await asyncio.sleep(0.05)
    claim = await store.claim(UUID(found[0].id), "w", 60, 5)
    assert claim is not None
    await finish(store, claim)
    response = await asyncio.wait_for(asked, 20)
    assert (response.status_code, response.json()["answer"]) == (200, "42")


async def test_a_reader_who_comes_too_late_is_told_what_it_missed_and_reads_on(
    api: httpx.AsyncClient, store: SearchStore, events: Events
) -> None:
    claim = await running_search(store)
    for first in range(0, KEEP_EVENTS + 5 * PAGE, PAGE):
        await events.publish(claim.id, [an_event(first + n) for n in range(PAGE)])
    await finish(store, claim)
    await events.publish(claim.id, [end_event()])
    reader = Reader(api, claim.id)
    async with asyncio.timeout(30):
        await reader.task
    kinds = [kind for _, kind, _ in reader.heard]
    assert (kinds[0], kinds[-1], kinds.count("gap")) == ("gap", "end", 1)
    assert "/tree" in reader.heard[0][2]["reason"]
    numbers = [int(data["reason"]) for _, kind, data in reader.heard if kind == "state"]
    assert numbers == list(range(numbers[0], KEEP_EVENTS + 5 * PAGE))
    assert len(numbers) < KEEP_EVENTS + 3 * PAGE, "the stream is bounded"
    # Who saw what is gone now has missed nothing.
    other = Reader(api, claim.id, after=reader.heard[1][0])
    async with asyncio.timeout(30):
        await other.task
    assert "gap" not in {kind for _, kind, _ in other.heard}


async def test_a_reader_who_takes_nothing_is_cut_off_and_comes_back_with_its_last_id(
    base_url: str, store: SearchStore, events: Events, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(following, "SEND_SECONDS", 0.5)
    claim = await running_search(store)
    big = "x" * 50_000
    for first in range(0, 1000, PAGE):
        some = [
            Event(EventKind.STATE, {"state": "running", "reason": f"{first + n} {big}"}) for n in range(PAGE)
        ]
        await events.publish(claim.id, some)
    host, _, port = base_url.removeprefix("http://").partition(":")
    reader, writer = await asyncio.open_connection(host, int(port), limit=2**14)
    writer.write(f"GET /search/{claim.id}/events HTTP/1.1\r\nHost: {host}\r\n\r\n".encode())
    # It reads nothing until the server must have given up: what lies in the sockets is all that comes.
    await asyncio.sleep(3)
    taken = b""
    async with asyncio.timeout(30):
        while piece := await reader.read(2**16):
            taken += piece
    writer.close()
    assert b'"0 x' in taken
    ids = re.findall(rb"(?m)^id: ([\d-]+)\r$", taken)
    assert len(ids) < 1000, "all of it was waited for"
    rest = await events.read(claim.id, ids[-2].decode())
    assert rest, "nothing is lost that was not taken"


async def test_more_followers_than_a_process_may_have_are_told_to_come_back(
    api: httpx.AsyncClient, store: SearchStore
) -> None:
    claim = await running_search(store)
    async with reading(api, *[claim.id] * MOST):
        for response in (
            await api.get(f"/search/{claim.id}/events"),
            await api.post("/search", json={"problem": "one more", "wait": 5}),
        ):
            assert response.status_code == 503
            assert int(response.headers["retry-after"]) > 0
            assert "follow searches here already" in response.json()["detail"]
        assert (await api.get(f"/search/{claim.id}")).status_code == 200
        assert all(each.problem != "one more" for each in (await store.list_recent(5)).searches)
    async with asyncio.timeout(20):
        while (await api.post("/search", json={"problem": "now", "wait": 0.1})).status_code == 503:
            await asyncio.sleep(0.1)


async def test_a_queue_that_is_full_takes_no_more_but_answers_retries_and_other_priorities(
    api: httpx.AsyncClient, store: SearchStore, engine: AsyncEngine
) -> None:
    body = {"problem": "many", "priority": "high"}
    first = await api.post("/search", json=body, headers={"idempotency-key": "first"})
    for _ in range(2):
        assert (await api.post("/search", json=body)).status_code == 202
    refused = await api.post("/search", json=body)
    assert refused.status_code == 503
    assert int(refused.headers["retry-after"]) > 0
    assert "3 searches of priority high wait already" in refused.json()["detail"]
    again = await api.post("/search", json=body, headers={"idempotency-key": "first"})
    assert (again.status_code, again.json()["id"]) == (202, first.json()["id"])
    assert (await api.post("/search", json={**body, "priority": "normal"})).status_code == 202
    # There is room again as soon as a worker takes one up.
    assert await store.claim(UUID(first.json()["id"]), "w", 60, 5) is not None
    assert (await api.post("/search", json=body)).status_code == 202


async def test_submissions_that_postgres_holds_up_leave_connections_to_readers_and_an_answer_to_the_next(
    api: httpx.AsyncClient, store: SearchStore, engine: AsyncEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(intake, "TURN_SECONDS", 0.5)
    known, _ = await store.create(SearchRequest(problem="known"), None)
    body = {"problem": "held up", "priority": "low"}
    async with engine.begin() as holder:
        await holder.execute(text("LOCK TABLE problems IN EXCLUSIVE MODE"))
        held = [asyncio.create_task(api.post("/search", json=body)) for _ in range(2)]
        # As many as may, so that the next has to wait for its turn.
        held += [asyncio.create_task(api.post("/search", json=body)) for _ in range(intake.STORED_AT_ONCE)]
        done, still = await asyncio.wait(held, timeout=5)
        refused = [each.result() for each in done]
        assert [each.status_code for each in refused] == [503, 503]
        assert all(int(each.headers["retry-after"]) > 0 for each in refused)
        assert all("could not be stored" in each.json()["detail"] for each in refused)
        assert (await api.get(f"/search/{known}")).status_code == 200
    taken = [await each for each in still]
    assert len(taken) == intake.STORED_AT_ONCE
    # What found no room in the queue was at least answered.
    assert {each.status_code for each in taken} <= {202, 503}
    assert sum(each.status_code == 202 for each in taken) >= 3


def a_node(number: int, text: str = "pass") -> NodeRecord:
    parent = None if number == 0 else f"n{(number - 1) // 3}"
    depth = 0 if number == 0 else a_node((number - 1) // 3).depth + 1
    return NodeRecord(
        id=f"n{number}",
        parent=parent,
        ordinal=number - 1,
        depth=depth,
        state=NodeState.OPEN,
        task="0",
        text=text,
    )


async def pages_of(api: httpx.AsyncClient, search_id: UUID, limit: int | None = None) -> list[TreeView]:
    pages: list[TreeView] = []
    while not pages or pages[-1].next is not None:
        asked = {"cursor": pages[-1].next if pages else None, "limit": limit}
        given = {name: value for name, value in asked.items() if value is not None}
        response = await api.get(f"/search/{search_id}/tree", params=given)
        assert response.status_code == 200, response.text
        pages.append(TreeView.model_validate(response.json()))
    return pages


@pytest.mark.parametrize("limit", [1, 7, 40, 41, 1000, None])
async def test_the_pages_of_a_tree_are_the_whole_tree_parents_first(
    api: httpx.AsyncClient, store: SearchStore, limit: int | None
) -> None:
    claim = await running_search(store)
    await store.journal(claim, [a_node(number) for number in range(41)], claim.usage)
    pages = await pages_of(api, claim.id, limit)
    ids = [node.id for page in pages for node in page.nodes]
    assert ids == [f"n{number}" for number in range(41)]
    assert all(len(page.nodes) <= (limit or 500) for page in pages)
    assert len(pages) == -(-41 // min(limit or 500, 41))
    dot = (await api.get(f"/search/{claim.id}/tree", params={"format": "dot", "limit": limit or 500})).text
    assert (dot.count("->"), dot.count("label="), dot.count("digraph")) == (40, 41, 1)
    assert dot.endswith("}\n")


async def test_a_page_of_long_texts_has_fewer_nodes_and_never_none(
    api: httpx.AsyncClient, store: SearchStore
) -> None:
    claim = await running_search(store)
    long = "x" * (PAGE_BYTES // 3)
    await store.journal(claim, [a_node(number, long) for number in range(8)], claim.usage)
    await store.journal(claim, [a_node(8, "y" * (PAGE_BYTES + 1)), a_node(9)], claim.usage)
    pages = await pages_of(api, claim.id)
    assert [len(page.nodes) for page in pages] == [3, 3, 2, 1, 1]
    empty = await running_search(store)
    assert [page.nodes for page in await pages_of(api, empty.id)] == [[]]


@pytest.mark.parametrize(
    "query", ["limit=0", "limit=1001", "cursor=x", "cursor=1", "cursor=1.2.3", "cursor=" + "9" * 30]
)
async def test_a_page_that_cannot_be_is_told_the_field(
    api: httpx.AsyncClient, store: SearchStore, query: str
) -> None:
    claim = await running_search(store)
    response = await api.get(f"/search/{claim.id}/tree?{query}")
    assert response.status_code == 422
    assert [error["field"] for error in response.json()["errors"]] == [query.partition("=")[0]]


async def test_a_newsroom_goes_on_when_the_store_was_away(events: Events) -> None:
    class Store:
        away = True

        async def states(self, search_ids: Any) -> dict[UUID, SearchState]:
            if self.away:
                from ratchet.store.errors import StoreUnavailableError

                self.away = False
                raise StoreUnavailableError("away")
            return dict.fromkeys(search_ids, SearchState.CANCELLED)

    newsroom = Newsroom(Store(), events, 5)
    asking = asyncio.create_task(newsroom.keep_asking())
    with newsroom.follow(UUID(int=1), reads=True) as followed:
        async with asyncio.timeout(20):
            await followed.changed.wait()
        assert followed.over
    assert newsroom.followers == 0
    asking.cancel()
