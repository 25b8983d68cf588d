"""Events of a search: a Redis stream each, from which any number of readers follow and reconnect by id.

The stream's ids are the events' ids. Postgres is the truth; the stream is for those who watch. It keeps about the last
`KEEP_EVENTS` events, for `KEEP_SECONDS` after the newest one. A reader who comes later asks the store. Readers say that they
are there, so that who publishes can leave out what nobody reads.

Limits: a publish that was tried again after a lost reply can put an event into the stream twice.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

import orjson

from ratchet.contracts.search import EventKind, NodeView, SearchEvent
from ratchet.redis import REPLY_SECONDS, make_redis

KEEP_EVENTS = 20_000
KEEP_SECONDS = 3600
"""Enough for a reader who was cut off; with text of full length a stream can be 240 MB, usually it is 2."""
BLOCK_SECONDS = 2.0
"""The longest that a read waits for an event."""
SHOWN_CHARS = 4000
"""Of each text of a node that an event carries."""
WATCHED_SECONDS = 15.0
"""A search counts as watched for so long after a reader said so; one says so at each read."""
READERS = 512
"""Reads of one process at a time; more wait for a connection."""

START = "0-0"
"""The id before the first event."""
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
    answer = (node.answer or "")[:SHOWN_CHARS]
    return Event(
        EventKind.ANSWER,
        {"node": node.id, "answer": answer, "prm_score": node.prm_score, "votes": node.visits},
    )


def end_event() -> Event:
    """The event that ends the stream. Who passes it on reads the result from the store."""
    return Event(EventKind.END, {})


def _key(search_id: UUID) -> str:
    return f"ratchet:events:{search_id}"


def _watched_key(search_id: UUID) -> str:
    return f"ratchet:watched:{search_id}"


class Events:
    """Publish and read. Methods raise redis-py's RedisError when Redis is away."""

    def __init__(self, redis_url: str) -> None:
        self._redis = make_redis(redis_url)
        # A blocking read holds its connection, so readers have a pool of their own and never stand in a writer's way.
        self._readers = make_redis(
            redis_url, connections=READERS, reply_seconds=BLOCK_SECONDS + REPLY_SECONDS
        )

    async def publish(self, search_id: UUID, events: Sequence[Event]) -> None:
        """Append events in order, in one round trip."""
        if not events:
            return
        key = _key(search_id)
        async with self._redis.pipeline(transaction=False) as pipe:
            for event in events:
                fields: dict[Any, Any] = {"kind": event.kind.value, "data": orjson.dumps(event.data)}
                pipe.xadd(key, fields, maxlen=KEEP_EVENTS, approximate=True)
            pipe.expire(key, KEEP_SECONDS)
            await pipe.execute()

    async def read(
        self, search_id: UUID, after: str = START, *, block_seconds: float = BLOCK_SECONDS
    ) -> list[SearchEvent]:
        """Events after the id `after`, the oldest first; waits up to `block_seconds` (at most BLOCK_SECONDS) for one."""
        block = max(1, int(min(block_seconds, BLOCK_SECONDS) * 1000))
        reply: Any = await self._readers.xread({_key(search_id): after}, count=500, block=block)
        if not reply:
            return []
        # RESP2 answers with pairs, RESP3 with a mapping.
        entries = next(iter(reply.values()))[0] if isinstance(reply, dict) else reply[0][1]
        return [
            SearchEvent(
                id=id_.decode(), kind=EventKind(fields[b"kind"].decode()), data=orjson.loads(fields[b"data"])
            )
            for id_, fields in entries
        ]

    async def watch(self, search_id: UUID) -> None:
        """Say that somebody reads the events of this search now."""
        await self._redis.set(_watched_key(search_id), b"1", px=int(WATCHED_SECONDS * 1000))

    async def is_watched(self, search_id: UUID) -> bool:
        """Whether somebody read the events of this search in the last WATCHED_SECONDS."""
        return bool(await self._redis.exists(_watched_key(search_id)))

    async def newest(self, search_id: UUID) -> str:
        """Id of the newest event; START when there is none."""
        entries: Any = await self._redis.xrevrange(_key(search_id), count=1)
        return entries[0][0].decode() if entries else START

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
        await self._readers.aclose()
