"""The policy service's HTTP app: `POST /generate` turns prefixes into candidate steps.

The app answers `/health` with 503 while the model loads. When the engine dies the process exits with a status other
than 0, so that whoever supervises it starts a new one; an engine cannot be mended from inside.
"""

import asyncio
import contextlib
import os
import sys
from bisect import bisect_left
from collections.abc import AsyncIterator, Callable, Sequence
from http import HTTPStatus
from typing import Annotated

import structlog
from fastapi import Body, FastAPI, Request
from prometheus_client import Counter

from ratchet import __version__
from ratchet.contracts.base import FieldError, Health
from ratchet.contracts.policy import (
    Candidate,
    FinishReason,
    GenerateRequest,
    GenerateResponse,
    LikelihoodRequest,
    LikelihoodResponse,
    Prefix,
    Until,
)
from ratchet.formats import StepFormat
from ratchet.service import ProblemError, cancelled_on_disconnect, create_app
from ratchet.settings import PolicySettings
from services.policy.engines.base import (
    Completion,
    Ended,
    Engine,
    EngineFailedError,
    EngineStartError,
    Sampling,
    TextTooLongError,
    Tokens,
)

log = structlog.get_logger()

MAX_SEQUENCES = 1024
"""Sequences in one request. More would only wait in the engine, and be lost together."""

EXIT_ENGINE = 70
"""Exit status when the engine cannot be started or has died (EX_SOFTWARE)."""

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


def leave(message: str) -> None:
    """End the process now, whatever its threads and children are doing."""
    print(f"ratchet: {message}", file=sys.stderr, flush=True)  # noqa: T201 - the last words, for people
    os._exit(EXIT_ENGINE)


def build_app(
    settings: PolicySettings,
    engine: Engine,
    step_format: StepFormat,
    on_failure: Callable[[str], None] = leave,
    *,
    sha256: str | None = None,
) -> FastAPI:
    """The app around one engine, which is started with the app and stopped with it.

    `sha256` is that of the checkpoint; `/health` reports it, and the registry keeps it.
    `on_failure` is called when the engine cannot start or has died.
    """
    ready = False

    async def run_engine() -> None:
        nonlocal ready
        try:
            await engine.start()
            await warm_up(engine, step_format)
        except EngineStartError as error:
            on_failure(str(error))
            return
        ready = True
        log.info("ready", model=engine.model_version, engine=engine.name, step_format=step_format.name)
        reason = await engine.died()
        ready = False
        # A moment for the answers of the requests that failed with it.
        await asyncio.sleep(0.2)
        on_failure(f"the engine died ({reason}); the service must be started again.")

    @contextlib.asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        nonlocal ready
        running = asyncio.create_task(run_engine())
        running.add_done_callback(_unexpected(on_failure))
        try:
            yield
        finally:
            ready = False
            running.cancel()
            await engine.stop()

    def health() -> Health:
        return Health(
            service="policy",
            ready=ready,
            version=__version__,
            detail={
                "model": engine.model_version,
                "uri": str(engine.checkpoint),
                "sha256": sha256,
                "engine": engine.name,
                "device": engine.device,
                "step_format": step_format.name,
                "max_model_len": engine.max_model_len,
                "state": "ready" if ready else "loading the model",
            },
        )

    app = create_app(
        service="policy",
        summary="What is the next step? Candidate steps after a partial solution.",
        settings=settings,
        lifespan=lifespan,
        health=health,
    )

    @app.post("/generate", tags=["policy"])
    async def generate(
        request: Request, body: Annotated[GenerateRequest, Body(openapi_examples=EXAMPLES)]
    ) -> GenerateResponse:
        """Propose `n` candidates after each prefix: the next step, or (until `end`) all that is left.

        Sequences of all callers share the engine's batches. When the caller goes away its sequences are dropped.
        """
        check(body)
        require_ready()
        async with cancelled_on_disconnect(request):
            texts = [step_format.render(prefix) for prefix in body.prefixes]
            prompts = await asyncio.to_thread(engine.encode, texts)
            check_lengths(prompts, body.max_tokens, engine.max_model_len)
            meaning = dict.fromkeys(body.stop, FinishReason.STOP) | step_format.stops(body.until)
            sampling = Sampling(
                n=body.n,
                temperature=body.temperature,
                top_p=body.top_p,
                max_tokens=body.max_tokens,
                seed=body.seed,
                stop=tuple(meaning),
            )
            try:
                completions = await engine.generate(prompts, sampling)
            except EngineFailedError as error:
                raise _engine_failed(error) from error
        GENERATED.labels(engine.model_version).inc(sum(one.tokens for row in completions for one in row))
        PROMPTED.labels(engine.model_version).inc(sum(map(len, prompts)))
        return GenerateResponse(
            model=engine.model_version,
            candidates=[
                [candidate(one, body.until, step_format, meaning) for one in row] for row in completions
            ],
            prompt_tokens=sum(map(len, prompts)),
        )

    @app.post("/likelihood", tags=["policy"])
    async def likelihood(
        request: Request, body: Annotated[LikelihoodRequest, Body(openapi_examples=LIKELIHOOD_EXAMPLES)]
    ) -> LikelihoodResponse:
        """Mean log-probability of each step of given trajectories, read after the prompt that generation uses.

        Costs a whole prompt for each trajectory; `/generate` gives the same for its own candidates for nothing.
        """
        require_ready()
        async with cancelled_on_disconnect(request):
            texts = [step_format.render(trajectory) for trajectory in body.trajectories]
            try:
                readings = await engine.read(texts)
            except TextTooLongError as error:
                raise _refuse(f"trajectories.{error.number}", str(error)) from error
            except EngineFailedError as error:
                raise _engine_failed(error) from error
        rows: list[list[float]] = []
        for trajectory, text, reading in zip(body.trajectories, texts, readings, strict=True):
            begin = len(step_format.render(Prefix(problem=trajectory.problem)))
            rows.append(means(places(text, trajectory.steps, begin), reading.ends, reading.logprobs))
        return LikelihoodResponse(model=engine.model_version, step_logprobs=rows)

    def require_ready() -> None:
        if not ready:
            raise ProblemError(
                HTTPStatus.SERVICE_UNAVAILABLE, "The model is not loaded.", headers={"Retry-After": "5"}
            )

    return app


