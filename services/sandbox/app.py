"""The sandbox's API: run a program, run steps, grade a pair of answers. Everything happens in jails.

The response is built from what the supervisor measured (`supervisor.py`). The service does not start on a machine
whose isolation is weaker than configured.
"""

import contextlib
from collections.abc import AsyncIterator
from http import HTTPStatus

from fastapi import FastAPI, Request

from ratchet import __version__
from ratchet.contracts.base import Health
from ratchet.contracts.sandbox import (
    CommandStatus,
    GradeRequest,
    GradeResponse,
    Limit,
    Measured,
    RunCodeRequest,
    RunCodeResponse,
    RunResult,
    RunStatus,
    RunStepsRequest,
    RunStepsResponse,
    StepResult,
    StepStatus,
)
from ratchet.service import ProblemError, cancelled_on_disconnect, create_app
from ratchet.settings import SandboxSettings
from services.sandbox.grader import grade
from services.sandbox.jail import Isolation, Purpose
from services.sandbox.supervisor import (
    IsolationError,
    Level,
    NotConfinedError,
    Outcome,
    Pool,
    QueueFullError,
    Run,
    Task,
    Unit,
    ZygoteDiedError,
    best_isolation,
)

RETRY_AFTER_SECONDS = "1"
MAX_GRADERS = 2
"""Zygotes for grading; most pairs are numbers and need none."""


def required_isolation(settings: SandboxSettings) -> Level:
    """The isolation in force. Raises IsolationError where it is weaker than the settings ask for."""
    level = best_isolation()
    if level.isolation is not Isolation.NAMESPACES and settings.min_isolation == "namespaces":
        raise IsolationError(
            f"Isolation 'namespaces' cannot be had: {level.reason} Or accept weaker isolation, in which programs "
            "can read the files of this user: RATCHET_MIN_ISOLATION=rlimits."
        )
    return level


def build_app(settings: SandboxSettings, level: Level) -> FastAPI:
    """The app; its jails start and end with it. `level` is from `required_isolation`."""

    def pool(purpose: Purpose, size: int) -> Pool:
        return Pool(
            purpose,
            level,
            size=size,
            queue_size=settings.queue_size,
            queue_timeout=settings.queue_timeout,
            max_output_bytes=settings.max_output_bytes,
        )

    runners = pool(Purpose.RUN, settings.workers)
    graders = pool(Purpose.GRADE, min(settings.workers, MAX_GRADERS))

    @contextlib.asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        app.state.runners, app.state.graders = runners, graders
        try:
            await runners.start()
            await graders.start()
            yield
        finally:
            await runners.stop()
            await graders.stop()

    def health() -> Health:
        return Health(
            service="sandbox",
            ready=runners.started and graders.started,
            version=__version__,
            detail={
                "isolation": level.isolation,
                "isolation_reason": level.reason,
                "layers": runners.layers(),
                "workers": runners.size,
                "graders": graders.size,
                "waiting": runners.waiting,
                "zygotes_replaced": runners.replaced + graders.replaced,
            },
        )

    app = create_app(
        service="sandbox",
        summary="Runs untrusted Python in jails, and compares answers.",
        settings=settings,
        lifespan=lifespan,
        health=health,
    )
    _add_routes(app, runners, graders)
    return app


