"""The policy service's HTTP app: `POST /generate` turns prefixes into candidate steps.

It may hold several versions of the model (`versions`), one of which answers where a request names none.
The app answers `/health` with 503 while the first model loads. When the serving engine dies the process exits with a
status other than 0, so that whoever supervises it starts a new one; an engine cannot be mended from inside.
"""

import asyncio
import contextlib
import os
import sys
from bisect import bisect_left
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import replace
from http import HTTPStatus
from typing import Annotated

import structlog
from fastapi import Body, FastAPI, Request
from prometheus_client import Counter

from ratchet import __version__
from ratchet.contracts.base import Health
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
from ratchet.contracts.serving import HeldModel, HeldModels, LoadModel, ModelVersion, ServeModel
from ratchet.settings import PolicySettings
from ratchet.solutions.step_formats import StepFormat
from ratchet.web.app import ProblemError, cancelled_on_disconnect, create_app
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
from services.policy.versions import Version, Versions, refuse

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
    """The app around a first engine, which is started with the app, and those that are loaded beside it.

    `sha256` is that of the checkpoint; `/health` reports it, and the registry keeps it.
    `on_failure` is called when the first engine cannot start, or the serving one has died.
    """
    versions = Versions(Version(engine, step_format, str(engine.checkpoint), sha256), settings)

    async def run_engines() -> None:
        try:
            reason = await versions.run()
        except EngineStartError as error:
            on_failure(str(error))
            return
        # A moment for the answers of the requests that failed with it.
        await asyncio.sleep(0.2)
        on_failure(f"the engine died ({reason}); the service must be started again.")

    @contextlib.asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        running = asyncio.create_task(run_engines())
        running.add_done_callback(_unexpected(on_failure))
        try:
            yield
        finally:
            running.cancel()
            await versions.close()

    def health() -> Health:
        serving = versions.serving
        return Health(
            service="policy",
            ready=versions.ready,
            version=__version__,
            detail={
                "model": serving.name,
                "uri": serving.uri,
                "sha256": serving.sha256,
                "engine": serving.engine.name,
                "device": serving.engine.device,
                "step_format": serving.step_format.name,
                "max_model_len": serving.engine.max_model_len,
                "models": versions.names(),
                "state": "ready" if versions.ready else "loading the model",
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
        with versions.using(body.model) as version:
            engine, step_format = version.engine, version.step_format
            meaning = dict.fromkeys(body.stop, FinishReason.STOP) | step_format.stops(body.until)
            async with cancelled_on_disconnect(request):
                texts = [step_format.render(prefix) for prefix in body.prefixes]
                prompts = await asyncio.to_thread(engine.encode, texts)
                check_lengths(prompts, body.max_tokens, engine.max_model_len)
                sampling = Sampling(
                    n=body.n,
                    temperature=body.temperature,
                    top_p=body.top_p,
                    max_tokens=body.max_tokens,
                    seed=body.seed,
                    stop=tuple(meaning),
                )
                try:
                    completions = await generated(engine, prompts, sampling, body.seeds)
                except EngineFailedError as error:
                    raise _engine_failed(error) from error
        GENERATED.labels(version.name).inc(sum(one.tokens for row in completions for one in row))
        PROMPTED.labels(version.name).inc(sum(map(len, prompts)))
        return GenerateResponse(
            model=version.name,
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
        with versions.using(body.model) as version:
            step_format = version.step_format
            async with cancelled_on_disconnect(request):
                texts = [step_format.render(trajectory) for trajectory in body.trajectories]
                try:
                    readings = await version.engine.read(texts)
                except TextTooLongError as error:
                    raise refuse(f"trajectories.{error.number}", str(error)) from error
                except EngineFailedError as error:
                    raise _engine_failed(error) from error
        rows: list[list[float]] = []
        for trajectory, text, reading in zip(body.trajectories, texts, readings, strict=True):
            begin = len(step_format.render(Prefix(problem=trajectory.problem)))
            rows.append(means(places(text, trajectory.steps, begin), reading.ends, reading.logprobs))
        return LikelihoodResponse(model=version.name, step_logprobs=rows)

    add_version_routes(app, versions)
    return app


def add_version_routes(app: FastAPI, versions: Versions) -> None:
    """The routes that hold versions, swap the serving one, and let them go."""

    @app.get("/models", tags=["models"])
    async def models() -> HeldModels:
        """The versions that the service holds, the serving one first."""
        return HeldModels(models=versions.held())

    @app.put("/models/{version:path}", tags=["models"])
    async def load(version: ModelVersion, body: LoadModel) -> HeldModel:
        """Hold a version beside the others; answers when it can be asked. The same content again changes nothing."""
        return versions.describe(await versions.load(version, body))

    @app.post("/serving", tags=["models"])
    async def serve(body: ServeModel) -> HeldModel:
        """Answer with a held version where a request names none. Requests under way end on the one before."""
        return versions.describe(versions.serve(body.version))

    @app.delete("/models/{version:path}", tags=["models"])
    async def unload(version: ModelVersion) -> HeldModels:
        """Let go of a version that does not serve; answers when its requests have ended and its memory is free."""
        await versions.unload(version)
        return HeldModels(models=versions.held())


async def generated(
    engine: Engine, prompts: list[Tokens], sampling: Sampling, seeds: list[int] | None
) -> list[list[Completion]]:
    """Completions of each prompt. With seeds of their own, prompts get what they would get in a request for themselves."""
    if seeds is None:
        return await engine.generate(prompts, sampling)
    rows = await asyncio.gather(
        *(
            engine.generate([prompt], replace(sampling, seed=seed))
            for prompt, seed in zip(prompts, seeds, strict=True)
        )
    )
    return [row for [row] in rows]


def _engine_failed(error: EngineFailedError) -> ProblemError:
    return ProblemError(
        HTTPStatus.SERVICE_UNAVAILABLE, f"The engine failed: {error}.", headers={"Retry-After": "10"}
    )


def _unexpected(on_failure: Callable[[str], None]) -> Callable[["asyncio.Task[None]"], None]:
    def look(task: "asyncio.Task[None]") -> None:
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("engine task failed", exc_info=error)
            on_failure(f"the engine failed: {type(error).__name__}: {error}")

    return look


def check(body: GenerateRequest) -> None:
    """What the contract's types cannot say. Raises ProblemError (422)."""
    sequences = len(body.prefixes) * body.n
    if sequences > MAX_SEQUENCES:
        raise refuse(
            "n",
            f"{len(body.prefixes)} prefixes with n={body.n} are {sequences} sequences; at most {MAX_SEQUENCES}",
        )
    for number, stop in enumerate(body.stop):
        if not stop:
            raise refuse(f"stop.{number}", "must not be empty: it would stop at once")


def check_lengths(prompts: list[Tokens], max_tokens: int, max_model_len: int) -> None:
    """Each prompt and its completion must fit the model. Raises ProblemError (422)."""
    for number, prompt in enumerate(prompts):
        if len(prompt) + max_tokens > max_model_len:
            raise refuse(
                "max_tokens",
                f"the prompt of prefixes.{number} has {len(prompt)} tokens; with max_tokens={max_tokens} that is "
                f"{len(prompt) + max_tokens}, and this model serves at most {max_model_len}",
            )
        if not prompt:
            raise refuse(f"prefixes.{number}", "gives an empty prompt")


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
