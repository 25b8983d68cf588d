"""The search API: takes searches, shows their state, tree, proof and events, and cancels them.

It works on none itself: a search is a row in Postgres and a job in Redis, and the worker does the rest. The API also
sweeps: searches whose worker or job was lost get a new job.

Limits: a caller who goes away while waiting leaves the search running; only `DELETE` cancels it.
"""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator
from http import HTTPStatus
from typing import Annotated, Any, Literal
from uuid import UUID

import orjson
import structlog
from fastapi import FastAPI, Header, Path, Query, Request
from fastapi.responses import Response
from redis.exceptions import RedisError
from sse_starlette import EventSourceResponse, ServerSentEvent

from ratchet import __version__
from ratchet.contracts.base import Health
from ratchet.contracts.search import (
    EventKind,
    Proof,
    SearchPage,
    SearchRequest,
    SearchResult,
    TreeView,
)
from ratchet.events import BLOCK_SECONDS, ID_PATTERN, START, Event, Events
from ratchet.queue import SearchQueue, keep_sweeping
from ratchet.settings import SearchSettings
from ratchet.states import SEARCH_TRANSITIONS, SearchState, is_end
from ratchet.store.engine import StoreUnavailableError, make_engine, ready
from ratchet.store.searches import IdempotencyConflictError, SearchStore
from ratchet.web.app import ProblemError, create_app
from ratchet.web.unavailable import UNAVAILABLE, answer_unavailable, problems
from services.search.dot import render_dot

log = structlog.get_logger()

END_SECONDS = 2.0
"""How long the last event of a search that is over is waited for: its worker may have died before it was said."""
HEALTH_SECONDS = 3.0
HEARTBEAT_SECONDS = 15
DOT = "text/vnd.graphviz"

SearchId = Annotated[UUID, Path(description="Id from `POST /search`.")]
IdempotencyKey = Annotated[
    str | None,
    Header(
        min_length=1,
        max_length=255,
        pattern=r"^[\x21-\x7e]+$",
        description="A retry with the same key and the same body gets the same search.",
    ),
]
EventId = Annotated[str | None, Query(pattern=ID_PATTERN, description="Only events after this one.")]
LastEventId = Annotated[
    str | None,
    Header(
        alias="Last-Event-ID",
        pattern=ID_PATTERN,
        description="The same, as browsers send it; this one counts.",
    ),
]

_INVALID = problems(_422="The request is not valid; `errors` names the fields.")
_ONE = {**problems(_404="There is no such search.", _422="The id is not a UUID."), **UNAVAILABLE}
_SSE_SCHEMA = {
    "type": "object",
    "description": "One event.",
    "required": ["event", "data"],
    "properties": {
        "id": {"type": "string", "description": "Hand it back as `Last-Event-ID`."},
        "event": {"type": "string", "enum": [kind.value for kind in EventKind]},
        "data": {"type": "string", "contentMediaType": "application/json"},
    },
}
_LOCATION = {"Location": {"description": "Path of the search.", "schema": {"type": "string"}}}


def build_app(settings: SearchSettings) -> FastAPI:
    """The app; it connects when it is started and holds itself not ready while Postgres or Redis is away."""
    engine = make_engine(settings.database_url)
    store = SearchStore(engine)
    queue = SearchQueue(settings.redis_url, settings.queue_name)
    events = Events(settings.redis_url)

    @contextlib.asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        sweeper = asyncio.create_task(keep_sweeping(store, queue))
        try:
            yield
        finally:
            sweeper.cancel()
            await asyncio.wait({sweeper})
            await queue.aclose()
            await events.aclose()
            await engine.dispose()

    async def health() -> Health:
        database, redis = await asyncio.gather(
            asyncio.wait_for(ready(engine), HEALTH_SECONDS),
            asyncio.wait_for(queue.depth(), HEALTH_SECONDS),
            return_exceptions=True,
        )
        return Health(
            service="search",
            ready=not isinstance(database, BaseException) and not isinstance(redis, BaseException),
            version=__version__,
            detail={
                "database": "away" if isinstance(database, BaseException) else "ok",
                "redis": "away" if isinstance(redis, BaseException) else "ok",
                "queue_depth": None if isinstance(redis, BaseException) else redis,
            },
        )

    app = create_app(
        service="search",
        summary="Find and verify a solution: POST a problem, then follow, read or cancel the search.",
        settings=settings,
        lifespan=lifespan,
        health=health,
    )
    answer_unavailable(app)
    _add_routes(app, store, queue, events)
    return app


