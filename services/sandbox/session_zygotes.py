"""The zygote from which sessions are forked: replaced when it dies, and once in a while for good measure.

An old one stays until its last session has ended, as its end would be theirs.
"""

import asyncio

import structlog

from ratchet.contracts.sandbox import SessionRequest
from services.sandbox.jail import Isolation, Purpose
from services.sandbox.layers import Layer
from services.sandbox.pool import ATTEMPTS
from services.sandbox.processes import Processes, start_processes
from services.sandbox.zygotes import Level, Zygote, ZygoteDiedError, remove_cgroup, start_zygote, stop_zygote

log = structlog.get_logger()

RECYCLE_AFTER = 1000
"""Sessions that one zygote starts."""


class SessionZygotes:
    """The zygote in use, and older ones that still have sessions."""

    def __init__(self, level: Level) -> None:
        self._level = level
        self._zygote: Zygote | None = None
        self._sessions: dict[Zygote, set[Processes]] = {}
        self._starting = asyncio.Lock()
        self.replaced = 0
        self.has_pids_cgroup = False
        """Whether each session can be held to a number of processes by a control group."""

    async def start(self) -> None:
        """Start the first zygote. Raises ZygoteDiedError."""
        probe = self._level.cgroup("probe", 1)
        if probe is not None:
            # Where the attack suite turned this layer off, sessions go without it.
            self.has_pids_cgroup = probe.pids is not None
            await remove_cgroup(probe)
        self.has_pids_cgroup |= Layer.CGROUP_PIDS in self._level.without
        await self._replace()

    async def stop(self) -> None:
        """End all zygotes."""
        await asyncio.gather(*(stop_zygote(zygote) for zygote in self._sessions))
        self._sessions.clear()

    async def start_session(
        self,
        name: str,
        request: SessionRequest,
        *,
        tasks: int,
        memory_bytes: int,
        max_output_bytes: int,
    ) -> Processes:
        """The processes of a new session, of at most `tasks` and `memory_bytes`. Raises ZygoteDiedError."""
        async with self._starting:
            for attempt in range(1, ATTEMPTS + 1):
                zygote = await self._usable()
                cgroup = self._level.cgroup(f"session-{name}", tasks)
                if cgroup is not None and Layer.CGROUP_MEMORY not in self._level.without:
                    cgroup.limit_memory(memory_bytes)
                try:
                    processes = await start_processes(
                        zygote,
                        self._level,
                        cgroup,
                        seed=request.seed,
                        memory_bytes=request.memory_limit_MB * 2**20,
                        seconds=request.run_timeout,
                        processes=tasks,
                        own_user=self._level.isolation is Isolation.NAMESPACES,
                        max_output_bytes=max_output_bytes,
                    )
                except ZygoteDiedError as error:
                    log.warning("session did not start", attempt=attempt, reason=str(error))
                    zygote.lost.set()
                    if attempt == ATTEMPTS:
                        raise
                    continue
                zygote.served += 1
                self._sessions[zygote].add(processes)
                return processes
        raise AssertionError("the last attempt returns or raises")

    async def retire(self) -> None:
        """Stop old zygotes whose sessions have all ended."""
        async with self._starting:
            await self._retire()

    async def _retire(self) -> None:
        for sessions in self._sessions.values():
            sessions -= {processes for processes in sessions if processes.gone.is_set()}
        for zygote, sessions in list(self._sessions.items()):
            if zygote is not self._zygote and (not sessions or not zygote.usable):
                del self._sessions[zygote]
                await stop_zygote(zygote)

    async def _usable(self) -> Zygote:
        await self._retire()
        if self._zygote is None or not self._zygote.usable or self._zygote.served >= RECYCLE_AFTER:
            self.replaced += 1
            return await self._replace()
        return self._zygote

    async def _replace(self) -> Zygote:
        self._zygote = await start_zygote(self._level, Purpose.SESSION)
        self._sessions[self._zygote] = set()
        return self._zygote
