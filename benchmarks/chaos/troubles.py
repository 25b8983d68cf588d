"""What a stack is put through: kills, a frozen worker, a wiped Redis, and everything away for long."""

import asyncio
import contextlib
import os
import random
import signal
import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from typing import Any

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
FROZEN_SECONDS = 45.0
"""At the most: the supervisor ends a process that says nothing for a minute."""
HOLDERS = "SELECT split_part(owner, ':', 2), count(*) FROM searches WHERE state = 'running' GROUP BY 1"
"""Process numbers of workers, and how many searches they hold."""
HELD_BY = "SELECT id FROM searches WHERE state = 'running' AND split_part(owner, ':', 2) = :pid"


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


async def freeze_a_worker(stack: Stack) -> int:
    """The worker that holds most searches says nothing until others have taken them over, and goes on where it was.

    Gives how many were taken over. Raises TimeoutError where no worker holds any.
    """
    engine = make_engine(stack.urls.database)

    async def rows(query: str, **values: object) -> Sequence[Any]:
        async with transaction(engine) as connection:
            return (await connection.execute(text(query), values)).all()

    async with asyncio.timeout(BACK_SECONDS):
        while True:
            workers = stack.pids(["search-worker"])
            held = {int(pid): int(count) for pid, count in await rows(HOLDERS) if int(pid) in workers}
            if held and kill(frozen := max(held, key=lambda pid: held[pid]), signal.SIGSTOP):
                break
            await asyncio.sleep(AGAIN_SECONDS)
    try:
        known = left = {search for [search] in await rows(HELD_BY, pid=str(frozen))}
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(FROZEN_SECONDS):
                while left:
                    await asyncio.sleep(AGAIN_SECONDS)
                    left = known & {search for [search] in await rows(HELD_BY, pid=str(frozen))}
    finally:
        kill(frozen, signal.SIGCONT)
        await engine.dispose()
    return len(known) - len(left)


async def flush_redis(urls: StackUrls) -> None:
    """All jobs and events are gone."""
    redis = make_redis(urls.redis)
    await redis.flushall()
    await redis.aclose()