def _engine_failed(error: EngineFailedError) -> ProblemError:
    return ProblemError(
        HTTPStatus.SERVICE_UNAVAILABLE, f"The engine failed: {error}.", headers={"Retry-After": "10"}
    )


async def warm_up(engine: Engine, step_format: StepFormat) -> None:
    """Sample once before anybody waits: what engines compile on first use, and the prompt's fixed part into the cache."""
    prompt = engine.encode([step_format.render(Prefix(problem="1 + 1"))])
    if len(prompt[0]) + 4 > engine.max_model_len:
        return
    with contextlib.suppress(EngineFailedError):  # `died` says so in a moment
        await engine.generate(prompt, Sampling(n=2, temperature=1.0, top_p=0.95, seed=0, max_tokens=4))


def _unexpected(on_failure: Callable[[str], None]) -> Callable[["asyncio.Task[None]"], None]:
    def look(task: "asyncio.Task[None]") -> None:
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("engine task failed", exc_info=error)
            on_failure(f"the engine failed: {type(error).__name__}: {error}")

    return look


def _refuse(field: str, message: str) -> ProblemError:
    return ProblemError(
        HTTPStatus.UNPROCESSABLE_ENTITY,
        f"The request is not valid. {field}: {message}",
        errors=[FieldError(field=field, message=message)],
    )


def check(body: GenerateRequest) -> None:
    """What the contract's types cannot say. Raises ProblemError (422)."""
    sequences = len(body.prefixes) * body.n
    if sequences > MAX_SEQUENCES:
        raise _refuse(
            "n",
            f"{len(body.prefixes)} prefixes with n={body.n} are {sequences} sequences; at most {MAX_SEQUENCES}",
        )
    for number, stop in enumerate(body.stop):
        if not stop:
            raise _refuse(f"stop.{number}", "must not be empty: it would stop at once")


def check_lengths(prompts: list[Tokens], max_tokens: int, max_model_len: int) -> None:
    """Each prompt and its completion must fit the model. Raises ProblemError (422)."""
    for number, prompt in enumerate(prompts):
        if len(prompt) + max_tokens > max_model_len:
            raise _refuse(
                "max_tokens",
                f"the prompt of prefixes.{number} has {len(prompt)} tokens; with max_tokens={max_tokens} that is "
                f"{len(prompt) + max_tokens}, and this model serves at most {max_model_len}",
            )
        if not prompt:
            raise _refuse(f"prefixes.{number}", "gives an empty prompt")


def candidate(
    completion: Completion, until: Until, step_format: StepFormat, meaning: dict[str, FinishReason]
) -> Candidate:
    """A completion as the contract has it; `meaning` says what each stop string stands for."""
    if completion.ended is Ended.LENGTH:
        finish = FinishReason.LENGTH
    elif completion.ended is Ended.STOP and completion.stopped_by is not None:
        finish = meaning[completion.stopped_by]
    else:
        finish = FinishReason.END
    steps, final = step_format.split(completion.text, until, finish)
    starts = places(completion.text, steps)
    return Candidate(
        text=completion.text,
        steps=steps,
        final=final,
        tokens=completion.tokens,
        mean_logprob=completion.mean_logprob,
        step_logprobs=means(starts, completion.ends, completion.logprobs),
        finish_reason=finish,
    )


def places(text: str, steps: list[str], begin: int = 0) -> list[int]:
    """Where each step starts in the text, from `begin` on."""
    starts: list[int] = []
    for step in steps:
        found = text.find(step, begin)
        starts.append(max(begin, found))
        begin = starts[-1] + len(step)
    return starts


def means(starts: list[int], ends: Sequence[int], logprobs: Sequence[float]) -> list[float]:
    """Mean log-probability of each step's tokens; a token belongs to the last step that starts before the token ends.

    What precedes the first step is left out. A step without a token of its own has 0.
    """
    sums = [(0.0, 0)] * len(starts)
    for end, logprob in zip(ends, logprobs, strict=True):
        step = bisect_left(starts, end) - 1
        if step >= 0:
            total, count = sums[step]
            sums[step] = (total + logprob, count + 1)
    return [min(0.0, total / max(1, count)) for total, count in sums]
