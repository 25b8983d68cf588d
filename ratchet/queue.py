"""The job queue: which search is a worker to take up next. Jobs in streaq's format on Redis streams.

A job is only a nudge. What may be worked on is decided by the lease in Postgres, so a job that runs twice does no harm, and a
job that is lost is put back by `sweep`. A job is named by the search and its fence, so that putting it twice is one job, and
a search that lost its worker gets a new one.

This is the side that puts jobs; `services.search.consumer` takes them. Limits: publishing calls streaq 7.2's own Lua function
through redis-py, whose time-outs and retries are ours; it is tied to that minor version, and a test holds that streaq's
worker runs what is published here.
"""

import asyncio
import functools
import inspect
from collections.abc import Sequence
from pathlib import Path
from uuid import UUID

import orjson
import streaq
import streaq.constants as streaq_keys
import structlog
from prometheus_client import Gauge
from redis.exceptions import RedisError, ResponseError
from streaq.utils import now_ms

from ratchet import background
from ratchet.contracts.search import Priority
from ratchet.redis import make_redis
from ratchet.store.errors import StoreUnavailableError
from ratchet.store.searches import SearchStore, Waiting

log = structlog.get_logger()

JOB = "search"
"""streaq's name of the function that a job calls."""
WAITING = Gauge("ratchet_searches", "Searches that are not over, by state, at the last sweep.", ["state"])
OLDEST = Gauge("ratchet_oldest_queued_seconds", "Age of the oldest search that waits for a worker.")
PRIORITIES = [Priority.LOW, Priority.NORMAL, Priority.HIGH]
"""The least urgent first, as streaq wants them. Each has a stream of its own."""


class SearchQueue:
    """The side that puts jobs. Methods raise redis-py's RedisError when Redis is away."""

    def __init__(self, redis_url: str, queue_name: str = "search") -> None:
        self._redis = make_redis(redis_url)
        self._prefix = streaq_keys.REDIS_PREFIX + queue_name
        self._cancel_channel = cancel_channel(queue_name)

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
                    orjson.dumps({"f": JOB, "a": [str(job.id)], "k": {}, "t": now}),
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
            for priority in PRIORITIES:
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
    waiting = await store.find_lapsed(queued_seconds)
    await queue.enqueue_many(waiting)
    return len(waiting)


async def keep_sweeping(store: SearchStore, queue: SearchQueue, every_seconds: float = 3.0) -> None:
    """`sweep` for ever; what is away is tried again at the next turn."""

    async def turn() -> None:
        try:
            await sweep(store, queue)
            queued, running, oldest = await store.count_waiting()
        except (RedisError, StoreUnavailableError) as error:
            log.warning("sweep put off", error=str(error))
        else:
            WAITING.labels("queued").set(queued)
            WAITING.labels("running").set(running)
            OLDEST.set(oldest)

    await background.repeat("sweep", turn, every_seconds)


def cancel_channel(queue_name: str) -> str:
    """The Redis channel on which workers hear that a search is to be cancelled."""
    return f"ratchet:cancel:{queue_name}"


@functools.cache
def _streaq_library() -> str:
    """The Lua functions that streaq brings along."""
    return (Path(inspect.getfile(streaq)).parent / "lua" / "streaq.lua").read_text()
