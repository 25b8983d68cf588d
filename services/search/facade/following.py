"""The searches of one completion, followed to their ends; whoever goes away before that cancels them."""

import asyncio
import contextlib
import time
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from http import HTTPStatus
from typing import Final, cast
from uuid import UUID

import anyio
import orjson
import structlog
from fastapi import Request
from fastapi.responses import Response
from sse_starlette import ServerSentEvent
from starlette.types import Receive, Scope, Send

from ratchet.contracts.search import EventKind, NodeView, SearchEvent, SearchRequest, SearchResult
from ratchet.events import START
from ratchet.states import SEARCH_TRANSITIONS, SearchState, is_end
from ratchet.store.errors import StoreUnavailableError
from ratchet.web.app import ProblemError
from ratchet.web.event_data import on_one_line
from ratchet.web.openai_errors import OpenAIError, openai_error
from services.search.facade.completions import ChatCompletion, ChunkWriter, completion_of
from services.search.facade.requests import ChatCompletionRequest
from services.search.facade.words import step_words
from services.search.following import EventStream, stream_events, wait_for_end
from services.search.intake import Intake

log = structlog.get_logger()

GRACE_SECONDS: Final = 900.0
"""Beyond its own budget a search may wait this long for a worker."""
AWAY_SECONDS: Final = 60.0
"""How long a stream holds on while the database or Redis is away."""
PAUSE_SECONDS: Final = 1.0
CANCEL_SECONDS: Final = 10.0
GONE: Final = 499
"""What proxies log for a caller who left; nobody reads it."""
MOST_WAITING: Final = 100
"""Events of a completion that wait for a slow reader."""


class SearchFailedError(Exception):
    """A search of the completion failed."""

    def __init__(self, result: SearchResult) -> None:
        super().__init__(f"The search {result.id} failed: {result.reason or 'no reason was given'}")


@contextlib.asynccontextmanager
async def held(intake: Intake, searches: Sequence[UUID]) -> AsyncIterator[None]:
    """Searches that nobody wants any more once the block is left: those that are not over are cancelled then."""
    try:
        yield
    finally:
        # Shielded, as the block is also left by being cancelled: the caller has gone.
        with anyio.move_on_after(CANCEL_SECONDS, shield=True):
            for search_id in searches:
                try:
                    state = await intake.store.state(search_id)
                    if state is not None and not is_end(SEARCH_TRANSITIONS, state):
                        await intake.call_off(search_id)
                except StoreUnavailableError as error:
                    log.warning("search goes on unread", search=str(search_id), error=str(error))


def patience(asked: Sequence[SearchRequest]) -> float:
    """Seconds for which the searches are waited for."""
    return max(each.budget.seconds for each in asked) + GRACE_SECONDS


async def complete(
    intake: Intake, body: ChatCompletionRequest, request: Request, searches: Sequence[UUID], seconds: float
) -> ChatCompletion | Response:
    """Wait for the ends. A bare response where the caller has gone. Raises ProblemError (500, 504)."""
    deadline = time.monotonic() + seconds
    async with held(intake, searches):
        for search_id in searches:
            left = max(0.0, deadline - time.monotonic())
            await wait_for_end(intake.store, intake.newsroom, search_id, left, request)
        results = [result for each in searches if (result := await intake.store.result(each)) is not None]
    if len(results) < len(searches) or not all(is_end(SEARCH_TRANSITIONS, each.state) for each in results):
        if time.monotonic() < deadline:
            return Response(status_code=GONE)
        raise ProblemError(HTTPStatus.GATEWAY_TIMEOUT, _too_long(seconds))
    for result in results:
        if result.state is SearchState.FAILED:
            raise ProblemError(HTTPStatus.INTERNAL_SERVER_ERROR, str(SearchFailedError(result)))
    return completion_of(body.model, results, body.stop or ())


