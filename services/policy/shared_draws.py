"""Draws that several searches share: what a prompt and a seed gave once they give again, without the model.

An evaluation asks one problem by several strategies and with several PRMs, with the same seeds, as far as they go the same
way. A draw depends on the version, the prompt, the seed and how it is drawn, and all of that is in the key, so that nobody
gets what the engine would not have drawn for them. Who asks for a draw that is under way waits for it.

Limits: the memory is of one process and one version, and goes with it. How fast an answer comes tells that somebody asked the
same before.
"""

import asyncio
import hashlib
from array import array
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from dataclasses import replace

from services.policy.engines.base import Completion, Ended, Sampling, Tokens

MOST_TOKENS = 500_000
"""Of all kept completions together: some 50 MB."""
OVERHEAD = 10
"""What keeping a completion takes besides its tokens, in tokens."""

Row = list[Completion]


class SharedDraws:
    """The least recently used draws go first."""

    def __init__(self, most_tokens: int = MOST_TOKENS) -> None:
        self._most_tokens = most_tokens
        self._kept: OrderedDict[bytes, Row] = OrderedDict()
        self._tokens = 0
        self._under_way: dict[bytes, asyncio.Event] = {}

    async def draw(
        self, prompt: Tokens, sampling: Sampling, room: int, make: Callable[[], Awaitable[Row]]
    ) -> Row:
        """The completions of a prompt, each of at most `room` tokens, which `make` draws where they are not known."""
        key = _key(prompt, sampling)
        while True:
            row = self._kept.get(key)
            if row is not None and _fits(row, room):
                self._kept.move_to_end(key)
                return row
            other = self._under_way.get(key)
            if other is None:
                break
            # It may fail, or be given up with the request that wanted it.
            await other.wait()
        self._under_way[key] = over = asyncio.Event()
        try:
            row = await make()
            self._keep(key, row)
            return row
        finally:
            del self._under_way[key]
            over.set()

    def _keep(self, key: bytes, row: Row) -> None:
        """Keep a draw. One of more tokens than the one before serves whoever that one served, or is the same."""
        before = self._kept.pop(key, [])
        kept = max(row, before, key=_size)
        self._kept[key] = kept
        self._tokens += _size(kept) - _size(before)
        while self._tokens > self._most_tokens:
            _, oldest = self._kept.popitem(last=False)
            self._tokens -= _size(oldest)


def _key(prompt: Tokens, sampling: Sampling) -> bytes:
    """A digest of all that decides a draw but the room it has."""
    how = repr(replace(sampling, max_tokens=0)).encode()
    return hashlib.blake2b(how + b"\0" + array("q", prompt).tobytes(), digest_size=16).digest()


def _fits(row: Row, room: int) -> bool:
    """Whether these are the draws of this room: they ended by themselves within it, or were cut where it ends."""
    return all(one.tokens == room if one.ended is Ended.LENGTH else one.tokens <= room for one in row)


def _size(row: Row) -> int:
    return sum(OVERHEAD + one.tokens for one in row)
