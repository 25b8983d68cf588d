"""Follow a search to its end: wait for it, or stream its events. Events say it soon, the store says it for certain."""

import asyncio
import time
from collections.abc import AsyncIterator
from typing import Any
from uuid import UUID

import orjson
import structlog
from fastapi import Request
from redis.exceptions import RedisError
from sse_starlette import ServerSentEvent

from ratchet.contracts.search import EventKind
from ratchet.events import BLOCK_SECONDS, Events
from ratchet.states import SEARCH_TRANSITIONS, is_end
from ratchet.store.engine import StoreUnavailableError
from ratchet.store.searches import SearchStore

log = structlog.get_logger()

END_SECONDS = 2.0
"""How long the last event of a search that is over is waited for: its worker may have died before it was published."""


async def wait_for_end(
    store: SearchStore, events: Events, search_id: UUID, seconds: float, request: Request
) -> None:
    """Return when the search is over, the time is up, or the caller has gone."""
    deadline = time.monotonic() + seconds
    seen = await events.newest(search_id)
    gone = asyncio.create_task(_disconnected(request))
    try:
        # The store is asked at least every BLOCK_SECONDS: an event can be lost, the state cannot.
        while not await _is_over(store, search_id):
            left = deadline - time.monotonic()
            if left <= 0 or gone.done():
                return
            for event in await events.read(search_id, seen, block_seconds=min(left, BLOCK_SECONDS)):
                seen = event.id
    finally:
        gone.cancel()


async def stream_events(
    store: SearchStore, events: Events, search_id: UUID, since: str
) -> AsyncIterator[ServerSentEvent]:
    """All events after the id `since`, as they come, up to `end`. Breaks off when the store or Redis goes away."""
    try:
        while True:
            await events.watch(search_id)
            # Asked before the read: when it is over and nothing is left to read, no event was missed.
            over = await _is_over(store, search_id)
            # The worker ends a search first in the store, and publishes the end a moment later.
            published = over and await events.end(search_id) is not None
            wait = 0 if published else END_SECONDS if over else BLOCK_SECONDS
            batch = await events.read(search_id, since, block_seconds=wait)
            for event in batch:
                if event.kind is EventKind.END:
                    yield _sse(EventKind.END, await _read_end(store, search_id), event.id)
                    return
                yield _sse(event.kind, event.data, event.id)
                since = event.id
            if over and not batch:
                # The stream has expired, or its last events were lost: the store knows how it ended.
                end = await _read_end(store, search_id)
                yield _sse(EventKind.STATE, {"state": end["state"], "reason": end["reason"]})
                yield _sse(EventKind.END, end)
                return
    except (RedisError, StoreUnavailableError) as error:
        # The reader comes back with the last id it saw, and is told 503 until this is mended.
        log.warning("event stream broken off", search=str(search_id), error=str(error))


async def _disconnected(request: Request) -> None:
    """Return when the caller has gone."""
    # Not `request.is_disconnected()`, which never says so under Starlette's HTTP middleware.
    while (await request.receive())["type"] != "http.disconnect":
        pass


async def _read_end(store: SearchStore, search_id: UUID) -> dict[str, Any]:
    """The result as the store has it. An event that says that a search is over need not carry it."""
    result = await store.result(search_id)
    if result is None:
        raise StoreUnavailableError(f"search {search_id} is gone")
    return result.model_dump(mode="json")


async def _is_over(store: SearchStore, search_id: UUID) -> bool:
    state = await store.state(search_id)
    return state is None or is_end(SEARCH_TRANSITIONS, state)


def _sse(kind: EventKind, data: dict[str, Any], event_id: str | None = None) -> ServerSentEvent:
    return ServerSentEvent(data=orjson.dumps(data).decode(), event=kind.value, id=event_id)
