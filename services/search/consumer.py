"""The side of the queue that takes jobs: runs a handler for each search, some at once, the most urgent first.

Built on streaq's worker. Searches under way are tasks of their own, apart from streaq's jobs, so they go on while Redis is
away; streaq's workers are then made anew until Redis is back. There are two: one for all jobs, and one with a few places of its
own for jobs of high priority, so that an interactive search does not wait until one of a batch is over.

Limits: tied to streaq 7.2, whose worker `_StreaqWorker` changes in two places.
"""

import asyncio
import contextlib
import functools
import signal
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

import orjson
import streaq
import structlog
from anyio import CancelScope
from redis.exceptions import RedisError

from ratchet import background
from ratchet.contracts.search import Priority
from ratchet.queue import JOB, PRIORITIES, cancel_channel
from ratchet.redis import make_redis
from ratchet.settings import SearchSettings

log = structlog.get_logger()

Handler = Callable[[UUID, asyncio.Event], Awaitable[None]]
"""Works on one search until it is over or not this worker's any more. The event is set when a caller asks to cancel. A worker
that is told to stop cancels the handler once; it has STOP_SECONDS to give the search back."""

URGENT_PLACES = 4
"""Searches of high priority that run beside `settings.concurrency` others."""
STOP_SECONDS = 8.0
SHORTEST_PAUSE, LONGEST_PAUSE = 0.1, 3.0
"""Seconds before a failed consumer is made anew."""
GOOD_SECONDS = 10.0
"""A consumer that held for so long was a good one: the next pause is the shortest again."""


@dataclass(slots=True)
class _Running:
    task: asyncio.Task[None]
    cancelled: asyncio.Event


