"""The policy service's HTTP app: `POST /generate` turns prefixes into candidate steps.

It may hold several versions of the model (`versions`), one of which answers where a request names none.
The app answers `/health` with 503 while the first model loads. When the serving engine dies the process exits with a
status other than 0, so that whoever supervises it starts a new one; an engine cannot be mended from inside.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import replace
from http import HTTPStatus
from typing import Annotated

import structlog
from fastapi import APIRouter, Body, Depends, FastAPI, Request
from prometheus_client import Counter

from ratchet import __version__
from ratchet.contracts.base import Health
from ratchet.contracts.policy import (
    FinishReason,
    GenerateRequest,
    GenerateResponse,
    LikelihoodRequest,
    LikelihoodResponse,
)
from ratchet.settings import PolicySettings
from ratchet.solutions.step_formats import StepFormat
from ratchet.web import held_versions
from ratchet.web.app import ProblemError, cancelled_on_disconnect, create_app, invalid, leave
from ratchet.web.held_versions import HeldVersion
from services.policy.candidates import candidate, trajectory_logprobs
from services.policy.engines.base import (
    Completion,
    Engine,
    EngineFailedError,
    EngineStartError,
    Sampling,
    TextTooLongError,
    Tokens,
    room,
)
from services.policy.shared_draws import SharedDraws
from services.policy.versions import PolicyVersions, StepWriter

log = structlog.get_logger()

MAX_SEQUENCES = 1024
"""Sequences in one request. More would only wait in the engine, and be lost together."""
LAST_ANSWERS_SECONDS = 0.2
"""After the serving engine has died: a moment for the answers of the requests that failed with it."""

GENERATED = Counter("ratchet_policy_tokens", "Generated tokens.", ["model"])
PROMPTED = Counter("ratchet_policy_prompt_tokens", "Prompt tokens, each prefix counted once.", ["model"])

EXAMPLES = {
    "next step": {
        "summary": "Two candidates for the second step",
        "value": {
            "prefixes": [
                {
                    "problem": "A shelf holds 4 boxes of 12 cups. 5 cups are broken. How many are whole?",
                    "steps": ["# Step 1: Count all cups.\ncups = 4 * 12"],
                }
            ],
            "n": 2,
            "temperature": 0.8,
            "max_tokens": 128,
            "seed": 1,
        },
    },
    "whole solution": {
        "summary": "One greedy solution from the beginning",
        "value": {
            "prefixes": [{"problem": "What is 17 * 23?", "steps": []}],
            "temperature": 0,
            "max_tokens": 256,
            "until": "end",
        },
    },
}

LIKELIHOOD_EXAMPLES = {
    "two steps": {
        "summary": "A solution of two steps",
        "value": {
            "trajectories": [
                {
                    "problem": "A shelf holds 4 boxes of 12 cups. 5 cups are broken. How many are whole?",
                    "steps": [
                        "# Step 1: Count all cups.\ncups = 4 * 12",
                        "# Step 2: 48 - 5 = 43.\nprint(cups - 5)",
                    ],
                }
            ]
        },
    }
}


router = APIRouter(tags=["policy"])


def build_app(
    settings: PolicySettings,
    engine: Engine,
    step_format: StepFormat,
    on_failure: Callable[[str], None] = leave,
    *,
    sha256: str | None = None,
) -> FastAPI:
    """The app around a first engine, which is started with the app, and those that are loaded beside it.

    `sha256` is that of the checkpoint; `/health` reports it, and the registry keeps it.
    `on_failure` is called when the first engine cannot start, or the serving one has died.
    """
    writer = StepWriter(engine, step_format)
    first = HeldVersion(engine.model_version, str(engine.checkpoint), sha256, writer)
    versions = PolicyVersions(first, settings)
    app = create_app(
        service="policy",
        summary="What is the next step? Candidate steps after a partial solution.",
        settings=settings,
        lifespan=lambda _: running_engines(versions, on_failure),
        health=lambda: health(versions),
    )
    app.state.versions = versions
    app.include_router(router)
    app.include_router(held_versions.router)
    return app


@contextlib.asynccontextmanager
async def running_engines(versions: PolicyVersions, on_failure: Callable[[str], None]) -> AsyncIterator[None]:
    """The engines run until the block ends."""
    running = asyncio.create_task(run_engines(versions, on_failure))
    try:
        yield
    finally:
        running.cancel()
        await versions.close()


async def run_engines(versions: PolicyVersions, on_failure: Callable[[str], None]) -> None:
    """Run the engines until the first cannot start or the serving one dies, which `on_failure` is told."""
    try:
        reason = await versions.run()
    except EngineStartError as error:
        on_failure(str(error))
    except Exception as error:
        log.error("engine task failed", exc_info=error)
        on_failure(f"the engine failed: {type(error).__name__}: {error}")
    else:
        await asyncio.sleep(LAST_ANSWERS_SECONDS)
        on_failure(f"the engine died ({reason}); the service must be started again.")


def health(versions: PolicyVersions) -> Health:
    """Whether the serving version can be asked, and what it is."""
    serving, writer = versions.serving, versions.serving.model
    return Health(
        service="policy",
        ready=versions.ready,
        version=__version__,
        detail={
            "model": serving.name,
            "uri": serving.uri,
            "sha256": serving.sha256,
            "engine": writer.engine.name,
            "device": writer.engine.device,
            "step_format": writer.step_format.name,
            "max_model_len": writer.engine.max_model_len,
            "models": versions.names(),
            "state": "ready" if versions.ready else "loading the model",
        },
    )


async def policy_versions(request: Request) -> PolicyVersions:
    """The versions that the service holds."""
    versions: PolicyVersions = request.app.state.versions
    return versions


Versions = Annotated[PolicyVersions, Depends(policy_versions)]


@router.post("/generate")
async def generate(
    request: Request,
    body: Annotated[GenerateRequest, Body(openapi_examples=EXAMPLES)],
    versions: Versions,
) -> GenerateResponse:
    """Propose `n` candidates after each prefix: the next step, or (until `end`) all that is left.

    Sequences of all callers share the engine's batches. When the caller goes away its sequences are dropped.
    """
    check_request(body)
    with versions.using(body.model) as version, engine_problems():
        engine, step_format = version.model.engine, version.model.step_format
        meaning = dict.fromkeys(body.stop, FinishReason.STOP) | step_format.stops(body.until)
        async with cancelled_on_disconnect(request):
            texts = [step_format.render(prefix) for prefix in body.prefixes]
            prompts = await asyncio.to_thread(engine.encode, texts)
            check_prompts(prompts, engine.max_model_len)
            draws = version.model.draws if body.shared else None
            completions = await complete(
                engine, prompts, sampling_of(body, tuple(meaning)), body.seeds, draws
            )
    prompt_tokens = sum(map(len, prompts))
    PROMPTED.labels(version.name).inc(prompt_tokens)
    return GenerateResponse(
        model=version.name,
        candidates=[[candidate(one, body.until, step_format, meaning) for one in row] for row in completions],
        prompt_tokens=prompt_tokens,
    )


@router.post("/likelihood")
async def likelihood(
    request: Request,
    body: Annotated[LikelihoodRequest, Body(openapi_examples=LIKELIHOOD_EXAMPLES)],
    versions: Versions,
) -> LikelihoodResponse:
    """Mean log-probability of each step of given trajectories, read after the prompt that generation uses.

    Costs a whole prompt for each trajectory; `/generate` gives the same for its own candidates for nothing.
    """
    with versions.using(body.model) as version, engine_problems():
        step_format = version.model.step_format
        async with cancelled_on_disconnect(request):
            texts = [step_format.render(trajectory) for trajectory in body.trajectories]
            readings = await version.model.engine.read(texts)
    rows = zip(body.trajectories, texts, readings, strict=True)
    return LikelihoodResponse(
        model=version.name,
        step_logprobs=[
            trajectory_logprobs(trajectory, text, reading, step_format) for trajectory, text, reading in rows
        ],
    )


@contextlib.contextmanager
def engine_problems() -> Iterator[None]:
    """An engine's errors become problem documents: 422 for a text that is too long, 503 when the engine is gone."""
    try:
        yield
    except TextTooLongError as error:
        raise invalid(f"trajectories.{error.number}", str(error)) from error
    except EngineFailedError as error:
        raise ProblemError(
            HTTPStatus.SERVICE_UNAVAILABLE, f"The engine failed: {error}.", headers={"Retry-After": "10"}
        ) from error


