"""The trainer's API: the model registry and the rounds."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from http import HTTPStatus
from typing import Annotated
from uuid import UUID

from fastapi import FastAPI, Path, Query
from fastapi.responses import Response

from ratchet import __version__
from ratchet.clients import PolicyClient
from ratchet.contracts.base import FieldError, Health
from ratchet.contracts.trainer import ModelKind, ModelList, ModelRegistration, ModelView, RoundList, RoundView
from ratchet.service import ProblemError, create_app
from ratchet.settings import TrainerSettings
from ratchet.states import ModelState
from ratchet.store.engine import StoreUnavailableError, make_engine, ready
from ratchet.store.registry import Registry, UnknownParentError, VersionConflictError
from ratchet.unavailable import UNAVAILABLE, answer_unavailable, problems
from services.trainer.served import keep_served_registered

HEALTH_SECONDS = 3.0

_INVALID = problems(_422="The request is not valid; `errors` names the fields.")
_LOCATION = {"Location": {"description": "Path of the version.", "schema": {"type": "string"}}}
Version = Annotated[
    str,
    Path(pattern=r"^[A-Za-z0-9][A-Za-z0-9._/@+-]{0,199}$", description="Version; it may contain slashes."),
]


def build_app(settings: TrainerSettings) -> FastAPI:
    """The app; it holds itself not ready while Postgres is away."""
    engine = make_engine(settings.database_url)
    registry = Registry(engine)

    @contextlib.asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        async with PolicyClient(settings.policy_url) as policy:
            keeping = asyncio.create_task(keep_served_registered(policy, registry))
            try:
                yield
            finally:
                keeping.cancel()
                await asyncio.wait({keeping})
        await engine.dispose()

    async def health() -> Health:
        try:
            await asyncio.wait_for(ready(engine), HEALTH_SECONDS)
        except (StoreUnavailableError, TimeoutError):
            return Health(service="trainer", ready=False, version=__version__, detail={"database": "away"})
        return Health(service="trainer", ready=True, version=__version__, detail={"database": "ok"})

    app = create_app(
        service="trainer",
        summary="The model registry, and the rounds that make the next models.",
        settings=settings,
        lifespan=lifespan,
        health=health,
    )
    answer_unavailable(app)
    _add_routes(app, registry)
    return app


def _add_routes(app: FastAPI, registry: Registry) -> None:
    @app.get(
        "/models",
        tags=["models"],
        summary="Model versions",
        responses={**_INVALID, **UNAVAILABLE},
    )
    async def models(
        kind: Annotated[ModelKind | None, Query(description="Only these.")] = None,
        state: Annotated[ModelState | None, Query(description="Only those in this state.")] = None,
        limit: Annotated[int, Query(ge=1, le=1000)] = 100,
    ) -> ModelList:
        """The newest first."""
        return ModelList(models=await registry.models(kind, state, limit))

    @app.get(
        "/models/{version:path}",
        tags=["models"],
        summary="One model version",
        responses={**problems(_404="There is no such version."), **_INVALID, **UNAVAILABLE},
    )
    async def model(version: Version) -> ModelView:
        """What it is, where it is, what it came from, and how it measured."""
        found = await registry.get(version)
        if found is None:
            raise ProblemError(HTTPStatus.NOT_FOUND, f"There is no model version {version}.")
        return found

    @app.post(
        "/models",
        tags=["models"],
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
    async def register(body: ModelRegistration) -> Response:
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

    @app.get(
        "/rounds",
        tags=["rounds"],
        summary="Self-evolution rounds",
        responses={**_INVALID, **UNAVAILABLE},
    )
    async def rounds(limit: Annotated[int, Query(ge=1, le=1000)] = 100) -> RoundList:
        """The newest first."""
        return RoundList(rounds=await registry.rounds(limit))

    @app.get(
        "/rounds/{round_id}",
        tags=["rounds"],
        summary="One round",
        responses={**problems(_404="There is no such round."), **_INVALID, **UNAVAILABLE},
    )
    async def one_round(round_id: UUID) -> RoundView:
        """Its state, configuration, and what it measured."""
        found = await registry.round(round_id)
        if found is None:
            raise ProblemError(HTTPStatus.NOT_FOUND, f"There is no round {round_id}.")
        return found
