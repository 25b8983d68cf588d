"""A search that is over, taken up again: a failed one as it was, another one with a larger budget. It keeps its id, its
Idempotency-Key and its tree."""

import contextlib
from http import HTTPStatus
from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Body, Depends
from fastapi.responses import Response

from ratchet.contracts.extending import ExtendRequest, ShrinkingBudgetError
from ratchet.contracts.search import SearchResult
from ratchet.states import EXTENDABLE, SEARCH_TRANSITIONS, SearchState, is_end
from ratchet.store.extending import NotExtendableError
from ratchet.store.searches import Waiting
from ratchet.web.app import ProblemError, invalid
from ratchet.web.unavailable import UNAVAILABLE, problems
from services.search.access import Calling
from services.search.intake import Intake, intake, redis_may_be_away, state_event
from services.search.responses import LOCATION, SearchId, json_response, no_such_search, read_result

EXTEND_EXAMPLES = {
    "twice the tokens": {
        "summary": "8,192 generated tokens in all; seconds, nodes and rollouts grow as much",
        "value": {"tokens": 8192},
    }
}

router = APIRouter(tags=["searches"])


@router.post(
    "/search/{search_id}/retry",
    summary="Take a failed search up again",
    status_code=202,
    response_model=SearchResult,
    response_description="It waits for a worker, with the tree that it has.",
    responses={
        202: {"headers": LOCATION},
        **problems(
            _404="There is no such search.",
            _409="The search is over, and has not failed.",
            _422="The id is not a UUID.",
            _429="A limit of the key is reached; `Retry-After` says when to come back.",
        ),
        **UNAVAILABLE,
    },
)
async def retry(
    search_id: SearchId, taken_in: Annotated[Intake, Depends(intake)], caller: Calling
) -> Response:
    """Queue it again, with its tree. Asking again changes nothing while it waits or runs."""
    failed = await taken_in.store.state(search_id) is SearchState.FAILED
    async with taken_in.access.within_limits(caller) if failed else contextlib.nullcontext():
        found = await taken_in.store.retry(search_id)
    if found is None:
        raise no_such_search(search_id)
    state, waiting = found
    if is_end(SEARCH_TRANSITIONS, state):
        raise ProblemError(
            HTTPStatus.CONFLICT, f"The search is {state}: only a failed one can be taken up again."
        )
    return await _taken_up(taken_in, search_id, waiting)


@router.post(
    "/search/{search_id}/extend",
    summary="Go on with a larger budget",
    status_code=202,
    response_model=SearchResult,
    response_description="It waits for a worker, with the tree that it has; or it may use as much already.",
    responses={
        202: {"headers": LOCATION},
        **problems(
            _404="There is no such search.",
            _409="The search waits or runs, has failed, is a round's, or its tree is no longer kept.",
            _422="The request is not valid, or the search would have less than before; `errors` names the fields.",
            _429="A limit of the key is reached; `Retry-After` says when to come back.",
        ),
        **UNAVAILABLE,
    },
)
async def extend(
    search_id: SearchId,
    body: Annotated[ExtendRequest, Body(openapi_examples=EXTEND_EXAMPLES)],
    taken_in: Annotated[Intake, Depends(intake)],
    caller: Calling,
) -> Response:
    """Queue a search that is over again, with its tree: it goes on where it stopped, and is concluded anew. What it may use is
    told in all, what it has used included, so that asking again changes nothing.

    Until its new end the search shows the answer that it had.
    """
    over = await taken_in.store.state(search_id) in EXTENDABLE
    try:
        async with taken_in.access.within_limits(caller) if over else contextlib.nullcontext():
            found = await taken_in.store.extend(search_id, body)
    except NotExtendableError as error:
        raise ProblemError(HTTPStatus.CONFLICT, str(error)) from error
    except ShrinkingBudgetError as error:
        raise invalid(error.field, str(error)) from error
    if found is None:
        raise no_such_search(search_id)
    _, waiting = found
    return await _taken_up(taken_in, search_id, waiting)


async def _taken_up(taken_in: Intake, search_id: UUID, waiting: Waiting | None) -> Response:
    """The answer; the job is put where there is one to put."""
    if waiting is not None:
        with redis_may_be_away("job put off"):
            await taken_in.queue.enqueue_many([waiting])
            await taken_in.events.publish(search_id, [state_event(SearchState.QUEUED, None)])
    return json_response(
        await read_result(taken_in.store, search_id), 202, {"Location": f"/search/{search_id}"}
    )
