"""A failed search, taken up again: it keeps its id, its Idempotency-Key and its tree."""

import contextlib
from http import HTTPStatus
from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Depends, Path
from fastapi.responses import Response

from ratchet.contracts.search import SearchResult
from ratchet.states import SEARCH_TRANSITIONS, SearchState, is_end
from ratchet.web.app import ProblemError
from ratchet.web.unavailable import UNAVAILABLE, problems
from services.search.access import Calling
from services.search.intake import Intake, intake, redis_may_be_away, state_event

router = APIRouter(tags=["searches"])


@router.post(
    "/search/{search_id}/retry",
    summary="Take a failed search up again",
    status_code=202,
    response_model=SearchResult,
    response_description="It waits for a worker, with the tree that it has.",
    responses={
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
    search_id: Annotated[UUID, Path(description="Id from `POST /search`.")],
    taken_in: Annotated[Intake, Depends(intake)],
    caller: Calling,
) -> Response:
    """Queue it again, with its tree. Asking again changes nothing while it waits or runs."""
    failed = await taken_in.store.state(search_id) is SearchState.FAILED
    async with taken_in.access.within_limits(caller) if failed else contextlib.nullcontext():
        found = await taken_in.store.retry(search_id)
    if found is None:
        raise ProblemError(HTTPStatus.NOT_FOUND, f"There is no search {search_id}.")
    state, waiting = found
    if is_end(SEARCH_TRANSITIONS, state):
        raise ProblemError(
            HTTPStatus.CONFLICT, f"The search is {state}: only a failed one can be taken up again."
        )
    if waiting is not None:
        with redis_may_be_away("job put off"):
            await taken_in.queue.enqueue_many([waiting])
            await taken_in.events.publish(search_id, [state_event(SearchState.QUEUED, None)])
    result = await taken_in.store.result(search_id)
    assert result is not None
    return Response(
        result.model_dump_json(), 202, {"Location": f"/search/{search_id}"}, media_type="application/json"
    )
