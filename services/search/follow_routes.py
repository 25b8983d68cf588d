"""Routes for those who follow a search: its events as they come, its tree and its journal a page at a time."""

import asyncio
from http import HTTPStatus
from typing import Annotated, Literal

from fastapi import APIRouter, Depends, Header, Query, Request
from fastapi.responses import Response, StreamingResponse
from sse_starlette import EventSourceResponse

from ratchet.contracts.journal import JournalPage
from ratchet.contracts.search import EventKind, TreeView
from ratchet.events import ID_PATTERN, START, Events
from ratchet.states import SEARCH_TRANSITIONS, is_end
from ratchet.store.followed import CURSOR_PATTERN, FollowedSearches
from ratchet.web.problems import problem_response
from services.search.dot import render_dot
from services.search.following import EventStream, stream_events
from services.search.intake import FULL_SECONDS
from services.search.journal_view import journal_page
from services.search.news import Newsroom
from services.search.responses import ONE, SearchId, Store, json_response, no_such_search

DOT = "text/vnd.graphviz"

EventId = Annotated[str | None, Query(pattern=ID_PATTERN, description="Only events after this one.")]
LastEventId = Annotated[
    str | None,
    Header(
        alias="Last-Event-ID",
        pattern=ID_PATTERN,
        description="The same, as browsers send it; this one counts.",
    ),
]

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

router = APIRouter(tags=["searches"])


async def search_events(request: Request) -> Events:
    """The app's events of searches."""
    events: Events = request.app.state.events
    return events


async def followed_searches(request: Request) -> FollowedSearches:
    """The app's view of searches for those who follow them."""
    followed: FollowedSearches = request.app.state.followed
    return followed


async def search_news(request: Request) -> Newsroom:
    """What the app's followers wait for."""
    newsroom: Newsroom = request.app.state.newsroom
    return newsroom


Followed = Annotated[FollowedSearches, Depends(followed_searches)]
News = Annotated[Newsroom, Depends(search_news)]
EventStreams = Annotated[Events, Depends(search_events)]


@router.get(
    "/search/{search_id}/events",
    summary="Follow a search (server-sent events)",
    response_class=EventSourceResponse,
    responses={
        200: {
            "description": "Events `state`, `node`, `answer`, `gap` and at last `end`; `data` of each is one JSON object.",
            "content": {
                "text/event-stream": {
                    "schema": _SSE_SCHEMA,
                    "example": "id: 1764000000000-0\nevent: state\n"
                    'data: {"state":"running","reason":null}\n\n',
                }
            },
        },
        204: {"description": "The reader has seen the end already; a browser stops reconnecting."},
        **ONE,
    },
)
async def follow(
    search_id: SearchId,
    store: Store,
    events: EventStreams,
    news: News,
    after: EventId = None,
    last_event_id: LastEventId = None,
) -> Response:
    """All events from the beginning, or from where a reader broke off. Ends after `end`.

    A search of low priority tells its nodes and answers only while somebody reads, then all so far; long texts are cut. Who
    comes when earlier events are no longer kept is told so (`gap`).
    """
    news.require_room()
    state = await store.state(search_id)
    if state is None:
        raise no_such_search(search_id)
    since = last_event_id or after or START
    # Asked in any case: a reader is told 503 now rather than a stream that breaks off.
    end = await events.end(search_id)
    if is_end(SEARCH_TRANSITIONS, state) and since == end != START:
        return Response(status_code=204)
    return EventStream(stream_events(store, news, events, search_id, since))


@router.get(
    "/search/{search_id}/tree",
    summary="The search tree",
    response_model=TreeView,
    responses={
        200: {
            "description": "A page of the tree, parents before children; as DOT all of it.",
            "content": {DOT: {"schema": {"type": "string"}, "example": "digraph search {\n}\n"}},
        },
        **ONE,
    },
)
async def tree(
    search_id: SearchId,
    followed: Followed,
    format: Annotated[  # noqa: A002 - the API's word
        Literal["json", "dot"], Query(description="`dot`: Graphviz source.")
    ] = "json",
    limit: Annotated[
        int, Query(ge=1, le=1000, description="Most nodes of a page; one of long texts has fewer.")
    ] = 500,
    cursor: Annotated[
        str | None, Query(pattern=CURSOR_PATTERN, description="`next` of the page before.")
    ] = None,
) -> Response:
    """All executed steps so far, a page at a time as JSON, or as a whole as Graphviz source. A node that is added between two
    pages may be in neither; once the search is over, the pages are the whole tree."""
    page = await followed.tree_page(search_id, limit, cursor)
    if page is None:
        raise no_such_search(search_id)
    if format == "dot":
        return StreamingResponse(render_dot(followed.tree_pages(search_id, limit, page)), media_type=DOT)
    return json_response(page)


@router.get(
    "/search/{search_id}/journal",
    summary="What the search did, task by task",
    response_model=JournalPage,
    responses=ONE,
)
async def journal(
    search_id: SearchId,
    followed: Followed,
    after: Annotated[
        int,
        Query(
            ge=-1, lt=2**31, description="`next` of the page before, or the `order` of the last task seen."
        ),
    ] = -1,
    limit: Annotated[int, Query(ge=1, le=1000, description="Most tasks of a page.")] = 500,
) -> Response:
    """The tasks that the strategy asked for, in the order in which it was told of them: what each made, and by which terms of
    the selection rule it was chosen. It can be read while the search runs."""
    told = await followed.told(search_id, after, limit)
    if told is None:
        raise no_such_search(search_id)
    return json_response(await asyncio.to_thread(journal_page, *told, after, limit))


async def on_too_many_followers(request: Request, error: Exception) -> Response:
    """The answer where as many follow as may."""
    return problem_response(
        HTTPStatus.SERVICE_UNAVAILABLE,
        f"{error} Try again later, or ask for the search without waiting.",
        request.url.path,
        headers={"Retry-After": str(FULL_SECONDS)},
    )
