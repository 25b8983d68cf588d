"""Loops that run beside a service's work for as long as it does: an exception in one is logged, counted, and tried again.

`repeat` calls a function every few seconds, `restart` keeps a loop that waits for events going; `running` runs some of them
for a block. A loop of `repeat` that has not come round for too long is silent: `/livez` says so, and whoever supervises the
process starts it anew. A loop that stands between two events cannot be told from one that hangs, so `restart` has no such
limit.
"""

import asyncio
import contextlib
import random
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from typing import Any

import structlog
from prometheus_client import Counter

log = structlog.get_logger()

SHORTEST_PAUSE, LONGEST_PAUSE = 0.5, 30.0
"""Seconds before a loop that failed goes on: doubled with each failure in a row, with jitter."""
GOOD_SECONDS = 60.0
"""A loop that held for so long was a good one: its next failure counts as the first."""
SILENT_SECONDS = 180.0
"""A loop that has not come round for so long hangs: more than all time-outs and retries of a call to the store."""

FAILURES = Counter("ratchet_loop_failures", "Exceptions in loops beside the service's work.", ["loop"])

_beats: dict[object, tuple[str, float]] = {}
"""By loop: its name, and until when it has to come round again, on the monotonic clock."""


async def repeat(
    name: str,
    turn: Callable[[], Awaitable[object]],
    every_seconds: float,
    silent_seconds: float = SILENT_SECONDS,
) -> None:
    """Call `turn` for ever, with a pause in between. Whatever it raises is logged and counted, and it is called again."""
    token, failed = object(), 0
    try:
        while True:
            _beats[token] = name, time.monotonic() + silent_seconds + max(every_seconds, LONGEST_PAUSE)
            try:
                await turn()
                failed = 0
            except Exception:
                failed += 1
                FAILURES.labels(name).inc()
                log.exception("a loop has failed; it goes on", loop=name)
            await asyncio.sleep(every_seconds if not failed else max(every_seconds, _pause(failed)))
    finally:
        _beats.pop(token, None)


async def restart(name: str, loop: Callable[[], Awaitable[object]]) -> None:
    """Run a loop that is meant to run for ever; one that fails, or ends, is logged, counted and begun again."""
    failed = 0
    while True:
        began = time.monotonic()
        try:
            await loop()
            log.error("a loop has ended that should not", loop=name)
            FAILURES.labels(name).inc()
        except Exception:
            FAILURES.labels(name).inc()
            log.exception("a loop has failed; it goes on", loop=name)
        failed = 1 if time.monotonic() - began > GOOD_SECONDS else failed + 1
        await asyncio.sleep(_pause(failed))


@contextlib.asynccontextmanager
async def running(*loops: Coroutine[Any, Any, None]) -> AsyncIterator[None]:
    """These loops run while the block does."""
    tasks = [asyncio.create_task(loop) for loop in loops]
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def silent_loops() -> list[str]:
    """Names of the loops of this process that should have come round by now."""
    now = time.monotonic()
    return sorted(name for name, until in _beats.values() if now > until)


def _pause(failed: int) -> float:
    return min(LONGEST_PAUSE, SHORTEST_PAUSE * 2.0 ** min(failed - 1, 16)) * random.uniform(0.75, 1.25)  # noqa: S311
