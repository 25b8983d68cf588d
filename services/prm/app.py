"""The PRM service's HTTP app: `POST /score` gives each step of each trajectory a score in [0, 1].

PRM1 needs the policy's log-probability of each step. A caller that has them from the generation sends them along, and
nothing is computed; the others are asked of the policy in micro-batches and remembered. Trained PRMs run here; they are
loaded, made to serve and let go of while requests are answered. When the one to begin with cannot be loaded the process
exits with a status other than 0.
"""

import asyncio
import contextlib
import os
import sys
from collections.abc import AsyncIterator, Callable, Sequence
from http import HTTPStatus
from typing import Annotated, TypeVar

import structlog
from fastapi import Body, FastAPI, Path, Request

from ratchet import __version__
from ratchet.clients import PolicyClient, ServiceError
from ratchet.contracts.base import FieldError, Health
from ratchet.contracts.policy import Prefix
from ratchet.contracts.prm import ScoreRequest, ScoreResponse
from ratchet.contracts.serving import MODEL_VERSION, HeldModel, HeldModels, LoadModel, ServeModel
from ratchet.models.prm_head import HeadError
from ratchet.models.sources import ModelSourceError, resolve
from ratchet.settings import PrmSettings
from ratchet.web.app import ProblemError, cancelled_on_disconnect, create_app
from services.prm.batcher import LikelihoodBatcher
from services.prm.cache import StepCache
from services.prm.likelihood import NAME, step_scores
from services.prm.versions import (
    DigestError,
    HeadFailedError,
    TextTooLongError,
    TrainedPrm,
    UnknownVersionError,
    VersionInUseError,
    Versions,
)

log = structlog.get_logger()

_T = TypeVar("_T")

VERSION_SECONDS = 2.0
"""How often the policy is asked for its version: PRM1 is as new as the policy that it reads."""

EXAMPLES = {
    "known likelihoods": {
        "summary": "The caller has the log-probabilities from the generation",
        "value": {
            "problem": "A shelf holds 4 boxes of 12 cups. 5 cups are broken. How many are whole?",
            "steps": [
                ["# Step 1: Count all cups.\ncups = 4 * 12", "# Step 2: 48 - 5 = 43.\nprint(cups - 5)"]
            ],
            "logprobs": [[-0.11, -0.06]],
        },
    },
    "text alone": {
        "summary": "The service asks the policy",
        "value": {"problem": "What is 17 * 23?", "steps": [["# Step 1: Multiply.\nprint(17 * 23)"]]},
    },
}

LOAD_EXAMPLES = {
    "a round's PRM": {
        "summary": "The PRM that a round has trained",
        "value": {"uri": "/data/rounds/2/prm", "sha256": "3f2a91c0" * 8},
    },
    "a folder": {"summary": "Whatever is in a folder", "value": {"uri": "/data/rounds/2/prm"}},
}
SERVE_EXAMPLES = {
    "trained": {"summary": "A trained PRM", "value": {"version": "nano-prm-r2@3f2a91c0"}},
    "PRM1": {"summary": "Back to the likelihood scorer", "value": {"version": NAME}},
}

EXIT_LOAD = 70
"""Exit status when the PRM to begin with cannot be loaded (EX_SOFTWARE)."""

VersionPath = Annotated[
    str,
    Path(
        pattern=MODEL_VERSION,
        description="Name of the version; it may have slashes.",
        examples=["nano-prm-r2"],
    ),
]


def leave(message: str) -> None:
    """End the process now, whatever its threads are doing."""
    print(f"ratchet: {message}", file=sys.stderr, flush=True)  # noqa: T201 - the last words, for people
    os._exit(EXIT_LOAD)


