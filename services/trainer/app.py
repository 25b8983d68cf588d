"""The trainer's API: the model registry and the rounds. The round machine runs beside it in the same process."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from http import HTTPStatus
from typing import Annotated
from uuid import UUID

from fastapi import Body, FastAPI, Path, Query
from fastapi.responses import Response

from ratchet import __version__
from ratchet.clients import ModelServiceClient, PolicyClient, PrmClient, SandboxClient, ServiceError
from ratchet.contracts.base import FieldError, Health
from ratchet.contracts.rounds import (
    QuarantineList,
    RoundList,
    RoundRequest,
    RoundRetry,
    RoundView,
    RunName,
)
from ratchet.contracts.serving import MODEL_VERSION, LoadModel
from ratchet.contracts.trainer import Lineage, ModelKind, ModelList, ModelRegistration, ModelView
from ratchet.queue import SearchQueue
from ratchet.settings import TrainerSettings
from ratchet.states import IllegalTransitionError, ModelState
from ratchet.store.engine import StoreUnavailableError, make_engine, ready
from ratchet.store.registry import Registry, UnknownParentError, VersionConflictError
from ratchet.store.round_searches import RoundSearchStore
from ratchet.store.rounds import ConfigInUseError, RoundConflictError, RoundStore
from ratchet.web.app import ProblemError, create_app
from ratchet.web.unavailable import UNAVAILABLE, answer_unavailable, problems
from services.trainer.machine import Machine
from services.trainer.promotion import keep_serving, let_go, needed_by_rounds, serve

HEALTH_SECONDS = 3.0

_INVALID = problems(_422="The request is not valid; `errors` names the fields.")
_LOCATION = {"Location": {"description": "Path of the version.", "schema": {"type": "string"}}}
Version = Annotated[str, Path(pattern=MODEL_VERSION, description="Version; it may contain slashes.")]

ROUND_EXAMPLES = {
    "nano": {
        "summary": "A small round on nano's own problems",
        "value": {
            "run": "first",
            "config": {
                "train": {"spec": "nano:train", "count": 300},
                "development": {"spec": "nano:development", "count": 100},
                "held_out": {"spec": "nano:held_out", "count": 200},
                "policy": {"epochs": 3, "lr": 5e-4, "batch_tokens": 2048},
                "prm": {"epochs": 2, "lr": 7e-4, "value_weight": 1.0, "edit_distance": 1},
            },
        },
    }
}


RETRY_EXAMPLES = {"as it was": {"summary": "With the configuration that it had", "value": {"config": None}}}


def build_app(settings: TrainerSettings) -> FastAPI:
    """The app; it holds itself not ready while Postgres is away."""
    engine = make_engine(settings.database_url)
    registry, rounds = Registry(engine), RoundStore(engine)
    services: dict[ModelKind, ModelServiceClient] = {}

    @contextlib.asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        queue = SearchQueue(settings.redis_url, settings.queue_name)
        async with (
            PolicyClient(settings.policy_url) as policy,
            PrmClient(settings.prm_url) as prm,
            SandboxClient(settings.sandbox_url) as sandbox,
        ):
            services.update({ModelKind.POLICY: policy, ModelKind.PRM: prm})
            machine = Machine(
                settings, rounds, RoundSearchStore(engine), registry, queue, policy, prm, sandbox
            )
            beside = {
                asyncio.create_task(machine.run()),
                asyncio.create_task(keep_serving(policy, prm, registry)),
            }
            try:
                yield
            finally:
                for task in beside:
                    task.cancel()
                await asyncio.wait(beside)
        await queue.aclose()
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
    _add_models(app, registry, rounds, services)
    _add_rounds(app, rounds)
    return app


def _add_models(
    app: FastAPI, registry: Registry, rounds: RoundStore, services: dict[ModelKind, ModelServiceClient]
) -> None:
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

    @app.post(
        "/models/{version:path}/serve",
        tags=["models"],
        summary="Promote or roll back to a version",
        responses={
            **problems(
                _404="There is no such version.",
                _409="It was rejected by its gate, or its service does not take it.",
            ),
            **_INVALID,
            **UNAVAILABLE,
        },
    )
    async def promote(version: Version) -> ModelView:
        """Serve this version from now on, without dropping a request; the one that serves is retired."""
        found = await registry.get(version)
        if found is None:
            raise ProblemError(HTTPStatus.NOT_FOUND, f"There is no model version {version}.")
        if found.state is ModelState.REJECTED:
            raise ProblemError(
                HTTPStatus.CONFLICT, f"{version} was rejected by its gate and cannot be served."
            )
        client = services[found.kind]
        try:
            before = {held.version for held in await client.models() if held.serving}
            # What cannot be held is not promoted, so that the registry says what is true.
            await client.load(version, LoadModel(uri=found.uri, sha256=found.sha256))
            await serve(registry, client, version)
            await let_go(client, before, {version} | await needed_by_rounds(rounds))
        except (ServiceError, IllegalTransitionError) as error:
            raise ProblemError(
                HTTPStatus.CONFLICT, f"The {found.kind} service does not serve {version}: {error}"
            ) from error
        return found.model_copy(update={"state": ModelState.SERVING})

    @app.get(
        "/models/{version:path}/lineage",
        tags=["models"],
        summary="Where a version comes from",
        responses={**problems(_404="There is no such version."), **_INVALID, **UNAVAILABLE},
    )
    async def lineage(version: Version) -> Lineage:
        """The version, those that it was trained from down to the base, and the data sets of each. A search names its
        versions in `models`, so this is the way from an answer to the data behind it."""
        found = await registry.lineage(version)
        if found is None:
            raise ProblemError(HTTPStatus.NOT_FOUND, f"There is no model version {version}.")
        return found

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


def _add_rounds(app: FastAPI, rounds: RoundStore) -> None:
    over = problems(_404="There is no such round.", _409="The round is over.")

    @app.post(
        "/rounds",
        tags=["rounds"],
        summary="Begin the next round of a run",
        status_code=201,
        response_description="Stored; the trainer takes it up.",
        responses={**problems(_409="The run's last round is not over."), **_INVALID, **UNAVAILABLE},
    )
    async def create(body: Annotated[RoundRequest, Body(openapi_examples=ROUND_EXAMPLES)]) -> RoundView:
        """Search, select, train a policy and a PRM, evaluate, promote or reject. Follow it at `GET /rounds/{id}`."""
        try:
            return await rounds.create(body)
        except RoundConflictError as error:
            raise ProblemError(HTTPStatus.CONFLICT, str(error)) from error

    @app.get(
        "/rounds", tags=["rounds"], summary="Self-evolution rounds", responses={**_INVALID, **UNAVAILABLE}
    )
    async def all_rounds(
        run: Annotated[RunName | None, Query(description="Only those of this run.")] = None,
        limit: Annotated[int, Query(ge=1, le=1000)] = 100,
    ) -> RoundList:
        """The newest first."""
        return RoundList(rounds=await rounds.rounds(run, limit))

    @app.get(
        "/rounds/{round_id}",
        tags=["rounds"],
        summary="One round",
        responses={**problems(_404="There is no such round."), **_INVALID, **UNAVAILABLE},
    )
    async def one_round(round_id: UUID) -> RoundView:
        """Its state, configuration, progress, and what it measured."""
        return _known(await rounds.get(round_id), round_id)

    @app.get(
        "/rounds/{round_id}/quarantine",
        tags=["rounds"],
        summary="Problems that a round has set aside",
        responses={**problems(_404="There is no such round."), **_INVALID, **UNAVAILABLE},
    )
    async def quarantine(round_id: UUID) -> QuarantineList:
        """Their reference answers lost against several programs that agree on another one."""
        _known(await rounds.get(round_id), round_id)
        return QuarantineList(problems=await rounds.quarantined(round_id=round_id))

    async def ask(round_id: UUID, *, paused: bool | None = None, cancel: bool = False) -> RoundView:
        try:
            return _known(await rounds.ask(round_id, paused=paused, cancel=cancel), round_id)
        except RoundConflictError as error:
            raise ProblemError(HTTPStatus.CONFLICT, str(error)) from error

    responses = {**over, **_INVALID, **UNAVAILABLE}

    @app.post("/rounds/{round_id}/pause", tags=["rounds"], summary="Pause a round", responses=responses)
    async def pause(round_id: UUID) -> RoundView:
        """Its stage stops within a second or so; searches that are under way end by themselves."""
        return await ask(round_id, paused=True)

    @app.post("/rounds/{round_id}/resume", tags=["rounds"], summary="Resume a round", responses=responses)
    async def resume(round_id: UUID) -> RoundView:
        """Go on with the stage in which it was paused."""
        return await ask(round_id, paused=False)

    @app.post("/rounds/{round_id}/cancel", tags=["rounds"], summary="Cancel a round", responses=responses)
    async def cancel(round_id: UUID) -> RoundView:
        """End it as failed. What it has gathered stays; what is served does not change."""
        return await ask(round_id, cancel=True)

    @app.post(
        "/rounds/{round_id}/retry",
        tags=["rounds"],
        summary="Retry a failed round",
        responses={
            **problems(
                _404="There is no such round.", _409="The round has not failed, or its run has gone on."
            ),
            **_INVALID,
            **UNAVAILABLE,
        },
    )
    async def retry(
        round_id: UUID,
        body: Annotated[RoundRetry | None, Body(openapi_examples=RETRY_EXAMPLES)] = None,
    ) -> RoundView:
        """Go on with the stage that failed, or was cancelled, with all that was gathered before it. The configuration
        may be changed in what no finished stage has worked with."""
        try:
            return _known(await rounds.retry(round_id, body.config if body else None), round_id)
        except RoundConflictError as error:
            raise ProblemError(HTTPStatus.CONFLICT, str(error)) from error
        except ConfigInUseError as error:
            raise ProblemError(
                HTTPStatus.UNPROCESSABLE_ENTITY,
                str(error),
                errors=[
                    FieldError(field=f"config.{part}", message="used by a finished stage")
                    for part in error.parts
                ],
            ) from error


def _known(found: RoundView | None, round_id: UUID) -> RoundView:
    if found is None:
        raise ProblemError(HTTPStatus.NOT_FOUND, f"There is no round {round_id}.")
    return found
