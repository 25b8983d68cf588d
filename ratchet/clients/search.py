"""Client of the search API: requests, and its stream of events."""

import asyncio
import random
import time
import uuid
from collections.abc import AsyncIterator
from http import HTTPStatus
from typing import Final
from urllib.parse import quote, urlencode

import httpx
import orjson
from pydantic import ValidationError

from ratchet.clients.paths import search_path
from ratchet.contracts.branching import BranchRequest
from ratchet.contracts.extending import ExtendRequest
from ratchet.contracts.journal import JournalPage
from ratchet.contracts.keys import AuditPage, CreatedKey, KeyList, KeyRequest, KeyView
from ratchet.contracts.replay import Replay
from ratchet.contracts.search import (
    EventKind,
    Proof,
    SearchEvent,
    SearchRequest,
    SearchResult,
    TreeView,
)
from ratchet.contracts.search_list import SearchFilter, SearchPage
from ratchet.event_lines import event_lines
from ratchet.service_client import ServiceClient, ServiceError

EVENT_SILENCE_SECONDS: Final = 60.0
"""An event stream is kept alive by comments every 15 s; after four missed ones the reader connects anew."""

WORKING_STREAM_SECONDS: Final = 10.0
"""An event stream that was open for this long did work, even if nothing happened in the search."""


