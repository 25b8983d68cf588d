"""The job queue: which search is a worker to take up next. streaq's format and consumer on Redis streams.

A job is only a nudge. What may be worked on is decided by the lease in Postgres, so a job that runs twice
does no harm,
and a job that is lost is put back by `sweep`. A job is named by the search and its fence, so that putting
it twice is one
job, and a search that lost its worker gets a new one.

Limits: publishing calls streaq 7.2's own Lua function through redis-py, whose time-outs and retries are
ours; it is tied
to that minor version, and a test holds that streaq's consumer runs what is published here.
"""

import asyncio
import contextlib
import functools
import inspect
import signal
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from uuid import UUID

import orjson
import streaq
import streaq.constants as streaq_keys
import structlog
from anyio import CancelScope
from redis.exceptions import RedisError, ResponseError
from streaq.utils import now_ms

from ratchet.contracts.search import Priority
from ratchet.redis import make_redis
from ratchet.settings import SearchSettings
from ratchet.store.engine import StoreUnavailableError
from ratchet.store.searches import SearchStore, Waiting

log = structlog.get_logger()

_JOB = "search"
_PRIORITIES = [Priority.LOW, Priority.NORMAL, Priority.HIGH]

Handler = Callable[[UUID, asyncio.Event], Awaitable[None]]
"""Works on one search until it is over or not this worker's any more. The event is set when a caller asks
to cancel.
It gets one CancelledError when the worker is told to stop, and has STOP_SECONDS to give the search back."""

STOP_SECONDS = 8.0


class SearchQueue:
    """The side that puts jobs. Methods raise redis-py's RedisError when Redis is away."""

    def __init__(self, redis_url: str, queue_name: str = "search") -> None:
        self._redis = make_redis(redis_url)
        self._prefix = streaq_keys.REDIS_PREFIX + queue_name
        self._cancel_channel = _cancel_channel(queue_name)

    async def enqueue(self, search_id: UUID, priority: Priority, fence: int = 0) -> None:
        """Put a job for the search, unless this one is there already."""
        await self.enqueue_many([Waiting(search_id, fence, priority)])

    async def enqueue_many(self, waiting: Sequence[Waiting]) -> None:
        """Put many jobs in one round trip."""
        if not waiting:
            return
        try:
            await self._publish(waiting)
        except ResponseError as error:
            # A Redis that started empty does not know streaq's functions until somebody loads them.
            if "function not found" not in str(error).lower():
                raise
            await self._redis.function_load(await asyncio.to_thread(_streaq_library), replace=True)
            await self._publish(waiting)

    async def _publish(self, waiting: Sequence[Waiting]) -> None:
        prefix = self._prefix
        async with self._redis.pipeline(transaction=False) as pipe:
            for job in waiting:
                job_id, now = f"{job.id}.{job.fence}", now_ms()
                pipe.fcall(
                    "publish_task",
                    6,
                    prefix + streaq_keys.REDIS_STREAM + job.priority,
                    prefix + streaq_keys.REDIS_QUEUE + job.priority,
                    prefix + streaq_keys.REDIS_TASK + job_id,
                    prefix + streaq_keys.REDIS_DEPENDENTS,
                    prefix + streaq_keys.REDIS_DEPENDENCIES,
                    prefix + streaq_keys.REDIS_RESULT,
                    job_id,
                    orjson.dumps({"f": _JOB, "a": [str(job.id)], "k": {}, "t": now}),
                    0,  # not delayed
                    0,  # does not expire
                    now,
                )
            await pipe.execute()

    async def cancel(self, search_id: UUID) -> None:
        """Tell the worker that runs the search, if there is one, that a caller asked to cancel."""
        await self._redis.publish(self._cancel_channel, str(search_id))

    async def depth(self) -> int:
        """Jobs that are waiting or running."""
        async with self._redis.pipeline(transaction=False) as pipe:
            for priority in _PRIORITIES:
                pipe.xlen(self._prefix + streaq_keys.REDIS_STREAM + priority)
            return sum(await pipe.execute())

    async def ping(self) -> None:
        """Raise RedisError unless Redis answers."""
        await self._redis.ping()

    async def aclose(self) -> None:
        """Close the connections."""
        await self._redis.aclose()