def sampling_of(body: GenerateRequest, stop: tuple[str, ...]) -> Sampling:
    """How each prompt of the request is continued."""
    return Sampling(
        n=body.n,
        temperature=body.temperature,
        top_p=body.top_p,
        max_tokens=body.max_tokens,
        seed=body.seed,
        stop=stop,
    )


async def complete(
    engine: Engine,
    prompts: list[Tokens],
    sampling: Sampling,
    seeds: list[int] | None,
    draws: SharedDraws | None = None,
) -> list[list[Completion]]:
    """Completions of each prompt. With seeds of their own, prompts get what they would get in a request for themselves."""
    if seeds is None:
        return await _draw(engine, prompts, sampling)

    async def alone(prompt: Tokens, seed: int) -> list[Completion]:
        own = replace(sampling, seed=seed)

        async def make() -> list[Completion]:
            [row] = await _draw(engine, [prompt], own)
            return row

        return await (
            make()
            if draws is None
            else draws.draw(prompt, own, room(own, prompt, engine.max_model_len), make)
        )

    return await asyncio.gather(*(alone(*each) for each in zip(prompts, seeds, strict=True)))


async def _draw(engine: Engine, prompts: list[Tokens], sampling: Sampling) -> list[list[Completion]]:
    rows = await engine.generate(prompts, sampling)
    GENERATED.labels(engine.model_version).inc(sum(one.tokens for row in rows for one in row))
    return rows


def check_request(body: GenerateRequest) -> None:
    """What the contract's types cannot say. Raises ProblemError (422)."""
    sequences = len(body.prefixes) * body.n
    if sequences > MAX_SEQUENCES:
        raise invalid(
            "n",
            f"{len(body.prefixes)} prefixes with n={body.n} are {sequences} sequences; at most {MAX_SEQUENCES}",
        )
    for number, stop in enumerate(body.stop):
        if not stop:
            raise invalid(f"stop.{number}", "must not be empty: it would stop at once")


def check_prompts(prompts: list[Tokens], max_model_len: int) -> None:
    """Each prompt must leave the model room for a token at least. Raises ProblemError (422)."""
    for number, prompt in enumerate(prompts):
        if len(prompt) >= max_model_len:
            raise invalid(
                f"prefixes.{number}",
                f"the prompt has {len(prompt)} tokens, and this model reads and writes at most {max_model_len}",
            )
        if not prompt:
            raise invalid(f"prefixes.{number}", "gives an empty prompt")