class SearchClient(ServiceClient):
    """The search API. Honours the environment's proxies, unless the service is on this host."""

    service = "search"
    max_connections = 64
    by_proxy = True

    async def create(self, request: SearchRequest, *, idempotency_key: str | None = None) -> SearchResult:
        """Begin a search, once: whatever is sent again carries the same key. Raises ServiceError."""
        return await self._call(
            SearchResult,
            "POST",
            "/search",
            request,
            headers={"idempotency-key": idempotency_key or uuid.uuid4().hex},
            attempt_seconds=self.attempt_seconds + request.wait,
        )

    async def get(self, search: str) -> SearchResult:
        """The search as it is now. Raises ServiceError (404 if unknown)."""
        return await self._call(SearchResult, "GET", search_path(search))

    async def tree(self, search: str) -> TreeView:
        """All nodes, parents before children, page after page. Raises ServiceError."""
        path = f"{search_path(search)}/tree"
        page = await self._call(TreeView, "GET", path)
        nodes = page.nodes
        while page.next is not None:
            page = await self._call(TreeView, "GET", f"{path}?cursor={quote(page.next)}")
            nodes += page.nodes
        return TreeView(search=page.search, nodes=nodes)

    async def replay(self, search: str) -> Replay:
        """A search that is over, run again from its journal. Raises ServiceError (404 if unknown or without a journal)."""
        return await self._call(Replay, "GET", f"{search_path(search)}/replay")

    async def journal(self, search: str, after: int = -1, limit: int = 500) -> JournalPage:
        """Tasks that come after the one of order `after`. Raises ServiceError."""
        return await self._call(
            JournalPage, "GET", f"{search_path(search)}/journal?after={after}&limit={limit}"
        )

    async def proof(self, search: str) -> Proof:
        """The proof bundle of a search that has an answer. Raises ServiceError."""
        return await self._call(Proof, "GET", f"{search_path(search)}/proof")

    async def cancel(self, search: str) -> SearchResult:
        """End a search with the best answer so far. Raises ServiceError."""
        return await self._call(SearchResult, "DELETE", search_path(search))

    async def create_key(self, request: KeyRequest) -> CreatedKey:
        """Make an API key. Raises ServiceError (409: the name is taken, or an earlier attempt took it)."""
        return await self._call(CreatedKey, "POST", "/keys", request)

    async def keys(self) -> list[KeyView]:
        """All API keys, the newest first. Raises ServiceError."""
        return (await self._call(KeyList, "GET", "/keys")).keys

    async def revoke_key(self, name: str) -> KeyView:
        """Refuse an API key from now on. Raises ServiceError (404 if unknown)."""
        return await self._call(KeyView, "DELETE", f"/keys/{quote(name, safe='')}")

    async def audit(self, limit: int = 100, key: str | None = None) -> AuditPage:
        """Who changed what, the newest first. Raises ServiceError."""
        only = "" if key is None else f"&key={quote(key, safe='')}"
        return await self._call(AuditPage, "GET", f"/audit?limit={limit}{only}")

    async def retry(self, search: str) -> SearchResult:
        """Have a failed search taken up again, with its tree. Raises ServiceError (409 if it is over and has not failed)."""
        return await self._call(SearchResult, "POST", f"{search_path(search)}/retry")

    async def extend(self, search: str, request: ExtendRequest) -> SearchResult:
        """Have a search that is over go on with a larger budget. Raises ServiceError (404, 409, 422)."""
        return await self._call(
            SearchResult, "POST", f"{search_path(search)}/extend", request, only_given=True
        )

    async def branch(
        self, search: str, request: BranchRequest, *, idempotency_key: str | None = None
    ) -> SearchResult:
        """Begin a search that goes on from a node of this one. Raises ServiceError (404, 409, 422)."""
        return await self._call(
            SearchResult,
            "POST",
            f"{search_path(search)}/branch",
            request,
            headers={"idempotency-key": idempotency_key or uuid.uuid4().hex},
            only_given=True,
        )

    async def recent(
        self, limit: int = 50, narrowed: SearchFilter | None = None, cursor: str | None = None
    ) -> SearchPage:
        """The newest searches; `cursor` is the `next` of the page before. Raises ServiceError."""
        asked = {"limit": limit, "cursor": cursor, **(narrowed or SearchFilter()).model_dump(mode="json")}
        query = urlencode({name: value for name, value in asked.items() if value is not None})
        return await self._call(SearchPage, "GET", f"/searches?{query}")

    async def events(self, search: str, *, last_event_id: str | None = None) -> AsyncIterator[SearchEvent]:
        """Events in order, the last one ends the search; a lost connection is taken up where it broke.

        Raises ServiceError when the service refuses, or stays away for longer than `retry_seconds`.
        """
        last = last_event_id
        progress = time.monotonic()
        while True:
            response: httpx.Response = await self._make_retrying()(self._open_events, search, last)
            opened = time.monotonic()
            if response.status_code == HTTPStatus.NO_CONTENT:
                # The event after which we asked was the last one.
                await response.aclose()
                return
            try:
                async for event in self._read_events(response):
                    progress = time.monotonic()
                    last = event.id
                    yield event
                    if event.kind is EventKind.END:
                        return
                broken = ServiceError(self.service, "ended the event stream early")
            except httpx.HTTPError as error:
                broken = self._unreachable_error(error, EVENT_SILENCE_SECONDS)
            finally:
                await response.aclose()
            now = time.monotonic()
            if now - opened > WORKING_STREAM_SECONDS:
                progress = now
            if now - progress > self.retry_seconds:
                raise broken
            await asyncio.sleep(random.uniform(0.1, 1.0))  # noqa: S311 - jitter

    async def _open_events(self, search: str, last: str | None) -> httpx.Response:
        headers = {"accept": "text/event-stream", "cache-control": "no-store"}
        if last is not None:
            headers["last-event-id"] = last
        timeout = self._timeout(EVENT_SILENCE_SECONDS)
        request = self._http.build_request(
            "GET", f"{search_path(search)}/events", headers=headers, timeout=timeout
        )
        try:
            response = await self._http.send(request, stream=True)
            if response.is_success:
                return response
            await response.aread()
        except httpx.HTTPError as error:
            raise self._unreachable_error(error, EVENT_SILENCE_SECONDS) from error
        raise self._refusal_error(response)

    async def _read_events(self, response: httpx.Response) -> AsyncIterator[SearchEvent]:
        """Server-sent events as WHATWG defines them, of the kinds that we know."""
        event_id, kind, data = "", "", list[str]()
        async for line in event_lines(response):
            if line:
                name, _, value = line.partition(":")
                value = value.removeprefix(" ")
                match name:
                    case "id":
                        event_id = value
                    case "event":
                        kind = value
                    case "data":
                        data.append(value)
                continue
            if data and kind in set(EventKind):
                try:
                    yield SearchEvent(id=event_id, kind=EventKind(kind), data=orjson.loads("\n".join(data)))
                except (orjson.JSONDecodeError, ValidationError) as error:
                    raise self._unreadable_error(response.status_code, error) from error
            kind, data = "", []
