"""A Redis that is full or was wiped costs speed and never work: the queue and the leases are made again from Postgres."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from uuid import UUID

import httpx
import pytest
from redis.asyncio import Redis
from redis.exceptions import OutOfMemoryError

from ratchet.contracts.sandbox import StepStatus
from ratchet.contracts.search import EventKind, NodeView, Priority, SearchRequest
from ratchet.events import KEEP_EVENTS, Event, Events, end_event, node_event
from ratchet.queue import SearchQueue, sweep
from ratchet.redis import make_redis
from ratchet.settings import SearchSettings
from ratchet.stack.valkey import running_valkey
from ratchet.states import NodeState, SearchState
from ratchet.store.ids import new_id
from ratchet.store.search_results import SearchOutcome
from ratchet.store.searches import SearchStore, Waiting
from services.search.app import build_app
from services.search.consumer import Consumer
from tests.integration.test_followers import Reader
from tests.served_app import served

MEGABYTES = 12
STREAM_BYTES = 20 * 2**20
"""Most that the events of one search may take, with steps of 64 KiB."""


@pytest.fixture(scope="module")
def small_redis_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A Redis with little room, that these tests may fill and flush."""
    folder = tmp_path_factory.mktemp("small-valkey")
    with running_valkey(folder, durable=False, max_memory_mb=MEGABYTES) as server:
        yield server.url()


@pytest.fixture
async def redis(small_redis_url: str) -> AsyncIterator[Redis]:
    client = make_redis(small_redis_url)
    await client.flushall()
    yield client
    await client.flushall()
    await client.aclose()


@pytest.fixture
async def events(small_redis_url: str) -> AsyncIterator[Events]:
    events = Events(small_redis_url)
    yield events
    await events.aclose()


@pytest.fixture
async def queue(small_redis_url: str) -> AsyncIterator[SearchQueue]:
    queue = SearchQueue(small_redis_url, "full")
    yield queue
    await queue.aclose()


@pytest.fixture
def settings(database_url: str, small_redis_url: str) -> SearchSettings:
    return SearchSettings(
        database_url=database_url,
        redis_url=small_redis_url,
        queue_name="full",
        concurrency=64,
        lease_seconds=2,
    )


def node_events(count: int, visits: int = 1) -> list[Event]:
    """Events of nodes whose texts are 64 KiB."""
    long = "9" * 2**16
    return [
        node_event(
            NodeView(
                id=f"n{number}", parent="root", depth=1, state=NodeState.OPEN, text=long, status=StepStatus.OK,
                stdout=long, stderr=long, prm_score=0.5, prior=0.0, visits=visits, q=0.5, tokens=9, seconds=0.1,
                answer=long,
            )
        )
        for number in range(count)
    ]  # fmt: skip


