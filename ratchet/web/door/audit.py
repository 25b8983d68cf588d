"""Who did what: calls that are meant to change something, written to Postgres in batches.

Limits: a process that is killed loses what it did not write yet, half a second. While Postgres is away up to 10,000 calls are
kept in memory.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING

import structlog
from starlette.requests import Request
from starlette.types import Scope

from ratchet.store.errors import StoreUnavailableError
from ratchet.store.key_records import AuditedCall

if TYPE_CHECKING:
    # Services without a store have no database driver.
    from ratchet.store.keys import KeyStore

log = structlog.get_logger()

_ELSEWHERE = "audited_elsewhere"
WRITE_SECONDS = 0.5
MOST_KEPT = 10_000


def leave_audit_to_another(request: Request) -> None:
    """Another service has audited this call, under the same key: once is enough."""
    setattr(request.state, _ELSEWHERE, True)


def is_audited_elsewhere(scope: Scope) -> bool:
    """Whether another service has audited this call."""
    return bool(scope.get("state", {}).get(_ELSEWHERE))


class Audit:
    """Collects calls; `writing` writes them while its block runs, and what is left at its end."""

    def __init__(self, store: "KeyStore") -> None:
        self._store = store
        self._calls: list[AuditedCall] = []

    def note(self, call: AuditedCall) -> None:
        """Write this down soon."""
        if len(self._calls) < MOST_KEPT:
            self._calls.append(call)
        else:
            log.error("audit lost", call=call)

    async def flush(self) -> None:
        """Write what has not been written. Raises StoreUnavailableError, and then keeps it."""
        calls, self._calls = self._calls, []
        if not calls:
            return
        try:
            await self._store.write_audit(calls)
        except BaseException:
            # Not written, or perhaps written: writing it again does no harm.
            self._calls = [*calls, *self._calls]
            raise

    @contextlib.asynccontextmanager
    async def writing(self) -> AsyncIterator[None]:
        """Calls are written while the block runs."""
        task = asyncio.create_task(self._keep_writing())
        try:
            yield
        finally:
            task.cancel()
            await asyncio.wait({task})
            with contextlib.suppress(StoreUnavailableError):
                await self.flush()

    async def _keep_writing(self) -> None:
        while True:
            await asyncio.sleep(WRITE_SECONDS)
            try:
                await self.flush()
            except StoreUnavailableError as error:
                log.warning("audit not written yet", calls=len(self._calls), error=str(error))