def _add_routes(app: FastAPI, store: SearchStore, queue: SearchQueue, events: Events) -> None:
    @app.post(
        "/search",
        tags=["searches"],
        summary="Begin a search",
        status_code=202,
        response_model=SearchResult,
        response_description="Stored and under way; `Location` leads to it.",
        responses={
            200: {
                "model": SearchResult,
                "description": "It ended while the caller waited, or an earlier request with this key did.",
                "headers": _LOCATION,
            },
            202: {"headers": _LOCATION},
            **problems(_409="The Idempotency-Key was used before, with another request."),
            **_INVALID,
            **UNAVAILABLE,
        },
    )
    async def begin(
        body: SearchRequest, request: Request, idempotency_key: IdempotencyKey = None
    ) -> Response:
        """Store the problem and put it before the workers. With `wait`, hold the answer back until the end
        or then."""
        # Before anything is stored, so that a caller who is told to come back has not begun a search.
        await queue.ping()
        try:
            search_id, created = await store.create(body, idempotency_key)
        except IdempotencyConflictError as error:
            raise ProblemError(HTTPStatus.CONFLICT, str(error)) from error
        if created:
            # From here the search is safe: should Redis go away now, the sweeper puts the job.
            with _tolerated("job put off"):
                await queue.enqueue(search_id, body.priority)
                await events.publish(search_id, [_state_event(SearchState.QUEUED, None)])
        if body.wait > 0:
            await _wait_for_end(store, events, search_id, body.wait, request)
        return _shown(await _result(store, search_id))

    @app.get(
        "/search/{search_id}",
        tags=["searches"],
        summary="State and best answer of a search",
        response_model=SearchResult,
        responses=_ONE,
    )
    async def read(search_id: SearchId) -> Response:
        """Anything from `queued` to the verified answer with its steps, votes and cost."""
        return _json(await _result(store, search_id))

    @app.get(
        "/searches",
        tags=["searches"],
        summary="Recent searches",
        response_model=SearchPage,
        responses={**_INVALID, **UNAVAILABLE},
    )
    async def recent(
        limit: Annotated[int, Query(ge=1, le=200)] = 50,
        state: Annotated[SearchState | None, Query(description="Only those in this state.")] = None,
        cursor: Annotated[UUID | None, Query(description="`next` of the page before.")] = None,
    ) -> Response:
        """The newest first, a page at a time."""
        return _json(await store.list_recent(limit, state, cursor))

    @app.get(
        "/search/{search_id}/events",
        tags=["searches"],
        summary="Follow a search (server-sent events)",
        response_class=EventSourceResponse,
        responses={
            200: {
                "description": "Events `state`, `node`, `answer` and at last `end`; `data` of each is one JSON object.",
                "content": {
                    "text/event-stream": {
                        "schema": _SSE_SCHEMA,
                        "example": "id: 1764000000000-0\nevent: state\n"
                        'data: {"state":"running","reason":null}\n\n',
                    }
                },
            },
            204: {"description": "The reader has seen the end already; a browser stops reconnecting."},
            **_ONE,
        },
    )
    async def follow(
        search_id: SearchId, after: EventId = None, last_event_id: LastEventId = None
    ) -> Response:
        """All events from the beginning, or from where a reader broke off. Ends after `end`."""
        state = await store.state(search_id)
        if state is None:
            raise _unknown(search_id)
        since = last_event_id or after or START
        # Asked in any case: a reader is told 503 now rather than a stream that breaks off.
        end = await events.end(search_id)
        if is_end(SEARCH_TRANSITIONS, state) and since == end != START:
            return Response(status_code=204)
        return EventSourceResponse(
            _event_stream(store, events, search_id, since),
            ping=HEARTBEAT_SECONDS,
            headers={"X-Accel-Buffering": "no"},
        )

    @app.get(
        "/search/{search_id}/tree",
        tags=["searches"],
        summary="The search tree",
        response_model=TreeView,
        responses={
            200: {
                "description": "The tree, parents before children.",
                "content": {DOT: {"schema": {"type": "string"}, "example": "digraph search {\n}\n"}},
            },
            **_ONE,
        },
    )
    async def tree(
        search_id: SearchId,
        format: Annotated[  # noqa: A002 - the API's word
            Literal["json", "dot"], Query(description="`dot`: Graphviz source.")
        ] = "json",
    ) -> Response:
        """All executed steps so far, as JSON or as Graphviz source."""
        found = await store.tree(search_id)
        if found is None:
            raise _unknown(search_id)
        if format == "dot":
            return Response(render_dot(found), media_type=DOT)
        return _json(found)

    @app.delete(
        "/search/{search_id}",
        tags=["searches"],
        summary="Cancel a search",
        response_model=SearchResult,
        response_description="It is over; the result so far.",
        responses={
            202: {
                "model": SearchResult,
                "description": "Its worker was told; the best answer so far is kept.",
            },
            **_ONE,
        },
    )
    async def cancel(search_id: SearchId) -> Response:
        """Stop it and keep the best answer so far. Asking again, or when it is over, changes nothing."""
        before = await store.state(search_id)
        after = await store.request_cancel(search_id)
        if after is None:
            raise _unknown(search_id)
        result = await _result(store, search_id)
        # Both are for speed: the worker also reads the flag in Postgres, readers of events also ask the
        # store.
        with _tolerated("news of a cancellation put off"):
            if after is SearchState.RUNNING:
                await queue.cancel(search_id)
            elif before is SearchState.QUEUED:
                await events.publish(
                    search_id,
                    [
                        _state_event(after, result.reason),
                        Event(EventKind.END, result.model_dump(mode="json")),
                    ],
                )
        return _shown(result)

    @app.get(
        "/search/{search_id}/proof",
        tags=["searches"],
        summary="The proof bundle",
        response_model=Proof,
        responses={
            **_ONE,
            **problems(
                _404="There is no such search, or it ended without a proof.",
                _409="The search is not over yet.",
            ),
        },
    )
    async def proof(search_id: SearchId) -> Response:
        """Program, steps, outputs, votes, versions and hashes: what `ratchet verify` re-executes offline."""
        # The state first: a search that ends between the two reads is seen as still running, never as
        # without proof.
        state = await store.state(search_id)
        if state is None:
            raise _unknown(search_id)
        found = await store.proof(search_id)
        if found is not None:
            return Response(Proof.model_validate(found).model_dump_json(), media_type="application/json")
        if not is_end(SEARCH_TRANSITIONS, state):
            raise ProblemError(HTTPStatus.CONFLICT, f"The search is {state}: there is no proof yet.")
        raise ProblemError(HTTPStatus.NOT_FOUND, f"The search ended as {state}, without a proof.")


