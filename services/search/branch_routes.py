"""A new search that goes on from a step of another one, as it is, edited, or never again."""

from typing import Annotated

from fastapi import APIRouter, Depends, Request
from fastapi.responses import Response

from ratchet.contracts.branching import BranchRequest
from ratchet.contracts.search import SearchResult
from ratchet.store.branches import BranchStore
from ratchet.store.search_requests import Branch, branch_sha256
from ratchet.web.unavailable import UNAVAILABLE, problems
from services.search.access import Calling
from services.search.branching import branch_of
from services.search.intake import Intake, intake
from services.search.responses import (
    LOCATION,
    IdempotencyKey,
    SearchId,
    json_response,
    no_such_search,
    read_result,
)

router = APIRouter(tags=["searches"])


async def branch_store(request: Request) -> BranchStore:
    """The app's view of searches for those who branch."""
    store: BranchStore = request.app.state.branches
    return store


@router.post(
    "/search/{search_id}/branch",
    summary="Go on from a step of a search",
    status_code=202,
    response_model=SearchResult,
    response_description="Stored and under way; `Location` leads to it.",
    responses={
        202: {"headers": LOCATION},
        **problems(
            _403="The key may not ask for this priority.",
            _404="There is no such search, or it has no such node.",
            _409="The Idempotency-Key was used before, with another request; or the search's tree is no longer kept.",
            _422="The request is not valid; `errors` names the fields.",
            _429="A limit of the key is reached; `Retry-After` says when to come back.",
        ),
        **UNAVAILABLE,
    },
)
async def branch(
    search_id: SearchId,
    body: BranchRequest,
    taking: Annotated[Intake, Depends(intake)],
    branches: Annotated[BranchStore, Depends(branch_store)],
    caller: Calling,
    idempotency_key: IdempotencyKey = None,
) -> Response:
    """Begin a new search of the same problem, with its own budget. It is given the steps up to the node, which are run and
    scored, and not drawn; the node's step may be edited, or forbidden as the next one after its parent.

    What a person gives speaks for no answer: `agreement` is out of its reach, no probability is stated, and no model is trained
    on it.
    """
    source = await branches.source(search_id, body.node)
    if source is None:
        raise no_such_search(search_id)
    request, beginning = branch_of(str(search_id), source, body, caller.limits.max_priority)
    asked = Branch(beginning, branch_sha256(search_id, body))
    new = await taking.begin(request, caller, idempotency_key, followed=False, branch=asked)
    return json_response(await read_result(taking.store, new), 202, {"Location": f"/search/{new}"})
