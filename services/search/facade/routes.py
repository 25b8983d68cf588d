"""`/v1`: what OpenAI's clients ask for."""

from http import HTTPStatus
from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Depends, Path, Request
from fastapi.responses import Response

from ratchet.contracts.base import FieldError
from ratchet.contracts.search import SearchRequest
from ratchet.web.app import ProblemError
from ratchet.web.door.callers import Caller
from ratchet.web.openai_errors import openai_problem_schema
from ratchet.web.problems import PROBLEM_JSON
from services.search.facade.completions import ChatCompletion
from services.search.facade.following import CompletionStream, complete, held, patience
from services.search.facade.models import SEARCHES, FacadeModel, FacadeModels, every_model
from services.search.facade.requests import ChatCompletionRequest
from services.search.facade.translation import UnknownModelError, UntranslatableError, search_requests
from services.search.intake import Intake, intake

_ERROR = {"content": {PROBLEM_JSON: {"schema": openai_problem_schema()}}}
_CHUNK = {
    "type": "object",
    "description": "One event: a chunk as JSON, at last `[DONE]`. There are comments in between, and no ids.",
    "required": ["data"],
    "properties": {"data": {"type": "string"}},
}

router = APIRouter(
    prefix="/v1",
    tags=["openai"],
    responses={
        "4XX": {"description": "The request cannot be served as it is.", **_ERROR},
        "5XX": {"description": "The service cannot serve now, or the search failed.", **_ERROR},
        422: {"description": "What is wrong, or cannot be honoured, by its name.", **_ERROR},
    },
)
Taking = Annotated[Intake, Depends(intake)]


@router.post(
    "/chat/completions",
    summary="Solve a problem, asked as a chat completion",
    response_model=ChatCompletion,
    responses={200: {"description": "The answer.", "content": {"text/event-stream": {"schema": _CHUNK}}}},
)
async def chat_completions(
    body: ChatCompletionRequest, request: Request, taking: Taking
) -> ChatCompletion | Response:
    """A search behind OpenAI's Chat Completions API; with `stream` its steps come as they are found. It is cancelled when the
    client goes away."""
    try:
        asked = search_requests(body)
    except UnknownModelError as error:
        raise _no_such_model(str(error)) from error
    except UntranslatableError as error:
        raise ProblemError(
            HTTPStatus.UNPROCESSABLE_ENTITY, f"The request is not valid. {error}", errors=error.errors
        ) from error
    searches = await _begin(taking, asked, request.state.caller)
    if body.stream:
        return CompletionStream(taking, body, searches, patience(asked))
    return await complete(taking, body, request, searches, patience(asked))


@router.get("/models", summary="The models of the façade", response_model=FacadeModels)
async def models() -> FacadeModels:
    """Names for how much is searched; what answers in each is the pair that serves."""
    return every_model()


@router.get("/models/{model}", summary="One of them", response_model=FacadeModel)
async def model(model: Annotated[str, Path(min_length=1, max_length=200)]) -> FacadeModel:
    """Whether there is a model of this name."""
    if model not in SEARCHES:
        raise _no_such_model(f"There is no model {model}.")
    return FacadeModel(id=model)


async def _begin(taking: Intake, asked: list[SearchRequest], caller: Caller) -> list[UUID]:
    """Begin all of them, or none."""
    begun: list[UUID] = []
    try:
        for each in asked:
            # One after another: a key's limit counts those before it.
            search_id = await taking.begin(each, caller, followed=True)
            begun.append(search_id)
    except BaseException:
        async with held(taking, begun):
            raise
    return begun


def _no_such_model(message: str) -> ProblemError:
    return ProblemError(
        HTTPStatus.NOT_FOUND,
        message,
        errors=[FieldError(field="model", message="there is none of this name")],
    )
