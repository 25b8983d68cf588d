"""What a key of the scope `solve` may do here: begin searches within its limits, and see to those that it began."""

import asyncio
import math
from collections import defaultdict
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from http import HTTPStatus
from typing import Annotated, Any, Final
from uuid import UUID

from fastapi import Depends, Request

from ratchet.contracts.base import FieldError
from ratchet.contracts.keys import KeyLimits
from ratchet.contracts.search import SearchRequest
from ratchet.store.backlog import Backlog
from ratchet.store.keys import KeyStore
from ratchet.web.app import ProblemError
from ratchet.web.door.callers import Caller

SOLVE_ROUTES: Final = frozenset(
    {
        "POST /search",
        "GET /searches",
        "GET /search/{search_id}",
        "GET /search/{search_id}/events",
        "GET /search/{search_id}/tree",
        "GET /search/{search_id}/journal",
        "GET /search/{search_id}/proof",
        "GET /search/{search_id}/replay",
        "DELETE /search/{search_id}",
        "POST /search/{search_id}/branch",
        "POST /search/{search_id}/extend",
        "POST /search/{search_id}/retry",
        "POST /v1/chat/completions",
        "GET /v1/models",
        "GET /v1/models/{model}",
    }
)
MOST_REMEMBERED: Final = 10_000
BUSY_SECONDS: Final = 5
"""When to ask again where all searches that a key may have at once are under way."""


class Access:
    """Limits of keys, and which key began which search."""

    def __init__(self, keys: KeyStore, backlog: Backlog) -> None:
        self._keys = keys
        self._backlog = backlog
        self._began: dict[UUID, UUID] = {}
        self._beginning: defaultdict[UUID, asyncio.Lock] = defaultdict(asyncio.Lock)

    async def owns(self, caller: Caller, parameters: Mapping[str, Any]) -> bool:
        """Whether the caller began the search that the path names. An id that is none is left to the route, which says so."""
        try:
            search_id = UUID(str(parameters.get("search_id")))
        except ValueError:
            return True
        if search_id not in self._began:
            began = await self._keys.begun_by(search_id)
            if began is None:
                return False
            if len(self._began) >= MOST_REMEMBERED:
                # Who began a search never changes: any may be asked for again.
                self._began.clear()
            self._began[search_id] = began
        return self._began[search_id] == caller.key_id

    @asynccontextmanager
    async def beginning(
        self, caller: Caller, request: SearchRequest, idempotency_key: str | None = None
    ) -> AsyncIterator[None]:
        """Begin the search inside the block. Raises ProblemError where a limit of the key forbids it (403, 429).

        `idempotency_key` as it is stored: a retry of what was begun before uses nothing.

        Limit: several processes of the API may each let one search more than the key's pass at the same moment.
        """
        if not caller.limits.allows(request.priority):
            most = caller.limits.max_priority
            raise ProblemError(
                HTTPStatus.FORBIDDEN,
                f"The key {caller.name} may ask for no higher priority than {most}.",
                errors=[FieldError(field="priority", message=f"at most {most}")],
            )
        async with self.within_limits(caller, idempotency_key):
            yield

    @asynccontextmanager
    async def within_limits(self, caller: Caller, idempotency_key: str | None = None) -> AsyncIterator[None]:
        """Have one more search under way inside the block. Raises ProblemError where the key's limits are reached (429)."""
        limits = caller.limits
        if caller.key_id is None or (limits.concurrent_searches is None and limits.tokens_per_day is None):
            yield
            return
        # One after another, so that two do not both take the last place.
        async with self._beginning[caller.key_id]:
            reached = await self._reached(caller.key_id, caller.name, limits)
            if reached is not None and not await self._is_begun(idempotency_key):
                raise reached
            yield

    async def _is_begun(self, idempotency_key: str | None) -> bool:
        return idempotency_key is not None and await self._backlog.is_known(idempotency_key)

    async def _reached(self, key_id: UUID, name: str, limits: KeyLimits) -> ProblemError | None:
        """The limit that is reached, as it is told; None: there is room."""
        most = limits.concurrent_searches
        if most is not None and await self._keys.searches_under_way(key_id) >= most:
            return _too_many(f"The key {name} may have {most} searches under way at once.", BUSY_SECONDS)
        tokens = limits.tokens_per_day
        if tokens is not None:
            now = datetime.now(UTC)
            today = now.replace(hour=0, minute=0, second=0, microsecond=0)
            if await self._keys.tokens_since(key_id, today) >= tokens:
                left = (today + timedelta(days=1) - now).total_seconds()
                return _too_many(f"The key {name} has used its {tokens} tokens of today (UTC).", left)
        return None


async def calling(request: Request) -> Caller:
    """Whom the door let in."""
    caller: Caller = request.state.caller
    return caller


Calling = Annotated[Caller, Depends(calling)]


def own_idempotency_key(caller: Caller, key: str | None) -> str | None:
    """An Idempotency-Key as it is stored: those of two callers are two, whatever they say."""
    # No key that is sent has a blank in it.
    return key if key is None or caller.key_id is None else f"{caller.key_id} {key}"


def _too_many(detail: str, seconds: float) -> ProblemError:
    return ProblemError(
        HTTPStatus.TOO_MANY_REQUESTS, detail, headers={"Retry-After": str(math.ceil(seconds))}
    )
