"""The queue against a real Redis and real worker processes: what is killed, flushed or cancelled, and what comes of it."""

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from uuid import UUID

import pytest
from redis.asyncio import Redis

from ratchet.contracts.search import Priority, SearchRequest, SearchResult
from ratchet.queue import SearchQueue, sweep
from ratchet.redis import make_redis
from ratchet.settings import SearchSettings
from ratchet.stack.valkey import running_valkey
from ratchet.states import SearchState
from ratchet.store.ids import new_id
from ratchet.store.searches import SearchStore, Waiting
from services.search.consumer import Consumer

PROGRAM = Path(__file__).with_name("queue_worker.py")
LEASE = 1.0


@pytest.fixture(scope="module")
def own_redis_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A Redis that these tests may flush."""
    with running_valkey(tmp_path_factory.mktemp("queue-valkey"), durable=False) as server:
        yield server.url()


@pytest.fixture(scope="module")
async def redis(own_redis_url: str) -> AsyncIterator[Redis]:
    client = make_redis(own_redis_url)
    yield client
    await client.aclose()


@dataclass
class Site:
    """One queue of its own, and the worker processes that were started on it."""

    store: SearchStore
    queue: SearchQueue
    settings: SearchSettings
    output: Path
    workers: list[subprocess.Popen[bytes]] = field(default_factory=list)

    async def start_worker(self, seconds: float, lease: float = LEASE) -> subprocess.Popen[bytes]:
        environment = os.environ | {
            "RATCHET_DATABASE_URL": self.settings.database_url,
            "RATCHET_REDIS_URL": self.settings.redis_url,
            "RATCHET_QUEUE_NAME": self.settings.queue_name,
            "RATCHET_CONCURRENCY": str(self.settings.concurrency),
            "PYTHONPATH": os.pathsep.join(sys.path),
        }
        with self.output.open("ab") as output:
            worker = subprocess.Popen(
                [sys.executable, str(PROGRAM), str(seconds), str(lease)], env=environment, stdout=output
            )
        self.workers.append(worker)
        await self.heard(f"{worker.pid} ready")
        return worker

    async def search(self, problem: str = "2 + 2", priority: Priority = Priority.NORMAL) -> UUID:
        search_id, _ = await self.store.create(SearchRequest(problem=problem, priority=priority), None)
        return search_id

    def lines(self) -> list[str]:
        return self.output.read_text().splitlines() if self.output.exists() else []

    async def heard(self, part: str, seconds: float = 20) -> str:
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            for line in self.lines():
                if part in line:
                    return line
            await asyncio.sleep(0.02)
        raise AssertionError(f"no {part!r} in {self.lines()}")

    async def over(self, search_id: UUID, seconds: float = 20, *, sweeping: bool = False) -> SearchResult:
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            if sweeping:
                await sweep(self.store, self.queue, queued_seconds=0)
            result = await self.store.result(search_id)
            assert result is not None
            if result.ended_at is not None:
                return result
            await asyncio.sleep(0.05)
        raise AssertionError(f"not over: {result}, {self.lines()}")


@pytest.fixture
async def site(
    store: SearchStore, database_url: str, own_redis_url: str, tmp_path: Path
) -> AsyncIterator[Site]:
    settings = SearchSettings(
        database_url=database_url, redis_url=own_redis_url, queue_name=f"q{new_id().hex}", concurrency=4
    )
    queue = SearchQueue(settings.redis_url, settings.queue_name)
    site = Site(store, queue, settings, tmp_path / "output")
    yield site
    for worker in site.workers:
        worker.kill()
        worker.wait()
    await queue.aclose()


async def test_a_job_put_several_times_runs_once_and_leaves_nothing_in_redis(
    site: Site, redis: Redis
) -> None:
    search_id = await site.search()
    for _ in range(5):
        await site.queue.enqueue(search_id, Priority.NORMAL)
    assert await site.queue.depth() == 1
    await site.start_worker(0.1)
    result = await site.over(search_id)
    assert result.state is SearchState.ANSWERED_UNVERIFIED
    deadline = time.monotonic() + 5
    while await site.queue.depth() and time.monotonic() < deadline:
        await asyncio.sleep(0.05)
    assert await site.queue.depth() == 0
    left = [key async for key in redis.scan_iter(f"*{search_id}*")]
    assert left == []
    assert sum("begin" in line for line in site.lines()) == 1


async def test_a_search_whose_worker_was_killed_is_taken_up_by_another(site: Site) -> None:
    search_id = await site.search()
    first = await site.start_worker(30)
    await site.queue.enqueue(search_id, Priority.NORMAL)
    await site.heard(f"{first.pid} begin {search_id}")
    os.kill(first.pid, signal.SIGKILL)
    first.wait()
    second = await site.start_worker(0.1)
    result = await site.over(search_id, sweeping=True)
    assert (result.state, result.usage.nodes) == (SearchState.ANSWERED_UNVERIFIED, 2), (
        "the second attempt ended it"
    )
    assert f"{second.pid} end {search_id}" in await site.heard(f"{second.pid} end")


async def test_the_queue_alone_hands_on_a_killed_workers_job(site: Site) -> None:
    """Without any sweep: streaq gives the dead worker's job to the living after the idle time-out."""
    search_id = await site.search()
    first = await site.start_worker(30, lease=LEASE)
    await site.queue.enqueue(search_id, Priority.NORMAL)
    await site.heard(f"{first.pid} begin {search_id}")
    os.kill(first.pid, signal.SIGKILL)
    first.wait()
    await asyncio.sleep(LEASE)
    await site.start_worker(0.1)
    assert (await site.over(search_id)).usage.nodes == 2


