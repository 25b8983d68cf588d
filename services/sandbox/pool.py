"""A fixed number of zygotes of one purpose. One that dies, or has served long enough, is replaced in the background.

Whoever takes a zygote holds a permit (`admission.py`). There are as many permits as zygotes, so one is free or about to be.
"""

import asyncio
import functools

import structlog

from ratchet import background
from services.sandbox.jail import Purpose
from services.sandbox.runs import Run, RunOutcome, run_in_zygote
from services.sandbox.zygotes import (
    MAX_TASKS,
    START_SECONDS,
    Level,
    Zygote,
    ZygoteDiedError,
    join_cgroup,
    start_zygote,
    stop_zygote,
)

log = structlog.get_logger()

RECYCLE_AFTER = 10_000
"""Requests that one zygote serves. Starting a new one costs about as much as a hundred of them."""
ATTEMPTS = 3
RESTART_SECONDS = (0.1, 10.0)
"""The first and the longest wait after a zygote did not start."""


class Pool:
    """Zygotes by name, and those of them that are free."""

    def __init__(
        self,
        purpose: Purpose,
        level: Level,
        *,
        size: int,
        max_output_bytes: int,
        recycle_after: int = RECYCLE_AFTER,
    ) -> None:
        self.purpose = purpose
        self.level = level
        self.size = size
        self.replaced = 0
        self._max_output_bytes = max_output_bytes
        self._recycle_after = recycle_after
        self._free: asyncio.Queue[Zygote] = asyncio.Queue()
        self._all: dict[str, Zygote] = {}
        self._keepers: list[asyncio.Task[None]] = []
        self._stopping: set[asyncio.Task[None]] = set()

    async def start(self) -> None:
        """Start all zygotes. Raises ZygoteDiedError."""
        names = [f"{self.purpose}-{number}" for number in range(self.size)]
        started = await asyncio.gather(*(self._start_one(name) for name in names), return_exceptions=True)
        for name, zygote in zip(names, started, strict=True):
            if isinstance(zygote, Zygote):
                self._all[name] = zygote
        for zygote in started:
            if isinstance(zygote, BaseException):
                await self.stop()
                raise zygote
        for name in names:
            self._free.put_nowait(self._all[name])
            self._keepers.append(
                asyncio.create_task(background.restart("zygote", functools.partial(self._keep, name)))
            )

    async def stop(self) -> None:
        """End all zygotes, and whatever runs in them."""
        for keeper in self._keepers:
            keeper.cancel()
        await asyncio.gather(*self._keepers, return_exceptions=True)
        await asyncio.gather(*(stop_zygote(zygote) for zygote in self._all.values()), *self._stopping)
        self._all.clear()

    @property
    def cgroup_layers(self) -> list[str]:
        """Which limits of control groups hold, for the health report."""
        cgroups = [zygote.cgroup for zygote in self._all.values()]
        return cgroups[0].layers if cgroups and cgroups[0] is not None else []

    async def run(self, run: Run) -> RunOutcome:
        """Run one request on a free zygote; on another one if the zygote died under it.

        Raises ZygoteDiedError, NotConfinedError.
        """
        for attempt in range(1, ATTEMPTS + 1):
            zygote = await self._take()
            try:
                return await run_in_zygote(zygote, self.level, run, self._max_output_bytes)
            except ZygoteDiedError as error:
                log.warning("zygote died", purpose=self.purpose, attempt=attempt, reason=str(error))
                if attempt == ATTEMPTS:
                    raise
            finally:
                zygote.idle.set()
                if zygote.served >= self._recycle_after:
                    zygote.old.set()
                if zygote.usable and zygote in self._all.values():
                    self._free.put_nowait(zygote)
        raise AssertionError("the last attempt returns or raises")

    async def _take(self) -> Zygote:
        try:
            async with asyncio.timeout(START_SECONDS):
                while True:
                    zygote = await self._free.get()
                    if zygote.usable and zygote in self._all.values():
                        break
        except TimeoutError as error:
            raise ZygoteDiedError(f"no {self.purpose} zygote is there") from error
        zygote.idle.clear()
        return zygote

    async def _keep(self, name: str) -> None:
        """Watch over one place of the pool: where its zygote ends or is old, put a new one there."""
        while True:
            zygote = self._all[name]
            signs = [
                asyncio.create_task(sign)
                for sign in (zygote.process.wait(), zygote.lost.wait(), zygote.old.wait())
            ]
            try:
                await asyncio.wait(signs, return_when=asyncio.FIRST_COMPLETED)
            finally:
                for sign in signs:
                    sign.cancel()
            wait, longest = RESTART_SECONDS
            while True:
                try:
                    new = await self._start_one(name)
                    break
                except ZygoteDiedError as error:
                    log.warning("zygote did not start", purpose=self.purpose, reason=str(error))
                    await asyncio.sleep(wait)
                    wait = min(2 * wait, longest)
            self.replaced += 1
            self._all[name] = new
            self._free.put_nowait(new)
            self._retire(zygote)

    def _retire(self, zygote: Zygote) -> None:
        """Stop a zygote once its run is over."""

        async def stop() -> None:
            await zygote.idle.wait()
            await stop_zygote(zygote)

        task = asyncio.create_task(stop())
        self._stopping.add(task)
        task.add_done_callback(self._stopping.discard)

    async def _start_one(self, name: str) -> Zygote:
        zygote = await start_zygote(self.level, self.purpose)
        # The zygote joins after its imports, so that the limit is the program's own.
        generation = f"{name}-{self.replaced}"
        zygote.cgroup = join_cgroup(self.level.cgroup(generation, MAX_TASKS), zygote.pid)
        return zygote
