"""How routes name a search, find it, and show it."""

from http import HTTPStatus
from typing import Annotated
from uuid import UUID

from fastapi import Depends, Header, Path, Request
from fastapi.responses import Response

from ratchet.contracts.base import Contract
from ratchet.contracts.search import SearchResult
from ratchet.states import SEARCH_TRANSITIONS, is_end
from ratchet.store.searches import SearchStore
from ratchet.web.app import ProblemError
from ratchet.web.unavailable import UNAVAILABLE, problems

SearchId = Annotated[UUID, Path(description="Id from `POST /search`.")]
ONE = {**problems(_404="There is no such search.", _422="The id is not a UUID."), **UNAVAILABLE}
LOCATION = {"Location": {"description": "Path of the search.", "schema": {"type": "string"}}}
IdempotencyKey = Annotated[
    str | None,
    Header(
        min_length=1,
        max_length=255,
        pattern=r"^[\x21-\x7e]+$",
        description="A retry with the same key and the same body gets the same search.",
    ),
]


async def search_store(request: Request) -> SearchStore:
    """The app's store of searches."""
    store: SearchStore = request.app.state.store
    return store


Store = Annotated[SearchStore, Depends(search_store)]


def no_such_search(search_id: UUID) -> ProblemError:
    """To raise where there is none with this id."""
    return ProblemError(HTTPStatus.NOT_FOUND, f"There is no search {search_id}.")


async def read_result(store: SearchStore, search_id: UUID) -> SearchResult:
    """The search as it stands. Raises a problem (404) where there is none."""
    result = await store.result(search_id)
    if result is None:
        raise no_such_search(search_id)
    return result


def json_response(
    view: Contract,
    status: int = 200,
    headers: dict[str, str] | None = None,
) -> Response:
    """The view as JSON."""
    # Serialised once, by pydantic's own writer: FastAPI would validate a big tree a second time.
    return Response(view.model_dump_json(), status, headers, media_type="application/json")


def result_response(result: SearchResult) -> Response:
    """200 when it is over, otherwise 202."""
    status = 200 if is_end(SEARCH_TRANSITIONS, result.state) else 202
    return json_response(result, status, {"Location": f"/search/{result.id}"})
