"""What a stack is put through: kills, a frozen worker, a wiped Redis, and everything away for long."""

import asyncio
import contextlib
import os
import random
import signal
import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field

from sqlalchemy import text

from ratchet.redis import make_redis
from ratchet.stack.config import StackUrls
from ratchet.stack.supervisor import ChildState, ChildStatus
from ratchet.store.engine import make_engine, transaction

BACKENDS = ("policy", "prm", "sandbox")
STORES = ("postgres", "valkey")
VICTIMS = (*BACKENDS, *STORES, "search", "search-worker")
AGAIN_SECONDS = 0.05
"""What has to stay away is killed again as soon as it is started."""
BACK_SECONDS = 180.0
HOLDERS = """
    SELECT split_part(owner, ':', 2), count(*) FROM searches
    WHERE state = 'running' AND lease_until > clock_timestamp() GROUP BY 1 ORDER BY 2 DESC
"""
"""Process numbers of workers, and how many searches they hold."""


@dataclass
class Stack:
    """A running stack, as its supervisor sees it."""

    urls: StackUrls
    children: Sequence[ChildStatus] = ()
    killed: dict[str, int] = field(default_factory=dict)
    """Kills of the first part, by victim."""

    def pids(self, names: Collection[str]) -> list[int]:
        """Of the children with these names; workers have one for all."""
        return [
            child.pid
            for child in self.children
            if child.pid is not None and child.name.rstrip("-0123456789") in names
        ]

    async def all_ready(self) -> None:
        """Return when every part is back."""
        settled = (ChildState.READY, ChildState.DONE)
        deadline = time.monotonic() + BACK_SECONDS
        while not self.children or any(child.state not in settled for child in self.children):
            if time.monotonic() > deadline:
                raise TimeoutError(f"not back: {[(each.name, each.state.value) for each in self.children]}")
            await asyncio.sleep(0.1)


def kill(pid: int, signum: int = signal.SIGKILL) -> bool:
    """Whether there was something to send the signal to."""
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signum)
        return True
    return False


async def kill_at_random(
    stack: Stack, draw: random.Random, kills: int, every_seconds: float, going_on: Callable[[], bool]
) -> int:
    """Kill one part after another with -9, whatever state the others are in; how many. Ends early when nothing goes on."""
    done = 0
    while done < kills and going_on():
        await asyncio.sleep(every_seconds * draw.uniform(0.5, 1.5))
        victim = draw.choice(VICTIMS)
        pids = stack.pids([victim])
        if pids and kill(draw.choice(pids)):
            done += 1
            stack.killed[victim] = stack.killed.get(victim, 0) + 1
    return done


async def keep_away(stack: Stack, names: Collection[str], seconds: float) -> None:
    """These parts are away for so long: each is killed whenever it is there."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            while True:
                for pid in stack.pids(names):
                    kill(pid)
                await asyncio.sleep(AGAIN_SECONDS)


async def freeze_a_worker(stack: Stack, seconds: float) -> int:
    """The worker that holds most searches says nothing for longer than its lease, and goes on where it was; how many it held.

    Raises TimeoutError where none takes any up.
    """
    engine = make_engine(stack.urls.database)
    async with asyncio.timeout(BACK_SECONDS):
        while True:
            async with transaction(engine) as connection:
                rows = (await connection.execute(text(HOLDERS))).all()
            workers = stack.pids(["search-worker"])
            found = [(int(pid), int(held)) for pid, held in rows if int(pid) in workers]
            if found and kill(found[0][0], signal.SIGSTOP):
                break
            await asyncio.sleep(AGAIN_SECONDS)
    await engine.dispose()
    [(pid, held), *_] = found
    await asyncio.sleep(seconds)
    kill(pid, signal.SIGCONT)
    return held


async def flush_redis(urls: StackUrls) -> None:
    """All jobs and events are gone."""
    redis = make_redis(urls.redis)
    await redis.flushall()
    await redis.aclose()
