"""Stops a worker from taking up searches while something that they need is away, and its clock with it.

A search whose backend stayed away is given back, and opens the breaker for that backend. While it is open the worker takes no
search up; it asks the backend every second whether it is ready, and goes on once it is. Each worker process sees for itself:
whether a backend answers is a matter of the way to it, an outage of Redis or Postgres may be the very thing that is noticed,
and a probe a second costs nothing.

The clock counts the seconds that are worked: it stands while a backend that is asked does not answer.
"""

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable, Mapping

import structlog
from prometheus_client import Gauge

from ratchet.clients import ServiceError
from ratchet.service_client import ServiceClient
from ratchet.store.errors import StoreUnavailableError

log = structlog.get_logger()

DATABASE = "database"
TICK_SECONDS = 0.25
"""Between two looks at who is away: the clock errs by as much."""
PROBE_SECONDS = 1.0

OPEN = Gauge("ratchet_breaker_open", "1 while this worker takes no search up, for this backend.", ["backend"])


class Breaker:
    """Which backends are away for this worker. Give `look` to `background.repeat`."""

    def __init__(
        self, clients: Mapping[str, ServiceClient], ping_store: Callable[[], Awaitable[object]]
    ) -> None:
        self._clients = clients
        self._ping_store = ping_store
        self._open: dict[str, float] = {}
        """By backend: when it was last asked."""
        self._closed = asyncio.Event()
        self._closed.set()
        self._stood, self._standing, self._looked = 0.0, False, time.monotonic()
        for name in (*clients, DATABASE):
            OPEN.labels(name).set(0)

    def open(self, backend: str) -> None:
        """A search was given back, or could not be taken up, because this backend is away."""
        if backend not in self._open:
            log.warning("no search is taken up until it is back", backend=backend)
            self._open[backend] = -PROBE_SECONDS
            self._closed.clear()
            OPEN.labels(backend).set(1)

    @property
    def open_for(self) -> list[str]:
        """Backends that are waited for."""
        return sorted(self._open)

    async def closed(self) -> None:
        """Return when nothing is waited for."""
        await self._closed.wait()

    def clock(self) -> float:
        """Seconds, of which only differences mean anything; it stands while a backend that is asked does not answer."""
        now = time.monotonic()
        if self._standing:
            self._stood += now - self._looked
        self._looked = now
        self._standing = any(client.away_since is not None for client in self._clients.values())
        return now - self._stood

    async def look(self) -> None:
        """Look at the clients, and ask those that are waited for whether they are ready."""
        self.clock()
        now = time.monotonic()
        due = [name for name, asked in self._open.items() if now - asked >= PROBE_SECONDS]
        for name in due:
            self._open[name] = now
        for name, back in zip(due, await asyncio.gather(*map(self._is_back, due)), strict=True):
            if back:
                log.info("it is back", backend=name)
                del self._open[name]
                OPEN.labels(name).set(0)
        if not self._open:
            self._closed.set()

    async def _is_back(self, backend: str) -> bool:
        if backend == DATABASE:
            with contextlib.suppress(StoreUnavailableError):
                await self._ping_store()
                return True
            return False
        try:
            return (await self._clients[backend].health()).ready
        except ServiceError:
            return False
