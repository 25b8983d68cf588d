"""The search API: takes searches, shows their state, tree, proof and events, and cancels them.

It works on none itself: a search is a row in Postgres and a job in Redis, and the worker does the rest. The API also
sweeps: searches whose worker or job was lost get a new job.

Limits: a caller who goes away while waiting leaves the search running; only `DELETE` cancels it.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable
from http import HTTPStatus
from typing import Annotated, TypeVar

import orjson
import structlog
from fastapi import APIRouter, Depends, FastAPI, Request
from fastapi.responses import Response
from sqlalchemy.ext.asyncio import AsyncEngine

from ratchet import __version__, background
from ratchet.contracts.base import Health
from ratchet.contracts.replay import Replay
from ratchet.contracts.search import Proof, SearchRequest, SearchResult
from ratchet.events import Events
from ratchet.queue import SearchQueue, keep_sweeping
from ratchet.settings import SearchSettings
from ratchet.states import SEARCH_TRANSITIONS, is_end
from ratchet.store.backlog import Backlog
from ratchet.store.branches import BranchStore
from ratchet.store.engine import make_engine, ready
from ratchet.store.followed import FollowedSearches
from ratchet.store.keys import KeyStore
from ratchet.store.searches import SearchStore
from ratchet.web.app import ProblemError, create_app
from ratchet.web.door.middleware import SolveAccess
from ratchet.web.unavailable import UNAVAILABLE, answer_unavailable, problems
from services.search import (
    branch_routes,
    follow_routes,
    key_routes,
    list_routes,
    page_routes,
    resume_routes,
    trainer_routes,
)
from services.search.access import SOLVE_ROUTES, Access, Calling
from services.search.facade import routes as facade
from services.search.following import wait_for_end
from services.search.intake import Intake, intake
from services.search.news import Newsroom, TooManyFollowersError
from services.search.pruning import pruning
from services.search.replay import replay
from services.search.responses import (
    LOCATION,
    ONE,
    IdempotencyKey,
    SearchId,
    Store,
    json_response,
    no_such_search,
    read_result,
    result_response,
)
from services.search.trainer import Trainer

log = structlog.get_logger()

T = TypeVar("T")
HEALTH_SECONDS = 3.0

_INVALID = problems(_422="The request is not valid; `errors` names the fields.")

router = APIRouter(tags=["searches"])


def build_app(settings: SearchSettings) -> FastAPI:
    """The app; it connects when it is started and holds itself not ready while Postgres or Redis is away."""
    engine = make_engine(settings.database_url)
    store = SearchStore(engine)
    queue = SearchQueue(settings.redis_url, settings.queue_name)
    events = Events(settings.redis_url)
    followed = FollowedSearches(engine)
    newsroom = Newsroom(followed, events, settings.max_followers)
    keys = KeyStore(engine)
    backlog = Backlog(engine)
    access = Access(keys, backlog)
    to_trainer = Trainer(settings.trainer_url)

    @contextlib.asynccontextmanager
    async def sweeping(_: FastAPI) -> AsyncIterator[None]:
        try:
            loops = [keep_sweeping(store, queue), *newsroom.loops(), *pruning(settings, engine)]
            async with background.running(*loops):
                yield
        finally:
            await queue.aclose()
            await events.aclose()
            await to_trainer.aclose()
            await engine.dispose()

    app = create_app(
        service="search",
        summary="Find and verify a solution: POST a problem, then follow, read or cancel the search.",
        settings=settings,
        lifespan=sweeping,
        health=lambda: health(engine, queue),
        keys=keys,
        solve=SolveAccess(SOLVE_ROUTES, access.owns),
    )
    answer_unavailable(app)
    app.state.store, app.state.events = store, events
    app.state.followed, app.state.newsroom = followed, newsroom
    app.add_exception_handler(TooManyFollowersError, follow_routes.on_too_many_followers)
    app.state.keys, app.state.branches = keys, BranchStore(engine)
    app.state.intake = Intake(settings, store, queue, events, newsroom, backlog, access)
    app.state.trainer = to_trainer
    of_one = (follow_routes, branch_routes, resume_routes)
    routers = (*of_one, list_routes, key_routes, facade, trainer_routes, page_routes)
    for routes in (router, *(each.router for each in routers)):
        app.include_router(routes)
    return app


async def _in_time(asked: Awaitable[T]) -> T:
    async with asyncio.timeout(HEALTH_SECONDS):
        return await asked


async def health(engine: AsyncEngine, queue: SearchQueue) -> Health:
    """Whether Postgres and Redis answer in time, and how many jobs there are."""
    database, depth = await asyncio.gather(
        _in_time(ready(engine)),
        _in_time(queue.depth()),
        return_exceptions=True,
    )
    database_away, redis_away = isinstance(database, BaseException), isinstance(depth, BaseException)
    return Health(
        service="search",
        ready=not database_away and not redis_away,
        version=__version__,
        detail={
            "database": "away" if database_away else "ok",
            "redis": "away" if redis_away else "ok",
            "queue_depth": None if redis_away else depth,
        },
    )


Taking = Annotated[Intake, Depends(intake)]


@router.post(
    "/search",
    summary="Begin a search",
    status_code=202,
    response_model=SearchResult,
    response_description="Stored and under way; `Location` leads to it.",
    responses={
        200: {
            "model": SearchResult,
            "description": "It ended while the caller waited, or an earlier request with this key did.",
            "headers": LOCATION,
        },
        202: {"headers": LOCATION},
        **problems(
            _403="The key may not ask for this priority.",
            _409="The Idempotency-Key was used before, with another request.",
            _429="A limit of the key is reached; `Retry-After` says when to come back.",
        ),
        **_INVALID,
        **UNAVAILABLE,
    },
)
async def begin(
    body: SearchRequest,
    request: Request,
    taking: Taking,
    caller: Calling,
    idempotency_key: IdempotencyKey = None,
) -> Response:
    """Store the problem and put it before the workers. With `wait`, the answer waits for the end, at most that many seconds."""
    search_id = await taking.begin(body, caller, idempotency_key, followed=body.wait > 0)
    if body.wait > 0:
        await wait_for_end(taking.store, taking.newsroom, search_id, body.wait, request)
    return result_response(await read_result(taking.store, search_id))


@router.get(
    "/search/{search_id}",
    summary="State and best answer of a search",
    response_model=SearchResult,
    responses=ONE,
)
async def read(search_id: SearchId, store: Store) -> Response:
    """Anything from `queued` to the verified answer with its steps, votes and cost."""
    return json_response(await read_result(store, search_id))


@router.get(
    "/search/{search_id}/replay",
    summary="The search, run again from its journal",
    response_model=Replay,
    responses={
        **ONE,
        **problems(
            _404="There is no such search, or it has no journal of its tasks.",
            _409="The search is not over yet.",
        ),
    },
)
async def replay_search(search_id: SearchId, store: Store) -> Response:
    """Strategy and vote are asked anew, and told what policy, sandbox and PRM answered then: do they ask for the same tasks,
    and come to the same answer?"""
    result = await read_result(store, search_id)
    if not is_end(SEARCH_TRANSITIONS, result.state):
        raise ProblemError(
            HTTPStatus.CONFLICT, f"The search is {result.state}: it can be replayed once it is over."
        )
    journal = await store.load_journal(search_id)
    if journal is None or not journal.tasks:
        raise ProblemError(
            HTTPStatus.NOT_FOUND,
            f"Search {search_id} has no journal of its tasks: none was done, or a version before 0.2.0 did them.",
        )
    # The tree is as large as the search was long; other requests need not wait for it.
    return json_response(
        await asyncio.to_thread(
            replay,
            str(search_id),
            journal.request,
            result.answer,
            journal.nodes,
            journal.tasks,
            journal.beginning,
        )
    )


@router.delete(
    "/search/{search_id}",
    summary="Cancel a search",
    response_model=SearchResult,
    response_description="It is over; the result so far.",
    responses={
        202: {
            "model": SearchResult,
            "description": "Its worker was told; the best answer so far is kept.",
        },
        **ONE,
    },
)
async def cancel(search_id: SearchId, taking: Taking) -> Response:
    """Stop it and keep the best answer so far. Asking again, or when it is over, changes nothing."""
    result = await taking.call_off(search_id)
    if result is None:
        raise no_such_search(search_id)
    return result_response(result)


@router.get(
    "/search/{search_id}/proof",
    summary="The proof bundle",
    response_model=Proof,
    responses={
        **ONE,
        **problems(
            _404="There is no such search, or it ended without a proof.",
            _409="The search is not over yet.",
        ),
    },
)
async def proof(search_id: SearchId, store: Store) -> Response:
    """Program, steps, outputs, votes, versions and hashes: what `ratchet verify` re-executes offline."""
    # The state first: a search that ends between the two reads is seen as still running, never as without proof.
    state = await store.state(search_id)
    if state is None:
        raise no_such_search(search_id)
    found = await store.proof(search_id)
    if found is not None:
        # As it was sealed: one that an older version made has other fields, and its `format` says so.
        return Response(orjson.dumps(found), media_type="application/json")
    if not is_end(SEARCH_TRANSITIONS, state):
        raise ProblemError(HTTPStatus.CONFLICT, f"The search is {state}: there is no proof yet.")
    raise ProblemError(HTTPStatus.NOT_FOUND, f"The search ended as {state}, without a proof.")
