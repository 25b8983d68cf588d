"""What all followers of searches in this process wait for, asked once for all of them.

One task asks the store which of the followed searches are over, in one query a turn; one connection to Redis hears which of
them have new events. A follower sleeps until one of the two says so, and reads then at its own pace: a slow one holds a page of
events, an idle one nothing.

Limits: while Postgres is away nobody hears that a search is over, unless its last event says so. News that Redis loses with a
connection are made up for when there is another one: all look then.
"""

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Collection, Coroutine, Iterator
from dataclasses import dataclass, field
from typing import Any, Protocol
from uuid import UUID

import structlog
from prometheus_client import Gauge
from redis.exceptions import RedisError

from ratchet import background
from ratchet.events import WATCHED_SECONDS, Events
from ratchet.states import SEARCH_TRANSITIONS, SearchState, is_end
from ratchet.store.errors import StoreUnavailableError

log = structlog.get_logger()

FOLLOWERS = Gauge("ratchet_followers", "Callers that follow searches, or wait for one, in this process.")
POLL_SECONDS = 1.0
SHORTEST_SECONDS = 0.05
"""Between two queries, however many searches end."""
AWAY_SECONDS = 2.0
"""Before the store or Redis, which did not answer, is asked again."""


class TooManyFollowersError(Exception):
    """This process has as many followers as it may have."""


class StatesOf(Protocol):
    """The store's question."""

    def states(self, search_ids: Collection[UUID]) -> Awaitable[dict[UUID, SearchState]]:
        """The states of those that are known. Raises StoreUnavailableError."""


@dataclass(slots=True)
class Followed:
    """A search that somebody follows. `changed` is set when there may be something new, and another takes its place."""

    over: bool = False
    changed: asyncio.Event = field(default_factory=asyncio.Event)
    followers: int = 0
    readers: int = 0
    """Followers that read its events."""

    def wake(self) -> None:
        """Let all followers look."""
        self.changed.set()
        self.changed = asyncio.Event()


class Newsroom:
    """As many as `most` may `follow` searches, as long as its `loops` run."""

    def __init__(self, store: StatesOf, events: Events, most: int) -> None:
        self._store = store
        self._events = events
        self._most = most
        self._followed: dict[UUID, Followed] = {}
        self._ask = asyncio.Event()
        self._watched: dict[UUID, float] = {}
        """When a search was last said to be read."""

    @property
    def followers(self) -> int:
        """How many there are."""
        return sum(each.followers for each in self._followed.values())

    def require_room(self) -> None:
        """Raise TooManyFollowersError where one more may not follow."""
        if self.followers >= self._most:
            raise TooManyFollowersError(f"{self._most} callers follow searches here already.")

    @contextlib.contextmanager
    def follow(self, search_id: UUID, *, reads: bool) -> Iterator[Followed]:
        """The search, as long as the block runs. `reads`: its events are read, so its worker has to tell them."""
        followed = self._followed.setdefault(search_id, Followed())
        followed.followers += 1
        followed.readers += reads
        self._ask.set()
        FOLLOWERS.inc()
        try:
            yield followed
        finally:
            FOLLOWERS.dec()
            followed.followers -= 1
            followed.readers -= reads
            if not followed.followers:
                self._followed.pop(search_id, None)
                self._watched.pop(search_id, None)

    def loops(self) -> list[Coroutine[Any, Any, None]]:
        """What has to run as long as anybody follows."""
        return [
            background.restart("followers ask", self.keep_asking),
            background.restart("followers listen", self.keep_listening),
        ]

    async def keep_asking(self) -> None:
        """Ask the store for ever, while somebody follows."""
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(POLL_SECONDS):
                    await self._ask.wait()
            self._ask.clear()
            try:
                await self._ask_store()
                await self._say_who_is_read()
            except (StoreUnavailableError, RedisError) as error:
                log.warning("followers wait", error=str(error), followers=self.followers)
                await asyncio.sleep(AWAY_SECONDS)
            await asyncio.sleep(SHORTEST_SECONDS)

    async def keep_listening(self) -> None:
        """Hear what is published, for ever."""
        while True:
            try:
                async with contextlib.aclosing(self._events.news()) as news:
                    listening = False
                    async for each in news:
                        if each is None and not listening:
                            # Whatever was published before this, nobody was told.
                            self._wake_all()
                            listening = True
                        if each is not None and (followed := self._followed.get(each.search_id)) is not None:
                            followed.wake()
                            if each.over:
                                self._ask.set()
            except RedisError as error:
                log.warning("no news", error=str(error), followers=self.followers)
                # Those who read find that Redis is away, and tell their callers.
                self._wake_all()
                await asyncio.sleep(AWAY_SECONDS)

    async def _ask_store(self) -> None:
        open_ = [search_id for search_id, each in self._followed.items() if not each.over]
        if not open_:
            return
        states = await self._store.states(open_)
        for search_id in open_:
            state, followed = states.get(search_id), self._followed.get(search_id)
            # One that is no longer there was deleted: nothing follows.
            if followed is not None and (state is None or is_end(SEARCH_TRANSITIONS, state)):
                followed.over = True
                followed.wake()

    async def _say_who_is_read(self) -> None:
        now = time.monotonic()
        due = [
            search_id
            for search_id, each in self._followed.items()
            if each.readers and now - self._watched.get(search_id, -WATCHED_SECONDS) > WATCHED_SECONDS / 3
        ]
        if due:
            await self._events.watch(due)
            self._watched.update(dict.fromkeys(due, now))

    def _wake_all(self) -> None:
        for followed in self._followed.values():
            followed.wake()
