"""The PRM service's HTTP app: `POST /score` gives each step of each trajectory a score in [0, 1].

PRM1 needs the policy's log-probability of each step. A caller that has them from the generation sends them along, and
nothing is computed; the others are asked of the policy in micro-batches and remembered.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Sequence
from http import HTTPStatus
from typing import Annotated

import structlog
from fastapi import Body, FastAPI, Request

from ratchet import __version__
from ratchet.clients import PolicyClient, ServiceError
from ratchet.contracts.base import Health
from ratchet.contracts.policy import Prefix
from ratchet.contracts.prm import ScoreRequest, ScoreResponse
from ratchet.service import ProblemError, cancelled_on_disconnect, create_app
from ratchet.settings import PrmSettings
from services.prm.batcher import LikelihoodBatcher
from services.prm.cache import LikelihoodCache
from services.prm.likelihood import NAME, step_scores

log = structlog.get_logger()

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


def build_app(settings: PrmSettings) -> FastAPI:
    """The app, around a policy that may still be loading."""
    policy = PolicyClient(settings.policy_url, retry_seconds=120.0)
    cache = LikelihoodCache(settings.cache_entries)
    batcher = LikelihoodBatcher(policy)
    served: str | None = None

    async def follow_policy() -> None:
        nonlocal served
        while True:
            with contextlib.suppress(ServiceError):
                health = await policy.health()
                model = health.detail.get("model")
                if health.ready and isinstance(model, str):
                    served = model
            await asyncio.sleep(VERSION_SECONDS)

    @contextlib.asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        following = asyncio.create_task(follow_policy())
        try:
            yield
        finally:
            following.cancel()
            await policy.aclose()

    def health() -> Health:
        return Health(
            service="prm",
            ready=served is not None,
            version=__version__,
            detail={
                "model": f"{NAME}@{served}" if served else None,
                "state": "ready" if served else f"waiting for the policy at {settings.policy_url}",
            },
        )

    app = create_app(
        service="prm",
        summary="How good is this step? Scores in [0, 1] for steps of partial or whole solutions.",
        settings=settings,
        lifespan=lifespan,
        health=health,
    )

    async def logprobs_of(problem: str, steps: Sequence[str], model: str) -> tuple[list[float], int]:
        """Log-probability of each step, and how many of them were known."""
        if not steps:
            return [], 0
        known = cache.get(model, problem, steps)
        found = [value for value in known if value is not None]
        if len(found) == len(steps):
            return found, len(found)
        answer = await batcher.ask(Prefix(problem=problem, steps=list(steps)))
        cache.put(answer.model, problem, steps, answer.step_logprobs)
        return answer.step_logprobs, 0

    @app.post("/score", tags=["prm"])
    async def score(
        request: Request, body: Annotated[ScoreRequest, Body(openapi_examples=EXAMPLES)]
    ) -> ScoreResponse:
        """Score every step of every trajectory; the scores have the shape of `steps`."""
        if served is None:
            raise ProblemError(
                HTTPStatus.SERVICE_UNAVAILABLE,
                f"The policy at {settings.policy_url} is not ready.",
                headers={"Retry-After": "5"},
            )
        model = served
        given = body.logprobs or [[None] * len(row) for row in body.steps]

        async def row(steps: list[str], logprobs: list[float | None]) -> tuple[list[float], int]:
            sent = [value for value in logprobs if value is not None]
            return (sent, 0) if len(sent) == len(steps) else await logprobs_of(body.problem, steps, model)

        async with cancelled_on_disconnect(request):
            try:
                rows = await asyncio.gather(*map(row, body.steps, given))
            except ServiceError as error:
                status = (
                    HTTPStatus.SERVICE_UNAVAILABLE if error.transient else HTTPStatus.UNPROCESSABLE_ENTITY
                )
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

    return app
