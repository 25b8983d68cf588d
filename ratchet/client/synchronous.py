"""The client for code without asyncio: an AsyncClient on an event loop in a thread of its own."""

import asyncio
import threading
from collections.abc import AsyncGenerator, Coroutine, Iterable, Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self, TypeVar, Unpack

from ratchet.client.asynchronous import AsyncClient, ProofFindings
from ratchet.client.batch import BatchReport, OnProgress
from ratchet.client.events import StreamEvent
from ratchet.client.options import BranchOptions, ExtendOptions, ListOptions, SolveOptions
from ratchet.contracts.search import Proof, SearchResult, TreeView
from ratchet.contracts.search_list import SearchPage

T = TypeVar("T")

LEAVE_SECONDS: Final = 15.0
"""For what is under way to call off its search when the caller is interrupted."""


class Client:
    """Asks one search service; see AsyncClient, whose methods it has. Use as a context manager, or call `close`.

    It may be shared by threads. Ctrl-C in a call cancels its search.
    """

    def __init__(
        self,
        url: str | None = None,
        *,
        key: str | None = None,
        data: Path | str | None = None,
        retry_seconds: float | None = None,
    ) -> None:
        self._client = AsyncClient(url, key=key, data=data, retry_seconds=retry_seconds)
        self._loop = asyncio.new_event_loop()
        # A daemon: a program that forgets to close the client still ends.
        self._thread = threading.Thread(target=self._loop.run_forever, name="ratchet-client", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Close the connections; the client is of no use afterwards."""
        if self._loop.is_closed():
            return
        self._run(self._client.aclose())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(LEAVE_SECONDS)
        self._loop.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def solve(self, problem: str, **options: Unpack[SolveOptions]) -> SearchResult:
        """Solve a problem; returns when the search is over."""
        return self._run(self._client.solve(problem, **options))

    def stream(self, problem: str, **options: Unpack[SolveOptions]) -> Iterator[StreamEvent]:
        """Solve a problem, and tell what happens as it does; `Ended` is the last event. Whoever breaks off cancels it."""
        told = self._client.stream(problem, **options)
        try:
            while (event := self._run(_next(told))) is not None:
                yield event
        finally:
            self._run(told.aclose())

    def batch(
        self,
        problems: Path | str | Iterable[str | Mapping[str, Any]],
        out: Path | str,
        *,
        concurrency: int = 8,
        pool: bool = False,
        on_progress: OnProgress | None = None,
        **options: Unpack[SolveOptions],
    ) -> BatchReport:
        """Solve many problems, JSON lines in and out; with `pool` they share their tokens. `on_progress` is called in the
        client's thread."""
        return self._run(
            self._client.batch(
                problems, out, concurrency=concurrency, pool=pool, on_progress=on_progress, **options
            )
        )

    def get(self, search: str) -> SearchResult:
        """A search as it is now."""
        return self._run(self._client.get(search))

    def branch(self, search: str, node: str, **options: Unpack[BranchOptions]) -> SearchResult:
        """Begin a search that goes on from a node of this one, and return at once."""
        return self._run(self._client.branch(search, node, **options))

    def extend(self, search: str, **budget: Unpack[ExtendOptions]) -> SearchResult:
        """Have a search that is over go on with a larger budget, told in all; returns when it is over again."""
        return self._run(self._client.extend(search, **budget))

    def searches(
        self, limit: int = 50, *, cursor: str | None = None, **only: Unpack[ListOptions]
    ) -> SearchPage:
        """The newest searches, of those for which `only` holds; `cursor` is the `next` of the page before."""
        return self._run(self._client.searches(limit, cursor=cursor, **only))

    def cancel(self, search: str) -> SearchResult:
        """End a search with the best answer so far."""
        return self._run(self._client.cancel(search))

    def tree(self, search: str) -> TreeView:
        """All nodes of a search, parents before children."""
        return self._run(self._client.tree(search))

    def proof(self, search: str) -> Proof:
        """The proof bundle of a search that has an answer."""
        return self._run(self._client.proof(search))

    def verify(self, search: str | SearchResult | Proof) -> ProofFindings:
        """Check a proof here, in a jail of our own."""
        return self._run(self._client.verify(search))

    def _run(self, work: Coroutine[Any, Any, T]) -> T:
        """Run it on the loop. An interrupt cancels it, and waits until it has ended in good order."""
        over = threading.Event()

        async def running() -> T:
            try:
                return await work
            finally:
                over.set()

        future = asyncio.run_coroutine_threadsafe(running(), self._loop)
        try:
            return future.result()
        except BaseException:
            if not over.is_set():
                future.cancel()
                over.wait(LEAVE_SECONDS)
            raise


async def _next(told: AsyncGenerator[StreamEvent, None]) -> StreamEvent | None:
    return await anext(told, None)