async def sweep(store: SearchStore, queue: SearchQueue, queued_seconds: float = 5.0) -> int:
    """Put a job for every search that should have one and may have none. Returns how many it looked at."""
    waiting = await store.lapsed(queued_seconds)
    await queue.enqueue_many(waiting)
    return len(waiting)


async def keep_sweeping(store: SearchStore, queue: SearchQueue, every_seconds: float = 3.0) -> None:
    """`sweep` for ever; what is away is tried again at the next turn."""
    while True:
        try:
            await sweep(store, queue)
        except (RedisError, StoreUnavailableError) as error:
            log.warning("sweep put off", error=str(error))
        await asyncio.sleep(every_seconds)


def make_worker(settings: SearchSettings, handler: Handler) -> "SearchWorker":
    """A worker for `asyncio.run(make_worker(settings, handler).run())`."""
    return SearchWorker(settings, handler)


@dataclass(slots=True)
class _Running:
    task: asyncio.Task[None]
    cancelled: asyncio.Event


@dataclass
class SearchWorker:
    """Takes jobs by priority and runs the handler for each, `settings.concurrency` at once.

    Searches under way go on while Redis is away: each is a task of its own, and the consumer is made anew
    until Redis is
    back. A search that was handed out twice in the meantime is joined, not begun again.
    """

    settings: SearchSettings
    handler: Handler
    _running: dict[UUID, _Running] = field(default_factory=dict)
    _stopping: asyncio.Event = field(default_factory=asyncio.Event)

    def stop(self) -> None:
        """Take no more jobs, cancel the handlers, and let `run` return."""
        self._stopping.set()

    async def run(self) -> None:
        """Work until `stop`, SIGTERM or SIGINT."""
        loop = asyncio.get_running_loop()
        for signum in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(signum, self.stop)
        self._slots = asyncio.Semaphore(self.settings.concurrency)
        listener = asyncio.create_task(self._listen_for_cancels())
        try:
            pause = 0.1
            while not self._stopping.is_set():
                began = loop.time()
                await self._consume()
                # A consumer that held for a while was a good one: begin again with the shortest pause.
                pause = 0.1 if loop.time() - began > 10 else min(pause * 2, 3.0)
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._stopping.wait(), pause)
            await self._stop_running()
        finally:
            listener.cancel()
            for signum in (signal.SIGTERM, signal.SIGINT):
                loop.remove_signal_handler(signum)

    async def _consume(self) -> None:
        """One streaq consumer, until it fails or the worker stops."""
        ended = asyncio.Event()
        consumer = _make_consumer(self.settings, ended)
        consumer.task(name=_JOB, ttl=0, max_tries=None, timeout=None, silent=True)(
            functools.partial(_run_job, self, ended)
        )
        consuming = asyncio.create_task(consumer.run_async())
        stopping = asyncio.create_task(self._stopping.wait())
        await asyncio.wait({consuming, stopping}, return_when=asyncio.FIRST_COMPLETED)
        if not consuming.done():
            # Jobs see `ended` and hand themselves back to the queue before the consumer is gone.
            await self._stop_running()
            consuming.cancel()
            await asyncio.wait({consuming}, timeout=STOP_SECONDS)
        stopping.cancel()
        if consuming.done() and not consuming.cancelled() and (error := consuming.exception()) is not None:
            log.warning("queue consumer failed; it is made anew", error=repr(error))

    async def run_search(self, search_id: UUID, ended: asyncio.Event) -> None:
        """Run or join the search; raises StreaqRetry when the worker stops, so that another takes the job."""
        running = self._running.get(search_id)
        if running is None:
            cancelled = asyncio.Event()
            running = _Running(asyncio.create_task(self._handle(search_id, cancelled)), cancelled)
            self._running[search_id] = running
        gone = asyncio.create_task(ended.wait())
        try:
            await asyncio.wait({running.task, gone}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            gone.cancel()
        if self._stopping.is_set():
            await asyncio.wait({running.task}, timeout=STOP_SECONDS)
            raise streaq.StreaqRetry("the worker stops", delay=0)

    async def _handle(self, search_id: UUID, cancelled: asyncio.Event) -> None:
        try:
            async with self._slots:
                await self.handler(search_id, cancelled)
        except asyncio.CancelledError:
            if not self._stopping.is_set():
                raise
        except Exception:
            # One search must not end the worker: its lease lapses, and the sweeper sees it.
            log.exception("search handler failed", search=str(search_id))
        finally:
            self._running.pop(search_id, None)

    async def _stop_running(self) -> None:
        tasks = [running.task for running in self._running.values()]
        for task in tasks:
            task.cancel()
        if tasks:
            _, late = await asyncio.wait(tasks, timeout=STOP_SECONDS)
            if late:
                log.warning("searches did not stop in time", count=len(late))

    async def _listen_for_cancels(self) -> None:
        redis = make_redis(self.settings.redis_url, connections=2)
        while True:
            try:
                async with redis.pubsub(ignore_subscribe_messages=True) as subscription:
                    await subscription.subscribe(_cancel_channel(self.settings.queue_name))
                    while True:
                        message = await subscription.get_message(timeout=1.0)
                        if message is not None:
                            self._cancel(message["data"])
            except RedisError as error:
                # The flag in Postgres, which each renewal of the lease reads, still reaches the handler.
                log.warning("cannot hear cancellations", error=str(error))
                await asyncio.sleep(1.0)

    def _cancel(self, data: bytes) -> None:
        with contextlib.suppress(ValueError, UnicodeDecodeError):
            running = self._running.get(UUID(data.decode()))
            if running is not None:
                running.cancelled.set()


async def _run_job(worker: SearchWorker, ended: asyncio.Event, search_id: str) -> None:
    await worker.run_search(UUID(search_id), ended)


class _Consumer(streaq.Worker[None]):
    """streaq's worker, that says when it no longer reads the queue."""

    ended: asyncio.Event

    async def producer(self, *args: Any, **kwargs: Any) -> None:
        try:
            await super().producer(*args, **kwargs)
        finally:
            # Whatever the cause, the consumer is on its way out, and would wait for its jobs: they let go.
            self.ended.set()

    async def signal_handler(self, scope: CancelScope) -> None:
        """Nothing: streaq 7.2 takes SIGTERM from us even with `handle_signals=False`."""


def _make_consumer(settings: SearchSettings, ended: asyncio.Event) -> _Consumer:
    consumer = _Consumer(
        redis_url=settings.redis_url,
        redis_kwargs={"connect_timeout": 2},
        concurrency=settings.concurrency,
        queue_name=settings.queue_name,
        priorities=[priority.value for priority in _PRIORITIES],
        serializer=functools.partial(orjson.dumps, default=repr),
        deserializer=orjson.loads,
        # A worker that is silent for as long as a lease has lost its jobs too.
        idle_timeout=settings.lease_seconds,
        handle_signals=False,
    )
    # A job that was fetched and waits cannot be overtaken by a more urgent one, and runs out of its idle
    # time-out.
    consumer.prefetch = consumer.concurrency
    consumer.ended = ended
    return consumer


def _cancel_channel(queue_name: str) -> str:
    return f"ratchet:cancel:{queue_name}"


@functools.cache
def _streaq_library() -> str:
    return (Path(inspect.getfile(streaq)).parent / "lua" / "streaq.lua").read_text()