def _add_routes(app: FastAPI, runners: Pool, graders: Pool) -> None:
    @app.post("/run_code", tags=["run"])
    async def run_code(body: RunCodeRequest, request: Request) -> RunCodeResponse:
        """Run one program from nothing. The field names are SandboxFusion's."""
        run = Run(
            task=Task.PROGRAM,
            units=[body.code],
            seconds=body.run_timeout,
            memory_bytes=body.memory_limit_MB * 2**20,
            stdin=body.stdin or "",
        )
        async with _problems(), cancelled_on_disconnect(request):
            try:
                return code_response(await runners.run(run))
            except (ZygoteDiedError, NotConfinedError) as error:
                nothing = Measured(wall_seconds=0, cpu_seconds=0, peak_memory_mb=0)
                result = RunResult(
                    status=CommandStatus.ERROR, execution_time=0, stdout="", stderr="", measured=nothing
                )
                return RunCodeResponse(
                    status=RunStatus.SANDBOX_ERROR,
                    message=f"The program was not run: {error}",
                    run_result=result,
                )

    @app.post("/run_steps", tags=["run"])
    async def run_steps(body: RunStepsRequest, request: Request) -> RunStepsResponse:
        """Run steps in order in one fresh interpreter; stop at the first that fails."""
        run = Run(
            task=Task.STEPS,
            units=list(body.steps),
            seconds=body.run_timeout,
            memory_bytes=body.memory_limit_MB * 2**20,
            seed=body.seed,
        )
        async with _problems(), cancelled_on_disconnect(request):
            try:
                return steps_response(await runners.run(run), len(body.steps))
            except (ZygoteDiedError, NotConfinedError) as error:
                return RunStepsResponse(
                    status=RunStatus.SANDBOX_ERROR,
                    message=f"The steps were not run: {error}",
                    steps=[StepResult(status=StepStatus.NOT_RUN) for _ in body.steps],
                    measured=Measured(wall_seconds=0, cpu_seconds=0, peak_memory_mb=0),
                )

    @app.post("/grade", tags=["grade"])
    async def grade_pair(body: GradeRequest, request: Request) -> GradeResponse:
        """Compare two answers: as text, as numbers, and then as mathematics in a jail of its own."""
        async with _problems(), cancelled_on_disconnect(request):
            try:
                return await grade(graders, body)
            except (ZygoteDiedError, NotConfinedError) as error:
                raise ProblemError(
                    HTTPStatus.SERVICE_UNAVAILABLE,
                    f"The grading jail failed: {error}",
                    headers={"Retry-After": RETRY_AFTER_SECONDS},
                ) from error


@contextlib.asynccontextmanager
async def _problems() -> AsyncIterator[None]:
    try:
        yield
    except QueueFullError as error:
        raise ProblemError(
            HTTPStatus.SERVICE_UNAVAILABLE,
            f"The sandbox is busy: {error} Try again later.",
            headers={"Retry-After": RETRY_AFTER_SECONDS},
        ) from error


def measured(outcome: Outcome) -> Measured:
    """What the supervisor measured, as the contract has it."""
    return Measured(
        signal=outcome.signal,
        limit=outcome.limit,
        stdout_truncated=outcome.stdout_truncated,
        stderr_truncated=outcome.stderr_truncated,
        wall_seconds=outcome.wall_seconds,
        cpu_seconds=outcome.cpu_seconds,
        peak_memory_mb=outcome.peak_memory_mb,
    )


_LIMIT_MESSAGES = {
    Limit.WALL: "It ran for longer than run_timeout.",
    Limit.CPU: "It used more processor time than run_timeout allows.",
    Limit.MEMORY: "It used more memory than memory_limit_MB allows.",
    Limit.OUTPUT: "It printed without end.",
}


def _message(outcome: Outcome) -> str:
    if outcome.limit is not None:
        return _LIMIT_MESSAGES[outcome.limit]
    return "" if outcome.signal is None else f"Ended by signal {outcome.signal}."


def code_response(outcome: Outcome) -> RunCodeResponse:
    """The answer of `/run_code`."""
    unit = next(iter(outcome.units), Unit())
    succeeded = outcome.return_code == 0 and outcome.limit is None
    if outcome.limit in (Limit.WALL, Limit.CPU):
        status = CommandStatus.TIME_LIMIT_EXCEEDED
    else:
        status = CommandStatus.FINISHED if outcome.return_code is not None else CommandStatus.ERROR
    return RunCodeResponse(
        status=RunStatus.SUCCESS if succeeded else RunStatus.FAILED,
        message=_message(outcome),
        run_result=RunResult(
            status=status,
            execution_time=outcome.wall_seconds,
            return_code=outcome.return_code,
            stdout=unit.stdout,
            stderr=unit.stderr,
            measured=measured(outcome),
        ),
    )


def steps_response(outcome: Outcome, asked: int) -> RunStepsResponse:
    """The answer of `/run_steps`: what each step did, and which were not run."""
    ended = StepStatus.KILLED if outcome.limit is None else StepStatus.LIMIT
    statuses = {b"k": StepStatus.OK, b"e": StepStatus.ERROR}
    steps = [
        StepResult(status=statuses.get(unit.reply, ended), stdout=unit.stdout, stderr=unit.stderr)
        for unit in outcome.units
    ]
    steps += [StepResult(status=StepStatus.NOT_RUN) for _ in range(asked - len(steps))]
    succeeded = all(step.status is StepStatus.OK for step in steps)
    return RunStepsResponse(
        status=RunStatus.SUCCESS if succeeded else RunStatus.FAILED,
        message="" if succeeded else _message(outcome),
        steps=steps,
        measured=measured(outcome),
    )