async def fill(redis: Redis) -> None:
    """Until the server refuses writes: none of this expires."""
    piece = b"x" * 50_000
    with contextlib.suppress(OutOfMemoryError):
        for number in range(2 * MEGABYTES * 2**20 // len(piece)):
            await redis.set(f"filler:{number}", piece)
        raise AssertionError("it is never full")
    with contextlib.suppress(OutOfMemoryError):
        for number in range(100_000):
            await redis.set(f"filler:small:{number}", b"y" * 100)


async def make_room(redis: Redis) -> None:
    async for key in redis.scan_iter("filler:*", count=1000):
        await redis.delete(key)


@contextlib.asynccontextmanager
async def consuming(settings: SearchSettings, hold: asyncio.Event) -> AsyncIterator[list[UUID]]:
    """The searches that a worker is given; it keeps each until `hold` is set."""
    seen: list[UUID] = []

    async def handle(search_id: UUID, cancelled: asyncio.Event) -> None:
        seen.append(search_id)
        await hold.wait()

    consumer = Consumer(settings, handle)
    running = asyncio.create_task(consumer.run())
    try:
        yield seen
    finally:
        hold.set()
        consumer.stop()
        await asyncio.wait_for(running, 30)


async def test_the_events_of_a_search_are_bounded_whatever_its_steps_print(
    events: Events, redis: Redis
) -> None:
    # It would be dropped when it is full, and bounded by that.
    await redis.config_set("maxmemory", 0)
    before = (await redis.info("memory"))["used_memory"]
    search_id = new_id()
    for visits in range(2 * KEEP_EVENTS // 100):
        await events.publish(search_id, node_events(100, visits))
    taken = (await redis.info("memory"))["used_memory"] - before
    await redis.config_set("maxmemory", f"{MEGABYTES}mb")
    assert 0 < taken < STREAM_BYTES, f"{taken / 2**20:.1f} MiB"


async def test_events_give_way_to_jobs_where_there_is_no_room(
    settings: SearchSettings, queue: SearchQueue, events: Events, redis: Redis
) -> None:
    waiting = [Waiting(new_id(), 0, Priority.NORMAL) for _ in range(50)]
    await queue.enqueue_many(waiting)
    for _ in range(20):
        await events.publish(new_id(), node_events(400))
    memory = await redis.info("memory")
    assert memory["used_memory"] <= 1.1 * MEGABYTES * 2**20
    assert (await redis.info("stats"))["evicted_keys"] > 0
    assert await queue.depth() == 50
    async with consuming(settings, asyncio.Event()) as seen:
        async with asyncio.timeout(30):
            while len(set(seen)) < len(waiting):
                await asyncio.sleep(0.05)
    assert set(seen) == {job.id for job in waiting}


async def test_a_redis_that_refuses_writes_puts_searches_off_and_loses_none(
    settings: SearchSettings, store: SearchStore, queue: SearchQueue, redis: Redis
) -> None:
    hold = asyncio.Event()
    async with consuming(settings, hold) as seen:
        before, _ = await store.create(SearchRequest(problem="before"), None)
        await queue.enqueue(before, Priority.NORMAL)
        async with asyncio.timeout(30):
            while before not in seen:
                await asyncio.sleep(0.05)
        await fill(redis)
        with pytest.raises(OutOfMemoryError):
            await queue.enqueue(new_id(), Priority.NORMAL)
        with served(build_app(settings), settings) as url:
            async with httpx.AsyncClient(base_url=url, timeout=30) as api:
                taken = await api.post("/search", json={"problem": "while it is full"})
                assert taken.status_code == 202, taken.text
                during = UUID(taken.json()["id"])
                assert (await api.get(f"/search/{during}")).json()["state"] == "queued"
                # It may be the API's sweeper that puts the job, or this test's.
                await make_room(redis)
                # A consumer whose Redis refused it is made anew, which takes up to eight seconds each time.
                async with asyncio.timeout(180):
                    while during not in seen:
                        await sweep(store, queue, queued_seconds=0)
                        await asyncio.sleep(0.1)
        assert seen.count(before) == 1, "what ran when it became full was begun again"


async def test_a_wiped_redis_breaks_no_stream_and_hides_no_end(
    settings: SearchSettings, store: SearchStore, events: Events, redis: Redis, tmp_path: Path
) -> None:
    search_id, _ = await store.create(SearchRequest(problem="6 * 7?"), None)
    claim = await store.claim(search_id, "w", 600, 5)
    assert claim is not None
    with served(build_app(settings), settings) as url:
        async with httpx.AsyncClient(base_url=url, timeout=60) as api:
            reader = Reader(api, search_id)
            await reader.opened.wait()
            await events.publish(search_id, [Event(EventKind.STATE, {"state": "running", "reason": None})])
            await reader.hears("state")
            await redis.flushall()
            assert await store.renew(claim, 600) is False, "the lease is in Postgres"
            await events.publish(search_id, node_events(1))
            await reader.hears("node")
            await redis.flushall()
            await store.finish(claim, SearchState.ANSWERED_UNVERIFIED, SearchOutcome(answer="42"))
            async with asyncio.timeout(30):
                await reader.task
            assert reader.heard[-1][1] == "end"
            assert reader.heard[-1][2]["answer"] == "42"
            await events.publish(search_id, [end_event()])
            late = Reader(api, search_id)
            async with asyncio.timeout(30):
                await late.task
            assert late.heard[-1][1] == "end"
