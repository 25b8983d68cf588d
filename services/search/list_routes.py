"""The list of searches: found again by what they say, where they stand, and what worked on them."""

from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Query
from fastapi.responses import Response

from ratchet.contracts.keys import KeyScope
from ratchet.contracts.search import StrategyName, VerificationLevel
from ratchet.contracts.search_list import FilterText, SearchFilter, SearchPage
from ratchet.contracts.serving import ModelVersion
from ratchet.states import SearchState
from ratchet.web.unavailable import UNAVAILABLE, problems
from services.search.access import Calling
from services.search.responses import Store, json_response

router = APIRouter(tags=["searches"])


@router.get(
    "/searches",
    summary="Recent searches",
    response_model=SearchPage,
    responses={**problems(_422="The request is not valid; `errors` names the fields."), **UNAVAILABLE},
)
async def recent(
    store: Store,
    caller: Calling,
    limit: Annotated[int, Query(ge=1, le=200)] = 50,
    text: Annotated[
        FilterText | None,
        Query(description="Only those with this in the problem or the answer, in whatever case."),
    ] = None,
    state: Annotated[SearchState | None, Query(description="Only those in this state.")] = None,
    level: Annotated[
        VerificationLevel | None, Query(description="Only those whose answer has this level.")
    ] = None,
    model: Annotated[
        ModelVersion | None, Query(description="Only those that this policy or PRM version worked on.")
    ] = None,
    strategy: Annotated[StrategyName | None, Query(description="Only those of this strategy.")] = None,
    cursor: Annotated[UUID | None, Query(description="`next` of the page before.")] = None,
) -> Response:
    """The newest first, a page at a time. A key of the scope `solve` is shown those that it began.

    A page looks at a bounded number of searches: where few are as asked for it may be short, or empty, and still have a `next`.
    """
    only = caller.key_id if caller.scope is KeyScope.SOLVE else None
    narrowed = SearchFilter(text=text, state=state, level=level, model=model, strategy=strategy)
    return json_response(await store.list_recent(limit, narrowed, cursor, only))
