"""The PRM service's HTTP app: `POST /score` gives each step of each trajectory a score in [0, 1].

PRM1 reads the policy's log-probabilities (`prm1`). Trained PRMs run here; they are loaded, made to serve and let go of
while requests are answered (`versions`). When the one to begin with cannot be loaded the process exits with a status other
than 0.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterator
from http import HTTPStatus
from typing import Annotated

import structlog
from fastapi import APIRouter, Body, Depends, FastAPI, Request

from ratchet import __version__, background
from ratchet.clients import PolicyClient, ServiceError
from ratchet.contracts.base import Health
from ratchet.contracts.prm import ScoreRequest, ScoreResponse
from ratchet.models.checkpoint import ModelSourceError
from ratchet.settings import PrmSettings
from ratchet.web import held_versions
from ratchet.web.app import ProblemError, cancelled_on_disconnect, create_app, invalid, leave
from ratchet.web.held_versions import CheckpointError
from services.prm.batcher import TextTooLongError
from services.prm.cache import StepCache
from services.prm.prm1 import VERSION_SECONDS, LikelihoodPrm, PolicyNotReadyError
from services.prm.trained import HeadFailedError
from services.prm.versions import PrmVersions

log = structlog.get_logger()

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

router = APIRouter(tags=["prm"])


def build_app(settings: PrmSettings) -> FastAPI:
    """The app, around a policy and a PRM that may still be loading."""
    policy = PolicyClient(settings.policy_url, key=settings.service_token, retry_seconds=120.0)
    cache = StepCache(settings.cache_entries)
    prm1 = LikelihoodPrm(policy, cache)
    versions = PrmVersions(prm1, cache, settings.cache_dir)
    app = create_app(
        service="prm",
        summary="How good is this step? Scores in [0, 1] for steps of partial or whole solutions.",
        settings=settings,
        lifespan=lambda _: running(policy, prm1, versions, settings.prm_model),
        health=lambda: health(versions, settings),
    )
    app.state.versions = versions
    app.include_router(router)
    app.include_router(held_versions.router)
    return app


@contextlib.asynccontextmanager
async def running(
    policy: PolicyClient, prm1: LikelihoodPrm, versions: PrmVersions, model: str
) -> AsyncIterator[None]:
    """The policy is followed, and the PRM of the settings loaded, until the block ends."""
    tasks = [
        asyncio.create_task(background.repeat("policy", prm1.look_at_policy, VERSION_SECONDS)),
        asyncio.create_task(load_first(versions, model)),
    ]
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        await versions.close()
        await policy.aclose()


async def load_first(versions: PrmVersions, model: str) -> None:
    """Make the PRM of the settings serve, or end the process."""
    try:
        await versions.start(model)
    except (ModelSourceError, CheckpointError) as error:
        leave(str(error))
    except Exception as error:
        log.error("loading failed", exc_info=error)
        leave(f"{model} cannot be loaded: {type(error).__name__}: {error}")


def health(versions: PrmVersions, settings: PrmSettings) -> Health:
    """Whether the serving version can be asked, and what it is."""
    serving = versions.serving.model
    if not versions.ready:
        state = f"loading {settings.prm_model}"
    elif serving.answers_as is None:
        state = f"waiting for the policy at {settings.policy_url}"
    else:
        state = "ready"
    ready = state == "ready"
    return Health(
        service="prm",
        ready=ready,
        version=__version__,
        detail={
            "model": serving.answers_as if ready else None,
            "state": state,
            "held": versions.names(),
            "device": serving.device,
        },
    )


async def prm_versions(request: Request) -> PrmVersions:
    """The versions that the service holds."""
    versions: PrmVersions = request.app.state.versions
    return versions


@router.post("/score")
async def score(
    request: Request,
    body: Annotated[ScoreRequest, Body(openapi_examples=EXAMPLES)],
    versions: Annotated[PrmVersions, Depends(prm_versions)],
) -> ScoreResponse:
    """Score every step of every trajectory; the scores have the shape of `steps`.

    404 when the version that `model` names is not held.
    """
    with versions.using(body.model) as version, scorer_problems():
        async with cancelled_on_disconnect(request):
            return await version.model.score(body)


@contextlib.contextmanager
def scorer_problems() -> Iterator[None]:
    """A scorer's errors become problem documents: 422 for what the caller sent, 503 for what may pass."""
    try:
        yield
    except TextTooLongError as error:
        raise invalid(f"steps.{error.number}", str(error)) from error
    except HeadFailedError as error:
        raise ProblemError(
            HTTPStatus.SERVICE_UNAVAILABLE, f"The PRM failed: {error}.", headers={"Retry-After": "10"}
        ) from error
    except PolicyNotReadyError as error:
        raise ProblemError(
            HTTPStatus.SERVICE_UNAVAILABLE, f"{error}", headers={"Retry-After": "5"}
        ) from error
    except ServiceError as error:
        raise ProblemError(
            HTTPStatus.SERVICE_UNAVAILABLE if error.transient else HTTPStatus.UNPROCESSABLE_ENTITY,
            f"The policy did not give likelihoods: {error}",
            errors=list(error.errors),
            headers={"Retry-After": "5"} if error.transient else None,
        ) from error
