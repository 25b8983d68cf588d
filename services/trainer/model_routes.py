"""Routes of the model registry: versions, and where they come from. What serves is in `pair_routes`."""

from http import HTTPStatus
from typing import Annotated, TypeVar

from fastapi import APIRouter, Depends, Path, Query, Request
from fastapi.responses import Response

from ratchet.contracts.base import FieldError
from ratchet.contracts.serving import MODEL_VERSION
from ratchet.contracts.trainer import Lineage, ModelKind, ModelList, ModelRegistration, ModelView
from ratchet.states import ModelState
from ratchet.store.registry import Registry, UnknownParentError, VersionConflictError
from ratchet.web.app import ProblemError
from ratchet.web.unavailable import UNAVAILABLE, problems

_UNKNOWN = problems(_404="There is no such version.")
_INVALID = problems(_422="The request is not valid; `errors` names the fields.")
_LOCATION = {"Location": {"description": "Path of the version.", "schema": {"type": "string"}}}

T = TypeVar("T")

router = APIRouter(tags=["models"])


async def model_registry(request: Request) -> Registry:
    """The app's registry."""
    registry: Registry = request.app.state.registry
    return registry


Version = Annotated[str, Path(pattern=MODEL_VERSION, description="Version; it may contain slashes.")]
Versions = Annotated[Registry, Depends(model_registry)]


@router.get(
    "/models",
    summary="Model versions",
    responses={**_INVALID, **UNAVAILABLE},
)
async def models(
    registry: Versions,
    kind: Annotated[ModelKind | None, Query(description="Only these.")] = None,
    state: Annotated[ModelState | None, Query(description="Only those in this state.")] = None,
    limit: Annotated[int, Query(ge=1, le=1000)] = 100,
) -> ModelList:
    """The newest first."""
    return ModelList(models=await registry.models(kind, state, limit))


@router.get(
    "/models/{version:path}/lineage",
    summary="Where a version comes from",
    responses={**_UNKNOWN, **_INVALID, **UNAVAILABLE},
)
async def lineage(version: Version, registry: Versions) -> Lineage:
    """The version, those that it was trained from down to the base, and the data sets of each. A search names its
    versions in `models`, so this is the way from an answer to the data behind it."""
    return _or_not_found(await registry.lineage(version), version)


@router.get(
    "/models/{version:path}",
    summary="One model version",
    responses={**_UNKNOWN, **_INVALID, **UNAVAILABLE},
)
async def model(version: Version, registry: Versions) -> ModelView:
    """What it is, where it is, what it came from, and how it measured."""
    return _or_not_found(await registry.get(version), version)


@router.post(
    "/models",
    summary="Register a model version",
    status_code=201,
    response_model=ModelView,
    response_description="Registered, as a candidate.",
    responses={
        200: {"model": ModelView, "description": "It was registered before, with the same content."},
        201: {"headers": _LOCATION},
        **problems(_409="The version is registered already, with other content."),
        **_INVALID,
        **UNAVAILABLE,
    },
)
async def register(body: ModelRegistration, registry: Versions) -> Response:
    """Make a version known that lies in a local folder or on a hub. Registering it again changes
    nothing."""
    try:
        registered = await registry.register(body)
    except VersionConflictError as error:
        raise ProblemError(HTTPStatus.CONFLICT, str(error)) from error
    except UnknownParentError as error:
        raise ProblemError(
            HTTPStatus.UNPROCESSABLE_ENTITY,
            str(error),
            errors=[FieldError(field="parent", message=str(error))],
        ) from error
    return Response(
        registered.model.model_dump_json(),
        201 if registered.created else 200,
        {"Location": f"/models/{body.version}"},
        media_type="application/json",
    )


def _or_not_found(found: T | None, version: str) -> T:
    if found is None:
        raise ProblemError(HTTPStatus.NOT_FOUND, f"There is no model version {version}.")
    return found