def build_app(settings: PrmSettings) -> FastAPI:
    """The app, around a policy and a PRM that may still be loading."""
    policy = PolicyClient(settings.policy_url, retry_seconds=120.0)
    cache = StepCache(settings.cache_entries)
    batcher = LikelihoodBatcher(policy)
    versions = Versions(settings.cache_dir)
    served_policy: str | None = None
    loading: str | None = None if settings.prm_model == NAME else settings.prm_model

    async def load_first() -> None:
        nonlocal loading
        if loading is None:
            return
        try:
            found = await asyncio.to_thread(resolve, loading, settings.cache_dir)
            await versions.load(found.version, LoadModel(uri=loading, sha256=found.sha256))
        except (ModelSourceError, HeadError, DigestError, VersionInUseError) as error:
            leave(str(error))
        except Exception as error:
            log.error("loading failed", exc_info=error)
            leave(f"{loading} cannot be loaded: {type(error).__name__}: {error}")
        versions.serve(found.version)
        loading = None

    async def follow_policy() -> None:
        nonlocal served_policy
        while True:
            with contextlib.suppress(ServiceError):
                health = await policy.health()
                model = health.detail.get("model")
                if health.ready and isinstance(model, str):
                    served_policy = model
            await asyncio.sleep(VERSION_SECONDS)

    @contextlib.asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        tasks = [asyncio.create_task(follow_policy()), asyncio.create_task(load_first())]
        try:
            yield
        finally:
            for task in tasks:
                task.cancel()
            versions.close()
            await policy.aclose()

    def health() -> Health:
        state, model = "ready", versions.serving
        device: str | None = None
        if loading is not None:
            state = f"loading {loading}"
        elif versions.serving != NAME:
            device = versions.trained(versions.serving).head.device
        elif served_policy is None:
            state = f"waiting for the policy at {settings.policy_url}"
        else:
            model = f"{NAME}@{served_policy}"
        ready = state == "ready"
        return Health(
            service="prm",
            ready=ready,
            version=__version__,
            detail={
                "model": model if ready else None,
                "state": state,
                "held": [held.version for held in versions.listed()],
                "device": device,
            },
        )

    app = create_app(
        service="prm",
        summary="How good is this step? Scores in [0, 1] for steps of partial or whole solutions.",
        settings=settings,
        lifespan=lifespan,
        health=health,
    )

    async def logprobs_of(
        problem: str, steps: Sequence[str], version: str | None, known_as: str
    ) -> tuple[list[float], int]:
        """Log-probability of each step, and how many of them were known."""
        if not steps:
            return [], 0
        known = cache.get(f"{NAME}@{known_as}", problem, steps)
        found = [value for value in known if value is not None]
        if len(found) == len(steps):
            return found, len(found)
        answer = await batcher.ask(Prefix(problem=problem, steps=list(steps)), version)
        cache.put(f"{NAME}@{answer.model}", problem, steps, answer.step_logprobs)
        return answer.step_logprobs, 0

    async def likelihood_scores(body: ScoreRequest) -> ScoreResponse:
        model = body.policy or served_policy
        if model is None:
            raise ProblemError(
                HTTPStatus.SERVICE_UNAVAILABLE,
                f"The policy at {settings.policy_url} is not ready.",
                headers={"Retry-After": "5"},
            )
        given = body.logprobs or [[None] * len(row) for row in body.steps]

        async def row(steps: list[str], logprobs: list[float | None]) -> tuple[list[float], int]:
            sent = [value for value in logprobs if value is not None]
            if len(sent) == len(steps):
                return sent, 0
            return await logprobs_of(body.problem, steps, body.policy, model)

        try:
            rows = await asyncio.gather(*map(row, body.steps, given))
        except ServiceError as error:
            status = HTTPStatus.SERVICE_UNAVAILABLE if error.transient else HTTPStatus.UNPROCESSABLE_ENTITY
            raise ProblemError(
                status,
                f"The policy did not give likelihoods: {error}",
                errors=list(error.errors),
                headers={"Retry-After": "5"} if error.transient else None,
            ) from error
        return ScoreResponse(
            model=f"{NAME}@{model}",
            scores=[step_scores(logprobs) for logprobs, _ in rows],
            cached=sum(cached for _, cached in rows),
        )

    async def trained_scores(prm: TrainedPrm, body: ScoreRequest) -> ScoreResponse:
        try:
            with prm.used():
                scores, cached = await prm.scores(body.problem, body.steps, cache)
        except TextTooLongError as error:
            raise _refuse(HTTPStatus.UNPROCESSABLE_ENTITY, f"steps.{error.number}", str(error)) from error
        except HeadFailedError as error:
            raise ProblemError(
                HTTPStatus.SERVICE_UNAVAILABLE, f"The PRM failed: {error}.", headers={"Retry-After": "10"}
            ) from error
        return ScoreResponse(model=prm.version, scores=scores, cached=cached)

    @app.post("/score", tags=["prm"])
    async def score(
        request: Request, body: Annotated[ScoreRequest, Body(openapi_examples=EXAMPLES)]
    ) -> ScoreResponse:
        """Score every step of every trajectory; the scores have the shape of `steps`.

        404 when the version that `model` names is not held.
        """
        if body.model is None and loading is not None:
            raise ProblemError(
                HTTPStatus.SERVICE_UNAVAILABLE, "The model is not loaded.", headers={"Retry-After": "5"}
            )
        version = body.model or versions.serving
        # No await between the choice and `used`, so that a version cannot be let go of in between.
        prm = None if version == NAME else _found("model", versions.trained, version)
        async with cancelled_on_disconnect(request):
            return await (likelihood_scores(body) if prm is None else trained_scores(prm, body))

    @app.get("/models", tags=["models"])
    def list_models() -> HeldModels:
        """The versions that are held, the serving one first. PRM1 is always among them."""
        return HeldModels(models=versions.listed())

    @app.put("/models/{version:path}", tags=["models"])
    async def load_model(
        version: VersionPath, body: Annotated[LoadModel, Body(openapi_examples=LOAD_EXAMPLES)]
    ) -> HeldModel:
        """Hold a trained PRM beside the others; answers when it can be asked. The same again changes nothing.

        422 when there is no such checkpoint, it is no PRM, or its digest is another; 409 when the name is taken.
        """
        try:
            await versions.load(version, body)
        except (ModelSourceError, HeadError) as error:
            raise _refuse(HTTPStatus.UNPROCESSABLE_ENTITY, "uri", str(error)) from error
        except DigestError as error:
            raise _refuse(HTTPStatus.UNPROCESSABLE_ENTITY, "sha256", str(error)) from error
        except VersionInUseError as error:
            raise _refuse(HTTPStatus.CONFLICT, "version", str(error)) from error
        return versions.entry(version)

    @app.post("/serving", tags=["models"])
    async def serve_model(
        body: Annotated[ServeModel, Body(openapi_examples=SERVE_EXAMPLES)],
    ) -> HeldModel:
        """Answer with this version where a request names none; requests under way end on the version they began with.

        404 when the version is not held.
        """
        _found("version", versions.serve, body.version)
        return versions.entry(body.version)

    @app.delete("/models/{version:path}", tags=["models"])
    async def unload_model(version: VersionPath) -> HeldModels:
        """Let go of a version; answers when the last request that uses it has ended.

        404 when it is not held, 409 when it serves or is PRM1.
        """
        try:
            await versions.unload(version)
        except UnknownVersionError as error:
            raise _refuse(HTTPStatus.NOT_FOUND, "version", str(error)) from error
        except VersionInUseError as error:
            raise _refuse(HTTPStatus.CONFLICT, "version", str(error)) from error
        return HeldModels(models=versions.listed())

    return app


def _found(field: str, find: Callable[[str], _T], version: str) -> _T:
    try:
        return find(version)
    except UnknownVersionError as error:
        raise _refuse(HTTPStatus.NOT_FOUND, field, str(error)) from error


def _refuse(status: HTTPStatus, field: str, message: str) -> ProblemError:
    return ProblemError(status, f"{field}: {message}", errors=[FieldError(field=field, message=message)])