async def test_a_worker_that_is_told_to_stop_gives_its_searches_back_at_once(site: Site) -> None:
    search_id = await site.search()
    first = await site.start_worker(30, lease=60)
    await site.queue.enqueue(search_id, Priority.NORMAL)
    await site.heard(f"{first.pid} begin {search_id}")
    second = await site.start_worker(0.1, lease=60)
    began = time.monotonic()
    first.terminate()
    assert first.wait(timeout=10) == 0
    await site.heard(f"{first.pid} released {search_id}")
    result = await site.over(search_id)
    assert time.monotonic() - began < 10, "long before the lease of 60 seconds was over"
    assert result.usage.nodes == 1, "an attempt that was given back does not count"
    await site.heard(f"{second.pid} end {search_id}")


async def test_cancelling_reaches_a_running_search_soon(site: Site) -> None:
    search_id = await site.search("stuck")
    await site.start_worker(0.1, lease=60)
    await site.queue.enqueue(search_id, Priority.NORMAL)
    await site.heard(f"begin {search_id}")
    began = time.monotonic()
    await site.store.request_cancel(search_id)
    await site.queue.cancel(search_id)
    result = await site.over(search_id)
    assert (result.state, result.answer) == (SearchState.CANCELLED, "37")
    assert time.monotonic() - began < 2


async def test_a_flushed_redis_loses_no_search(site: Site, redis: Redis) -> None:
    running, queued = await site.search("stuck"), await site.search()
    worker = await site.start_worker(0.1)
    await site.queue.enqueue(running, Priority.NORMAL)
    await site.heard(f"begin {running}")
    await redis.flushall()
    await redis.function_flush()
    # The queued one never had a job that survived; the running one goes on undisturbed, in the same process.
    result = await site.over(queued, sweeping=True)
    assert result.state is SearchState.ANSWERED_UNVERIFIED
    await site.store.request_cancel(running)
    deadline = time.monotonic() + 10
    while (await site.store.state(running)) is SearchState.RUNNING and time.monotonic() < deadline:
        await site.queue.cancel(running)
        await asyncio.sleep(0.1)
    assert f"{worker.pid} cancelled {running}" in await site.heard(f"cancelled {running}")
    assert worker.poll() is None
    assert sum(f"begin {running}" in line for line in site.lines()) == 1


async def test_more_urgent_searches_go_first(site: Site) -> None:
    order = [Priority.LOW, Priority.NORMAL, Priority.LOW, Priority.NORMAL, Priority.LOW]
    waiting = [Waiting(new_id(), 0, priority) for priority in order]
    await site.queue.enqueue_many(waiting)
    seen: list[UUID] = []

    async def note(search_id: UUID, cancelled: asyncio.Event) -> None:
        seen.append(search_id)

    consumer = Consumer(site.settings.model_copy(update={"concurrency": 1}), note)
    running = asyncio.create_task(consumer.run())
    deadline = time.monotonic() + 10
    while len(seen) < len(order) and time.monotonic() < deadline:
        await asyncio.sleep(0.02)
    consumer.stop()
    await running
    expected = [job.id for job in sorted(waiting, key=lambda job: job.priority is Priority.LOW)]
    assert seen == expected