class CompletionStream(EventStream):
    """The chunks of a completion as server-sent events without ids: openai-python takes a ping after an id for an event."""

    def __init__(
        self, intake: Intake, body: ChatCompletionRequest, searches: Sequence[UUID], seconds: float
    ) -> None:
        super().__init__(chunks(intake, body, searches, seconds))
        # Some clients split at a blank line of two line feeds, and nothing else.
        self.sep = "\n"
        self.ping_message_factory = lambda: ServerSentEvent(comment="ping", sep="\n")
        self._intake = intake
        self._searches = searches

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer the request; the searches end with it."""
        async with held(self._intake, self._searches):
            await super().__call__(scope, receive, send)


async def chunks(
    intake: Intake, body: ChatCompletionRequest, searches: Sequence[UUID], seconds: float
) -> AsyncGenerator[ServerSentEvent, None]:
    """Role first, steps as they are found, content and end of each choice as it is over, usage, `[DONE]`."""
    writer = ChunkWriter(body.model, str(searches[0]), int(time.time()), usage=body.includes_usage)
    for index in range(len(searches)):
        yield _sse(writer.role(index))
    seen: set[tuple[int, str]] = set()
    results: dict[int, SearchResult] = {}
    try:
        async with contextlib.aclosing(_all_events(intake, searches, seconds)) as found:
            async for index, event in found:
                if event.kind is EventKind.NODE:
                    node = NodeView.model_validate(event.data)
                    words = step_words(node)
                    # A node is told again whenever it has changed.
                    if words is not None and (index, node.id) not in seen:
                        seen.add((index, node.id))
                        yield _sse(writer.reasoning(index, words))
                elif event.kind is EventKind.END:
                    result = SearchResult.model_validate(event.data)
                    if result.state is SearchState.FAILED:
                        raise SearchFailedError(result)
                    results[index] = result
                    for chunk in writer.content(index, result, body.stop or ()):
                        yield _sse(chunk)
    except (SearchFailedError, StoreUnavailableError, TimeoutError) as error:
        yield _sse(orjson.dumps({"error": _error(error, seconds).model_dump()}).decode())
        return
    if body.includes_usage:
        yield _sse(writer.usage(results.values()))
    yield _sse("[DONE]")


async def _all_events(
    intake: Intake, searches: Sequence[UUID], seconds: float
) -> AsyncGenerator[tuple[int, SearchEvent], None]:
    """The events of all searches as they come, each with its search's place, until all have ended.

    Raises StoreUnavailableError, TimeoutError.
    """
    waiting: asyncio.Queue[tuple[int, SearchEvent | BaseException]] = asyncio.Queue(MOST_WAITING)

    async def follow(index: int, search_id: UUID) -> None:
        try:
            async with contextlib.aclosing(_events(intake, search_id)) as found:
                async for event in found:
                    await waiting.put((index, event))
        except Exception as error:  # noqa: BLE001 - raised where it is read
            await waiting.put((index, error))

    deadline = time.monotonic() + seconds
    following = [asyncio.create_task(follow(*each)) for each in enumerate(searches)]
    left = len(searches)
    try:
        while left:
            async with asyncio.timeout(max(0.0, deadline - time.monotonic())):
                index, event = await waiting.get()
            if isinstance(event, BaseException):
                raise event
            left -= event.kind is EventKind.END
            yield index, event
    finally:
        for each in following:
            each.cancel()
        await asyncio.gather(*following, return_exceptions=True)


async def _events(intake: Intake, search_id: UUID) -> AsyncGenerator[SearchEvent, None]:
    """Events up to `end`. A stream that breaks off, as the store or Redis is away, is taken up where it broke."""
    since, heard = START, time.monotonic()
    while True:
        stream = stream_events(intake.store, intake.newsroom, intake.events, search_id, since)
        async with contextlib.aclosing(cast(AsyncGenerator[ServerSentEvent, None], stream)) as found:
            async for told in found:
                heard = time.monotonic()
                since = told.id or since
                event = SearchEvent(
                    id=since, kind=EventKind(told.event or ""), data=orjson.loads(told.data or "")
                )
                yield event
                if event.kind is EventKind.END:
                    return
        if time.monotonic() - heard > AWAY_SECONDS:
            raise StoreUnavailableError("The database or Redis is away. The search was cancelled.")
        await asyncio.sleep(PAUSE_SECONDS)


def _error(error: Exception, seconds: float) -> OpenAIError:
    """What ends a stream early: its status was sent long ago."""
    if isinstance(error, TimeoutError):
        return openai_error(HTTPStatus.GATEWAY_TIMEOUT, _too_long(seconds))
    away = isinstance(error, StoreUnavailableError)
    return openai_error(
        HTTPStatus.SERVICE_UNAVAILABLE if away else HTTPStatus.INTERNAL_SERVER_ERROR, str(error)
    )


def _too_long(seconds: float) -> str:
    return f"The search did not end in {seconds:g} s, and was cancelled."


def _sse(data: str) -> ServerSentEvent:
    return ServerSentEvent(data=on_one_line(data), sep="\n")