@dataclass
class Consumer:
    """Takes jobs by priority and runs the handler for each, `settings.concurrency` at once, and URGENT_PLACES urgent ones.

    A search that is handed out again while it runs here (Redis was away, and forgot) is joined, not begun again.
    """

    settings: SearchSettings
    handler: Handler
    running: dict[UUID, _Running] = field(default_factory=dict, init=False)
    _stopping: asyncio.Event = field(default_factory=asyncio.Event, init=False)
    _slots: asyncio.Semaphore = field(init=False)
    _urgent: asyncio.Semaphore = field(init=False)

    def __post_init__(self) -> None:
        self._slots = asyncio.Semaphore(self.settings.concurrency)
        self._urgent = asyncio.Semaphore(URGENT_PLACES)

    def stop(self) -> None:
        """Take no more jobs, cancel the handlers, and let `run` return."""
        self._stopping.set()

    async def run(self) -> None:
        """Work until `stop`, SIGTERM or SIGINT."""
        loop = asyncio.get_running_loop()
        for signum in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(signum, self.stop)
        try:
            async with background.running(background.restart("cancellations", self._listen_for_cancels)):
                await self._keep_consuming()
        finally:
            for signum in (signal.SIGTERM, signal.SIGINT):
                loop.remove_signal_handler(signum)

    async def _keep_consuming(self) -> None:
        loop = asyncio.get_running_loop()
        pause = SHORTEST_PAUSE
        while not self._stopping.is_set():
            began = loop.time()
            await self._consume()
            held = loop.time() - began > GOOD_SECONDS
            pause = SHORTEST_PAUSE if held else min(pause * 2, LONGEST_PAUSE)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(pause):
                    await self._stopping.wait()
        await self._stop_running()

    async def _consume(self) -> None:
        """Run both streaq workers, until one fails or the consumer stops."""
        ended = asyncio.Event()
        settings = self.settings
        consuming = [
            asyncio.create_task(self._run_streaq(ended, self._slots, settings.concurrency, PRIORITIES)),
            asyncio.create_task(self._run_streaq(ended, self._urgent, URGENT_PLACES, [Priority.HIGH])),
        ]
        stopping = asyncio.create_task(self._stopping.wait())
        await asyncio.wait({*consuming, stopping}, return_when=asyncio.FIRST_COMPLETED)
        if self._stopping.is_set():
            # Jobs see `ended` and hand themselves back to the queue before the workers are gone.
            await self._stop_running()
        ended.set()
        for each in consuming:
            each.cancel()
        await asyncio.wait(consuming, timeout=STOP_SECONDS)
        stopping.cancel()
        for each in consuming:
            if each.done() and not each.cancelled() and (error := each.exception()) is not None:
                log.warning("queue consumer failed; it is made anew", error=repr(error))

    async def _run_streaq(
        self, ended: asyncio.Event, slots: asyncio.Semaphore, count: int, priorities: Sequence[Priority]
    ) -> None:
        worker = _make_streaq_worker(self.settings, ended, count, priorities)
        worker.task(name=JOB, ttl=0, max_tries=None, timeout=None, silent=True)(
            functools.partial(_run_job, self, ended, slots)
        )
        await worker.run_async()

    async def run_or_join(self, search_id: UUID, ended: asyncio.Event, slots: asyncio.Semaphore) -> None:
        """Return when the search is done, or `ended` is set. Raises StreaqRetry when the consumer stops: another takes it."""
        running = self.running.get(search_id)
        if running is None:
            cancelled = asyncio.Event()
            running = _Running(asyncio.create_task(self._handle(search_id, cancelled, slots)), cancelled)
            self.running[search_id] = running
        gone = asyncio.create_task(ended.wait())
        try:
            await asyncio.wait({running.task, gone}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            gone.cancel()
        if self._stopping.is_set():
            await asyncio.wait({running.task}, timeout=STOP_SECONDS)
            raise streaq.StreaqRetry("the worker stops", delay=0)

    async def _handle(self, search_id: UUID, cancelled: asyncio.Event, slots: asyncio.Semaphore) -> None:
        try:
            async with slots:
                await self.handler(search_id, cancelled)
        except asyncio.CancelledError:
            if not self._stopping.is_set():
                raise
        except Exception:
            # One search must not end the worker: its lease lapses, and the sweeper sees it.
            log.exception("search handler failed", search=str(search_id))
        finally:
            self.running.pop(search_id, None)

    async def _stop_running(self) -> None:
        tasks = [running.task for running in self.running.values()]
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
                    await subscription.subscribe(cancel_channel(self.settings.queue_name))
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
            running = self.running.get(UUID(data.decode()))
            if running is not None:
                running.cancelled.set()


async def _run_job(
    consumer: Consumer, ended: asyncio.Event, slots: asyncio.Semaphore, search_id: str
) -> None:
    await consumer.run_or_join(UUID(search_id), ended, slots)


class _StreaqWorker(streaq.Worker[None]):
    """streaq's worker, that says when it no longer reads the queue."""

    ended: asyncio.Event

    async def producer(self, *args: Any, **kwargs: Any) -> None:
        try:
            await super().producer(*args, **kwargs)
        finally:
            # Whatever the cause, this worker is on its way out, and would wait for its jobs: they let go.
            self.ended.set()

    async def signal_handler(self, scope: CancelScope) -> None:
        """Nothing: streaq 7.2 takes SIGTERM from us even with `handle_signals=False`."""


def _make_streaq_worker(
    settings: SearchSettings, ended: asyncio.Event, count: int, priorities: Sequence[Priority]
) -> _StreaqWorker:
    worker = _StreaqWorker(
        redis_url=settings.redis_url,
        redis_kwargs={"connect_timeout": 2},
        concurrency=count,
        queue_name=settings.queue_name,
        priorities=[priority.value for priority in priorities],
        serializer=functools.partial(orjson.dumps, default=repr),
        deserializer=orjson.loads,
        # A worker that is silent for as long as a lease has lost its jobs too.
        idle_timeout=settings.lease_seconds,
        handle_signals=False,
    )
    # No job is fetched before it can run: one that waits here could not be overtaken by a more urgent one, and would seem
    # idle.
    worker.prefetch = worker.concurrency
    worker.ended = ended
    return worker