async def test_an_urgent_search_does_not_wait_until_one_of_a_batch_is_over(site: Site) -> None:
    low, other_low, high = new_id(), new_id(), new_id()
    began: list[UUID] = []
    over = asyncio.Event()

    async def hold(search_id: UUID, cancelled: asyncio.Event) -> None:
        began.append(search_id)
        await over.wait()

    consumer = Consumer(site.settings.model_copy(update={"concurrency": 1}), hold)
    running = asyncio.create_task(consumer.run())
    await site.queue.enqueue_many([Waiting(low, 0, Priority.LOW), Waiting(other_low, 0, Priority.LOW)])
    deadline = time.monotonic() + 10
    while not began and time.monotonic() < deadline:
        await asyncio.sleep(0.02)
    await site.queue.enqueue(high, Priority.HIGH)
    while high not in began and time.monotonic() < deadline:
        await asyncio.sleep(0.02)
    assert began == [low, high]
    over.set()
    consumer.stop()
    await running


async def test_no_more_searches_run_at_once_than_the_worker_may(site: Site) -> None:
    await site.queue.enqueue_many([Waiting(new_id(), 0, Priority.NORMAL) for _ in range(12)])
    now, most, done = 0, 0, 0

    async def hold(search_id: UUID, cancelled: asyncio.Event) -> None:
        nonlocal now, most, done
        now += 1
        most = max(most, now)
        await asyncio.sleep(0.1)
        now -= 1
        done += 1

    consumer = Consumer(site.settings, hold)
    running = asyncio.create_task(consumer.run())
    deadline = time.monotonic() + 10
    while done < 12 and time.monotonic() < deadline:
        await asyncio.sleep(0.02)
    consumer.stop()
    await running
    assert (done, most) == (12, site.settings.concurrency)


async def test_a_handler_that_fails_does_not_end_the_worker(site: Site) -> None:
    bad, good = new_id(), new_id()
    seen = asyncio.Event()

    async def handle(search_id: UUID, cancelled: asyncio.Event) -> None:
        if search_id == bad:
            raise RuntimeError("boom")
        seen.set()

    consumer = Consumer(site.settings, handle)
    running = asyncio.create_task(consumer.run())
    await site.queue.enqueue(bad, Priority.HIGH)
    await site.queue.enqueue(good, Priority.LOW)
    await asyncio.wait_for(seen.wait(), 10)
    consumer.stop()
    await running


async def test_a_worker_outlives_a_redis_that_is_restarted(
    tmp_path: Path, site: Site, free_port: int
) -> None:
    seen = asyncio.Queue[UUID]()
    hold = asyncio.Event()
    first, second = new_id(), new_id()

    async def handle(search_id: UUID, cancelled: asyncio.Event) -> None:
        if search_id == first:
            await hold.wait()
        seen.put_nowait(search_id)

    with contextlib.ExitStack() as servers:
        server = servers.enter_context(running_valkey(tmp_path / "one", port=free_port, durable=False))
        url = server.url()
        consumer = Consumer(site.settings.model_copy(update={"redis_url": url}), handle)
        running = asyncio.create_task(consumer.run())
        queue = SearchQueue(url, site.settings.queue_name)
        await queue.enqueue(first, Priority.NORMAL)
        while not consumer.running:
            await asyncio.sleep(0.02)
        await queue.aclose()
        # Gone, with all it held.
        await asyncio.to_thread(servers.close)
    await asyncio.sleep(0.5)
    assert not running.done()
    hold.set()
    assert await asyncio.wait_for(seen.get(), 5) == first, "a search goes on without Redis"
    with running_valkey(tmp_path / "one", port=free_port, durable=False) as server:
        queue = SearchQueue(server.url(), site.settings.queue_name)
        await queue.enqueue(second, Priority.NORMAL)
        assert await asyncio.wait_for(seen.get(), 20) == second
        await queue.aclose()
        consumer.stop()
        await asyncio.wait_for(running, 10)
