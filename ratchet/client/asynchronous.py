"""The client for asyncio."""

import asyncio
import contextlib
import uuid
from collections.abc import AsyncGenerator, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self, Unpack, cast

from ratchet.client.batch import BatchReport, OnProgress, read_lines, run_batch
from ratchet.client.events import Ended, StreamEvent, read_event
from ratchet.client.options import (
    BranchOptions,
    ExtendOptions,
    ListOptions,
    SolveOptions,
    branch_request,
    extend_request,
    find_service,
    search_filter,
    search_request,
)
from ratchet.clients import SearchClient
from ratchet.contracts.search import Budget, Proof, SearchEvent, SearchRequest, SearchResult, TreeView
from ratchet.contracts.search_list import SearchPage
from ratchet.service_client import ServiceError
from ratchet.solutions.proof import Check

GRACE_SECONDS: Final = 900.0
"""Beyond its own budget a search may wait this long for a worker."""
CANCEL_SECONDS: Final = 10.0


@dataclass(frozen=True, slots=True)
class ProofFindings:
    """What checking a proof bundle found."""

    checks: tuple[Check, ...]

    @property
    def holds(self) -> bool:
        """Whether all of it does."""
        return bool(self.checks) and all(check.holds for check in self.checks)


class AsyncClient:
    """Asks one search service. Use as an async context manager, or call `aclose`.

    Without a URL: the stack that runs in the data folder (`data`, otherwise `RATCHET_DATA`, otherwise `.ratchet`), with its
    key. A call that can be sent again is, for `retry_seconds` (a minute by default). Methods raise ServiceError, and ValueError
    for options that are none.
    """

    def __init__(
        self,
        url: str | None = None,
        *,
        key: str | None = None,
        data: Path | str | None = None,
        retry_seconds: float | None = None,
    ) -> None:
        address, found = find_service(url, key, data)
        self._search = SearchClient(address, key=found, retry_seconds=retry_seconds)

    async def aclose(self) -> None:
        """Close the connections."""
        await self._search.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    async def solve(self, problem: str, **options: Unpack[SolveOptions]) -> SearchResult:
        """Solve a problem; returns when the search is over. A call that is cancelled cancels its search."""
        return await self._solve(search_request(problem, options))

    async def stream(
        self, problem: str, **options: Unpack[SolveOptions]
    ) -> AsyncGenerator[StreamEvent, None]:
        """Solve a problem, and tell what happens as it does; `Ended` is the last event.

        Whoever breaks off cancels the search: close the generator (`contextlib.aclosing`) to have it done at once.
        """
        async with contextlib.aclosing(self._stream(search_request(problem, options))) as told:
            async for event in told:
                yield event

    async def batch(
        self,
        problems: Path | str | Iterable[str | Mapping[str, Any]],
        out: Path | str,
        *,
        concurrency: int = 8,
        pool: bool = False,
        on_progress: OnProgress | None = None,
        **options: Unpack[SolveOptions],
    ) -> BatchReport:
        """Solve the problems of a JSONL file, or of an iterable, and write one line of JSON for each to `out` as it ends.

        A line has `problem`, perhaps `id`, and any of the options, which go before those of the call. What is in `out` already
        is not asked again, failed ones apart: a batch that was broken off is gone on with by the same call. With `pool` the
        problems share their tokens: what one that is soon certain leaves goes to those that are not solved. Raises ValueError
        that names the line, before anything is asked.
        """
        return await run_batch(
            self._solve,
            read_lines(problems, options, pool=pool),
            Path(out),
            concurrency=concurrency,
            on_progress=on_progress,
            extend=self._have_tokens if pool else None,
        )

    async def get(self, search: str) -> SearchResult:
        """A search as it is now."""
        return await self._search.get(search)

    async def branch(self, search: str, node: str, **options: Unpack[BranchOptions]) -> SearchResult:
        """Begin a search that goes on from a node of this one, and return at once: it has an id to `get` it by.

        `edit` replaces the node's step by this text; with `forbid` the search goes on from the node's parent and never takes
        it. What is left out is as it was. Raises ValueError for options that are none.
        """
        return await self._search.branch(search, branch_request(node, options))

    async def extend(self, search: str, **budget: Unpack[ExtendOptions]) -> SearchResult:
        """Have a search that is over go on with a larger budget; returns when it is over again.

        The budget is told in all, what it has used included; what is left out grows in proportion. Raises ValueError for a
        budget that is none. A call that is cancelled cancels the search.
        """
        begun = await self._search.extend(search, extend_request(budget))
        return begun if begun.ended_at is not None else await _end_of(self._follow(begun))

    async def _have_tokens(self, search: str, tokens: int) -> SearchResult:
        return await self.extend(search, tokens=tokens)

    async def searches(
        self, limit: int = 50, *, cursor: str | None = None, **only: Unpack[ListOptions]
    ) -> SearchPage:
        """The newest searches, of those for which `only` holds; `cursor` is the `next` of the page before."""
        return await self._search.recent(limit, search_filter(only), cursor)

    async def cancel(self, search: str) -> SearchResult:
        """End a search with the best answer so far."""
        return await self._search.cancel(search)

    async def tree(self, search: str) -> TreeView:
        """All nodes of a search, parents before children."""
        return await self._search.tree(search)

    async def proof(self, search: str) -> Proof:
        """The proof bundle of a search that has an answer."""
        return await self._search.proof(search)

    async def verify(self, search: str | SearchResult | Proof) -> ProofFindings:
        """Check a proof here, in a jail of our own: the service is believed in nothing.

        Needs the extra `local`. Raises StackError where no jail can be had.
        """
        # It takes what only a local stack needs.
        from ratchet.client.proofs import check_proof

        proof = search if isinstance(search, Proof) else None
        if proof is None:
            proof = await self.proof(search.id if isinstance(search, SearchResult) else str(search))
        document = proof.model_dump(mode="json")
        async with contextlib.aclosing(check_proof(document, proof)) as found:
            return ProofFindings(tuple([check async for check in found]))

    async def _solve(self, request: SearchRequest) -> SearchResult:
        return await _end_of(self._stream(request))

    async def _stream(self, request: SearchRequest) -> AsyncGenerator[StreamEvent, None]:
        async with contextlib.aclosing(self._follow(await self._begin(request), request.budget)) as told:
            async for event in told:
                yield event

    async def _follow(
        self, begun: SearchResult, budget: Budget | None = None
    ) -> AsyncGenerator[StreamEvent, None]:
        """What happens in a search, up to its end; whoever breaks off cancels it. `budget`: where `begun` does not say it."""
        ended = False
        budget = budget or (begun.asked.budget if begun.asked is not None else Budget())
        seconds = budget.seconds + GRACE_SECONDS
        deadline = asyncio.get_running_loop().time() + seconds
        events = cast(AsyncGenerator[SearchEvent, None], self._search.events(begun.id))
        try:
            while not ended:
                try:
                    async with asyncio.timeout_at(deadline):
                        event = read_event(await anext(events))
                except TimeoutError:
                    raise ServiceError(
                        "search", "did not end", f"search {begun.id}, after {seconds:g} s"
                    ) from None
                except StopAsyncIteration:
                    return
                ended = isinstance(event, Ended)
                yield event
        finally:
            if not ended:
                await self._call_off(begun.id)
            await events.aclose()

    async def _begin(self, request: SearchRequest) -> SearchResult:
        creating = asyncio.ensure_future(self._search.create(request, idempotency_key=uuid.uuid4().hex))
        try:
            return await asyncio.shield(creating)
        except asyncio.CancelledError:
            # The request may be on its way: without its answer nobody could call the search off.
            with contextlib.suppress(ServiceError, TimeoutError):
                async with asyncio.timeout(CANCEL_SECONDS):
                    begun = await creating
                await self._call_off(begun.id)
            raise

    async def _call_off(self, search: str) -> None:
        """Cancel a search that nobody waits for; one that is over stays as it is."""
        cancelling = asyncio.ensure_future(self._search.cancel(search))
        # Shielded, as the caller may be being cancelled.
        with contextlib.suppress(ServiceError, TimeoutError):
            async with asyncio.timeout(CANCEL_SECONDS):
                await asyncio.shield(cancelling)


async def _end_of(events: AsyncGenerator[StreamEvent, None]) -> SearchResult:
    """The result with which a search ends. Raises ServiceError."""
    async with contextlib.aclosing(events) as told:
        async for event in told:
            if isinstance(event, Ended):
                return event.result
    raise ServiceError("search", "ended the events of a search without its end")
