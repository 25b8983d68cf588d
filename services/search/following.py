"""Follow a search to its end: wait for it, or stream its events. Events say it soon, the store says it for certain."""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator
from typing import Any
from uuid import UUID

import orjson
import structlog
from fastapi import Request
from redis.exceptions import RedisError
from sse_starlette import EventSourceResponse, ServerSentEvent
from sse_starlette.sse import SendTimeoutError
from starlette.types import Receive, Scope, Send

from ratchet.contracts.search import EventKind
from ratchet.events import PAGE, START, Events
from ratchet.states import SEARCH_TRANSITIONS, is_end
from ratchet.store.errors import StoreUnavailableError
from ratchet.store.searches import SearchStore
from ratchet.web.event_data import on_one_line
from services.search.news import Newsroom

log = structlog.get_logger()

HEARTBEAT_SECONDS = 15
END_SECONDS = 2.0
"""How long the last event of a search that is over is waited for: its worker may have died before it was published."""
SEND_SECONDS = 30.0
"""A reader who takes nothing for so long is cut off; what it had not taken it gets when it comes back with the last id."""
GAP = "Events before this one are no longer kept. The tree has all nodes: GET /search/{id}/tree."


class EventStream(EventSourceResponse):
    """A stream of events that breaks off where its reader takes nothing."""

    def __init__(self, events: AsyncIterator[ServerSentEvent]) -> None:
        super().__init__(
            events,
            ping=HEARTBEAT_SECONDS,
            headers={"X-Accel-Buffering": "no"},
            send_timeout=SEND_SECONDS,
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer the request."""
        try:
            await super().__call__(scope, receive, send)
        except* SendTimeoutError:
            log.info("reader cut off, as it takes nothing", path=scope["path"], seconds=SEND_SECONDS)


async def wait_for_end(
    store: SearchStore, newsroom: Newsroom, search_id: UUID, seconds: float, request: Request
) -> None:
    """Return when the search is over, the time is up, or the caller has gone."""
    deadline = time.monotonic() + seconds
    if await _is_over(store, search_id):
        return
    gone = asyncio.create_task(_disconnected(request))
    try:
        with newsroom.follow(search_id, reads=False) as followed:
            while not followed.over and not gone.done() and (left := deadline - time.monotonic()) > 0:
                changed = asyncio.create_task(followed.changed.wait())
                await asyncio.wait({gone, changed}, timeout=left, return_when=asyncio.FIRST_COMPLETED)
                changed.cancel()
    finally:
        gone.cancel()


async def stream_events(
    store: SearchStore, newsroom: Newsroom, events: Events, search_id: UUID, since: str
) -> AsyncIterator[ServerSentEvent]:
    """All events after the id `since`, as they come, up to `end`. Breaks off when the store or Redis goes away."""
    try:
        with newsroom.follow(search_id, reads=True) as followed:
            late = False
            behind = True
            while True:
                # Taken before the read: what is published after it wakes us.
                changed, over = followed.changed, followed.over
                if behind and await events.lost(search_id, since):
                    yield _sse(EventKind.GAP, {"reason": GAP}, since)
                batch = await events.read(search_id, since)
                for event in batch:
                    since = event.id
                    if event.kind is not EventKind.END:
                        yield _sse(event.kind, event.data, event.id)
                    elif await _is_over(store, search_id):
                        yield _sse(EventKind.END, await _read_end(store, search_id), event.id)
                        return
                behind = len(batch) == PAGE
                if batch:
                    continue
                if over:
                    end = await events.end(search_id)
                    if late or end in (START, since):
                        break
                    # The worker ends a search first in the store, and publishes the end a moment later.
                    late = True
                    if end is not None:
                        continue
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(END_SECONDS if over else None):
                        await changed.wait()
        # The stream has expired, or its last events were lost: the store knows how it ended.
        result = await _read_end(store, search_id)
        yield _sse(EventKind.STATE, {"state": result["state"], "reason": result["reason"]})
        yield _sse(EventKind.END, result)
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
    return ServerSentEvent(data=on_one_line(orjson.dumps(data).decode()), event=kind.value, id=event_id)
