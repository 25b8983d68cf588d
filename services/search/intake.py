"""How a search is taken in, and how it is called off: the one way for all routes that do either."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from http import HTTPStatus
from uuid import UUID

import structlog
from fastapi import Request
from redis.exceptions import RedisError

from ratchet.contracts.search import EventKind, SearchRequest, SearchResult
from ratchet.events import Event, Events, end_event
from ratchet.queue import SearchQueue
from ratchet.settings import SearchSettings
from ratchet.states import SearchState
from ratchet.store.backlog import Backlog
from ratchet.store.search_requests import Branch, IdempotencyConflictError
from ratchet.store.searches import SearchStore
from ratchet.web.app import ProblemError
from ratchet.web.door.callers import Caller
from services.search.access import Access, own_idempotency_key
from services.search.news import Newsroom

log = structlog.get_logger()

FULL_SECONDS = 10
"""After which a caller may find room in a queue that is full."""
STORED_AT_ONCE = 8
"""Searches that are stored at the same moment. More are no faster, and would leave no connection to those who read; the others
wait in the order in which they came, which waiting for a connection does not keep."""
TURN_SECONDS = 20.0
"""So long a caller waits for that, at most: then Postgres is in trouble."""


@dataclass(frozen=True, slots=True)
class Intake:
    """Takes searches in and calls them off."""

    settings: SearchSettings
    store: SearchStore
    queue: SearchQueue
    events: Events
    newsroom: Newsroom
    backlog: Backlog
    access: Access
    _storing: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(STORED_AT_ONCE))

    async def begin(
        self,
        body: SearchRequest,
        caller: Caller,
        idempotency_key: str | None = None,
        *,
        followed: bool,
        branch: Branch | None = None,
    ) -> UUID:
        """Store the search and put it before the workers. `followed`: the caller will wait for it here.

        `branch`: it goes on from another one.

        Raises ProblemError (403, 409, 429, 503), TooManyFollowersError, StoreUnavailableError, RedisError.
        """
        # Before anything is stored, so that a caller who is told to come back has not begun a search.
        await self.queue.ping()
        if followed:
            self.newsroom.require_room()
        own_key = own_idempotency_key(caller, idempotency_key)
        try:
            async with self._turn():
                await self._require_room(body, own_key)
                async with self.access.beginning(caller, body, own_key):
                    search_id, created = await self.store.create(body, own_key, caller.key_id, branch)
        except IdempotencyConflictError as error:
            raise ProblemError(HTTPStatus.CONFLICT, str(error)) from error
        if created:
            # From here the search is safe: should Redis go away now, the sweeper puts the job.
            with redis_may_be_away("job put off"):
                await self.queue.enqueue(search_id, body.priority)
                await self.events.publish(search_id, [state_event(SearchState.QUEUED, None)])
        return search_id

    async def call_off(self, search_id: UUID) -> SearchResult | None:
        """Stop a search and keep the best answer so far; one that is over stays as it is. None: unknown."""
        before = await self.store.state(search_id)
        after = await self.store.request_cancel(search_id)
        result = None if after is None else await self.store.result(search_id)
        if result is None:
            return None
        # Both are for speed: the worker also reads the flag in Postgres, readers of events also ask the store.
        with redis_may_be_away("news of a cancellation put off"):
            if after is SearchState.RUNNING:
                await self.queue.cancel(search_id)
            elif before is SearchState.QUEUED and after is not None:
                await self.events.publish(search_id, [state_event(after, result.reason), end_event()])
        return result

    @contextlib.asynccontextmanager
    async def _turn(self) -> AsyncIterator[None]:
        """One of those who store. Raises a problem (503) where none gets done."""
        try:
            async with asyncio.timeout(TURN_SECONDS):
                await self._storing.acquire()
        except TimeoutError:
            raise ProblemError(
                HTTPStatus.SERVICE_UNAVAILABLE,
                f"The search could not be stored within {TURN_SECONDS:g} s. Try again later.",
                headers={"Retry-After": str(FULL_SECONDS)},
            ) from None
        try:
            yield
        finally:
            self._storing.release()

    async def _require_room(self, body: SearchRequest, idempotency_key: str | None) -> None:
        """Raise a problem (503) where as many searches wait as may; a retry of one that was taken in is always answered."""
        most = self.settings.max_queued
        if not await self.backlog.is_full(body.priority, most):
            return
        if idempotency_key is not None and await self.backlog.is_known(idempotency_key):
            return
        raise ProblemError(
            HTTPStatus.SERVICE_UNAVAILABLE,
            f"{most} searches of priority {body.priority} wait already. Try again later.",
            headers={"Retry-After": str(FULL_SECONDS)},
        )


async def intake(request: Request) -> Intake:
    """The app's intake."""
    found: Intake = request.app.state.intake
    return found


@contextlib.contextmanager
def redis_may_be_away(put_off: str) -> Iterator[None]:
    """Inside, Redis is for speed alone: when it is away, say in the log what is put off, and go on."""
    try:
        yield
    except RedisError as error:
        log.warning(put_off, error=str(error))


def state_event(state: SearchState, reason: str | None) -> Event:
    """The event of a change of state."""
    return Event(EventKind.STATE, {"state": state.value, "reason": reason})
