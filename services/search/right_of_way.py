"""Less urgent searches give way: while a more urgent one is under way in this worker, the policy is not asked for them.

What they had asked is given up, and asked again afterwards with the same seed: an engine that shares itself among many would
otherwise write their texts to the end beside the urgent one's. That wastes the tokens that were written so far. So that
nothing starves, a call is put off for LONGEST_SECONDS in all, and then neither waits nor is given up.

Limits: workers do not know of one another's searches. PRM and sandbox are asked as ever; their calls are short.
"""

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable, Iterator
from typing import Any, TypeVar

from ratchet.contracts.search import Priority

A = TypeVar("A")

LONGEST_SECONDS = 60.0
_URGENCY = {Priority.LOW: 0, Priority.NORMAL: 1, Priority.HIGH: 2}


class RightOfWay:
    """What is under way in a worker, by how urgent it is."""

    def __init__(self) -> None:
        self._under_way = dict.fromkeys(Priority, 0)
        self._changed = asyncio.Event()

    @contextlib.contextmanager
    def under_way(self, priority: Priority) -> Iterator[None]:
        """Inside, a search of this priority is under way."""
        self._count(priority, 1)
        try:
            yield
        finally:
            self._count(priority, -1)

    async def ask(self, priority: Priority, call: Callable[[], Awaitable[A]]) -> A:
        """The answer to a call of a search of this priority, asked when nothing more urgent is under way."""
        if priority is Priority.HIGH:
            return await call()
        left = LONGEST_SECONDS
        while True:
            left -= await self._wait(priority, left)
            if left <= 0:
                return await call()
            asked = asyncio.ensure_future(call())
            try:
                while not asked.done() and not self._gives_way(priority):
                    await self._change_or(asked)
            except BaseException:
                asked.cancel()
                raise
            if asked.done():
                return asked.result()
            asked.cancel()
            await asyncio.wait({asked})
            if not asked.cancelled():
                return asked.result()

    def _count(self, priority: Priority, more: int) -> None:
        self._under_way[priority] += more
        # Wakes those who wait; who comes later waits for the next change.
        self._changed.set()
        self._changed = asyncio.Event()

    def _gives_way(self, priority: Priority) -> bool:
        return any(count and _URGENCY[other] > _URGENCY[priority] for other, count in self._under_way.items())

    async def _wait(self, priority: Priority, most_seconds: float) -> float:
        """Until nothing more urgent is under way, at most so long; the seconds that it took."""
        began = time.monotonic()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(most_seconds):
                while self._gives_way(priority):
                    await self._changed.wait()
        return time.monotonic() - began

    async def _change_or(self, asked: "asyncio.Future[A]") -> None:
        """Return when something changes in what is under way, or the call is answered."""
        changed = asyncio.ensure_future(self._changed.wait())
        either: set[asyncio.Future[Any]] = {asked, changed}
        try:
            await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
        finally:
            changed.cancel()
