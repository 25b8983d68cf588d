"""Events of a search: a Redis stream each, from which any number of readers follow and reconnect by id.

The stream's ids are the events' ids. Postgres is the truth; the stream is for those who watch. It keeps about the last
`KEEP_EVENTS` events, for `KEEP_SECONDS` after the newest one, and Redis may drop it sooner where it has no room (its policy is
volatile-lru, and of what we keep there only streams and marks expire). A reader who comes later asks the store. Readers say
that they are there, so that who publishes can leave out what nobody reads. What was published is also said on one channel, so
that a process with many readers asks for nothing in between.

Limits: a publish that was tried again after a lost reply can put an event into the stream twice.
"""

import contextlib
from collections.abc import AsyncGenerator, Collection, Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

import orjson
from redis.exceptions import ResponseError

from ratchet.contracts.search import EventKind, NodeView, SearchEvent
from ratchet.redis import make_redis

KEEP_EVENTS = 2000
KEEP_SECONDS = 600
"""Enough for a reader who was cut off. With texts of full length a stream is about 8 MB, usually it is 1."""
SHOWN_CHARS = 1000
"""Of each text of a node that an event carries."""
PAGE = 100
"""Events that one read gives: what a reader who is slow holds in memory."""
WATCHED_SECONDS = 15.0
"""A search counts as watched for so long after a reader said so."""
NEWS_SECONDS = 1.0
"""The longest that a look at the channel waits."""

START = "0-0"
"""The id before the first event."""
NEWS = "ratchet:news"
"""The channel. A message is the id of a search with new events, and `end` behind it with the last one."""
ID_PATTERN = r"^[0-9]{1,19}-[0-9]{1,19}$"
"""What a reader may hand back as the last id it saw; all of it fits the 64 bits that Redis has."""


@dataclass(frozen=True, slots=True)
class Event:
    """An event to publish. `data` has the shape that EventKind tells, of values that orjson can write."""

    kind: EventKind
    data: dict[str, Any]


def node_event(node: NodeView) -> Event:
    """The event of a new or changed node. Long texts are cut; the tree in the store has them whole."""
    data = node.model_dump(mode="json")
    for name in ("text", "stdout", "stderr", "answer"):
        if data[name] is not None:
            data[name] = data[name][:SHOWN_CHARS]
    return Event(EventKind.NODE, data)


def answer_event(node: NodeView) -> Event:
    """The event of a trajectory that ended in an answer."""
    data = {
        "node": node.id,
        "answer": (node.answer or "")[:SHOWN_CHARS],
        "answer_group": node.answer_group,
        "prm_score": node.prm_score,
        "votes": node.visits,
    }
    return Event(EventKind.ANSWER, data)


def end_event() -> Event:
    """The event that ends the stream. Who passes it on reads the result from the store."""
    return Event(EventKind.END, {})


def _key(search_id: UUID) -> str:
    return f"ratchet:events:{search_id}"


def _watched_key(search_id: UUID) -> str:
    return f"ratchet:watched:{search_id}"


@dataclass(frozen=True, slots=True)
class News:
    """A search has new events."""

    search_id: UUID
    over: bool
    """The last one is among them."""


class Events:
    """Publish and read. Methods raise redis-py's RedisError when Redis is away, or has no room for more."""

    def __init__(self, redis_url: str) -> None:
        self._redis = make_redis(redis_url)

    async def publish(self, search_id: UUID, events: Sequence[Event]) -> None:
        """Append events in order, in one round trip."""
        if not events:
            return
        key = _key(search_id)
        over = any(event.kind is EventKind.END for event in events)
        async with self._redis.pipeline(transaction=False) as pipe:
            for event in events:
                fields: dict[Any, Any] = {"kind": event.kind.value, "data": orjson.dumps(event.data)}
                pipe.xadd(key, fields, maxlen=KEEP_EVENTS, approximate=True)
                if event is events[0]:
                    # Before the rest: what does not expire is never dropped where there is no room.
                    pipe.expire(key, KEEP_SECONDS)
            pipe.publish(NEWS, f"{search_id} end" if over else str(search_id))
            await pipe.execute()

    async def read(self, search_id: UUID, after: str = START) -> list[SearchEvent]:
        """The next events after the id `after`, at most PAGE, the oldest first; waits for none."""
        entries: Any = await self._redis.xrange(_key(search_id), min=f"({after}", count=PAGE)
        return [
            SearchEvent(
                id=id_.decode(), kind=EventKind(fields[b"kind"].decode()), data=orjson.loads(fields[b"data"])
            )
            for id_, fields in entries
        ]

    async def lost(self, search_id: UUID, after: str) -> bool:
        """Whether events after the id `after` were dropped from the stream to bound it."""
        try:
            stream: Any = await self._redis.xinfo_stream(_key(search_id))
        except ResponseError:
            # There is no stream: nothing was published, or all of it has expired.
            return False
        first = stream["first-entry"]
        dropped = stream["entries-added"] > stream["length"]
        return dropped and first is not None and _place(first[0].decode()) > _place(after)

    async def news(self) -> AsyncGenerator[News | None, None]:
        """What is published from now on; None once it listens, and where there was nothing for NEWS_SECONDS."""
        async with self._redis.pubsub(ignore_subscribe_messages=True) as channel:
            await channel.subscribe(NEWS)
            while True:
                message = await channel.get_message(timeout=NEWS_SECONDS)
                with contextlib.suppress(ValueError):
                    yield None if message is None else _news_of(message["data"].decode(errors="replace"))

    async def watch(self, search_ids: Collection[UUID]) -> None:
        """Say that somebody reads the events of these searches now."""
        async with self._redis.pipeline(transaction=False) as pipe:
            for search_id in search_ids:
                pipe.set(_watched_key(search_id), b"1", px=int(WATCHED_SECONDS * 1000))
            await pipe.execute()

    async def is_watched(self, search_id: UUID) -> bool:
        """Whether somebody read the events of this search in the last WATCHED_SECONDS."""
        return bool(await self._redis.exists(_watched_key(search_id)))

    async def end(self, search_id: UUID) -> str | None:
        """Id of the search's last event, if that is `end`; None while there may be more, START when nothing is kept."""
        entries: Any = await self._redis.xrevrange(_key(search_id), count=1)
        if not entries:
            return START
        id_, fields = entries[0]
        return id_.decode() if fields[b"kind"].decode() == EventKind.END else None

    async def ping(self) -> None:
        """Raise RedisError unless Redis answers."""
        await self._redis.ping()

    async def aclose(self) -> None:
        """Close the connections."""
        await self._redis.aclose()


def _news_of(message: str) -> News:
    search_id, _, end = message.partition(" ")
    return News(UUID(search_id), over=end == "end")


def _place(event_id: str) -> tuple[int, int]:
    milliseconds, _, number = event_id.partition("-")
    return int(milliseconds), int(number)