@contextlib.contextmanager
def _tolerated(what: str) -> Any:
    try:
        yield
    except RedisError as error:
        log.warning(what, error=str(error))


def _unknown(search_id: UUID) -> ProblemError:
    return ProblemError(HTTPStatus.NOT_FOUND, f"There is no search {search_id}.")


async def _result(store: SearchStore, search_id: UUID) -> SearchResult:
    result = await store.result(search_id)
    if result is None:
        raise _unknown(search_id)
    return result


def _json(
    view: SearchResult | SearchPage | TreeView, status: int = 200, headers: dict[str, str] | None = None
) -> Response:
    # Serialised once, by pydantic's own writer: FastAPI would validate a big tree a second time.
    return Response(view.model_dump_json(), status, headers, media_type="application/json")


def _shown(result: SearchResult) -> Response:
    """200 when it is over, otherwise 202."""
    status = 200 if is_end(SEARCH_TRANSITIONS, result.state) else 202
    return _json(result, status, {"Location": f"/search/{result.id}"})


def _state_event(state: SearchState, reason: str | None) -> Event:
    return Event(EventKind.STATE, {"state": state.value, "reason": reason})


async def _wait_for_end(
    store: SearchStore, events: Events, search_id: UUID, seconds: float, request: Request
) -> None:
    """Return when the search is over, the time is up, or the caller has gone."""
    deadline = time.monotonic() + seconds
    seen = await events.newest(search_id)
    gone = asyncio.create_task(_disconnected(request))
    try:
        # The store is asked at least every BLOCK_SECONDS: an event can be lost, the state cannot.
        while not await _is_over(store, search_id):
            left = deadline - time.monotonic()
            if left <= 0 or gone.done():
                return
            for event in await events.read(search_id, seen, block_seconds=min(left, BLOCK_SECONDS)):
                seen = event.id
    finally:
        gone.cancel()


async def _disconnected(request: Request) -> None:
    # Not `request.is_disconnected()`, which never says so under Starlette's HTTP middleware.
    while (await request.receive())["type"] != "http.disconnect":
        pass


async def _is_over(store: SearchStore, search_id: UUID) -> bool:
    state = await store.state(search_id)
    return state is None or is_end(SEARCH_TRANSITIONS, state)


async def _event_stream(
    store: SearchStore, events: Events, search_id: UUID, since: str
) -> AsyncIterator[ServerSentEvent]:
    try:
        while True:
            # Asked before the read: when it is over and nothing is left to read, no event was missed.
            over = await _is_over(store, search_id)
            # The worker ends a search first in the store, and says so a moment later.
            said = over and await events.end(search_id) is not None
            wait = 0 if said else END_SECONDS if over else BLOCK_SECONDS
            batch = await events.read(search_id, since, block_seconds=wait)
            for event in batch:
                yield _sse(event.kind, event.data, event.id)
                if event.kind is EventKind.END:
                    return
                since = event.id
            if over and not batch:
                # The stream has expired, or its last events were lost: the store knows how it ended.
                result = await store.result(search_id)
                if result is not None:
                    yield _sse(EventKind.STATE, {"state": result.state.value, "reason": result.reason})
                    yield _sse(EventKind.END, result.model_dump(mode="json"))
                return
    except (RedisError, StoreUnavailableError) as error:
        # The reader comes back with the last id it saw, and is told 503 until this is mended.
        log.warning("event stream broken off", search=str(search_id), error=str(error))


def _sse(kind: EventKind, data: dict[str, Any], event_id: str | None = None) -> ServerSentEvent:
    return ServerSentEvent(data=orjson.dumps(data).decode(), event=kind.value, id=event_id)
