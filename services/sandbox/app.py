"""The sandbox's API: run programs and steps, grow sessions, grade pairs of answers. Everything happens in jails.

The responses are built from what the supervisor measured (`runs.py`, `nodes.py`). The service does not start on a machine
whose isolation is weaker than configured.
"""

import asyncio
import contextlib
import functools
import platform
from collections.abc import AsyncIterator, Coroutine, Iterable
from http import HTTPStatus
from importlib.metadata import version
from typing import Annotated, Any

from fastapi import FastAPI, Header, Request

from ratchet import __version__
from ratchet.contracts.base import Health
from ratchet.contracts.sandbox import (
    ChainResult,
    CommandStatus,
    GradeRequest,
    GradeResponse,
    Limit,
    Measured,
    NodeRunRequest,
    NodeRunResponse,
    RunCodeBatchRequest,
    RunCodeBatchResponse,
    RunCodeRequest,
    RunCodeResponse,
    RunResult,
    RunStatus,
    RunStepsBatchRequest,
    RunStepsBatchResponse,
    RunStepsRequest,
    RunStepsResponse,
    Session,
    SessionBatchRequest,
    SessionBatchResponse,
    SessionRequest,
    StepResult,
    StepStatus,
)
from ratchet.settings import SandboxSettings
from ratchet.web.app import ProblemError, cancelled_on_disconnect, create_app
from services.sandbox.admission import Admission, BusyError
from services.sandbox.grader import grade
from services.sandbox.jail import Isolation, Purpose
from services.sandbox.pool import Pool
from services.sandbox.runs import Run, RunOutcome, Task, Unit, measured, unit_status
from services.sandbox.session_zygotes import SessionZygotes
from services.sandbox.sessions import (
    SessionFullError,
    Sessions,
    TooManySessionsError,
    UnknownNodeError,
    UnknownSessionError,
)
from services.sandbox.zygotes import (
    IsolationError,
    Level,
    NotConfinedError,
    ZygoteDiedError,
    best_isolation,
)

RETRY_AFTER_SECONDS = "1"
MAX_GRADERS = 2
"""Zygotes for grading; most pairs are numbers and need none."""

Caller = Annotated[
    str | None,
    Header(
        alias="x-caller",
        max_length=200,
        description="On whose behalf: the queue is fair between callers. Without it, the address that the request comes from.",
    ),
]


def required_isolation(settings: SandboxSettings) -> Level:
    """The isolation in force. Raises IsolationError where it is weaker than the settings ask for."""
    level = best_isolation()
    if level.isolation is not Isolation.NAMESPACES and settings.min_isolation == "namespaces":
        raise IsolationError(
            f"Isolation 'namespaces' cannot be had: {level.reason} Or accept weaker isolation, in which programs "
            "can read the files of this user: RATCHET_MIN_ISOLATION=rlimits."
        )
    return level


class Sandbox:
    """The parts of a running service."""

    def __init__(self, settings: SandboxSettings, level: Level) -> None:
        def admission(permits: int) -> Admission:
            return Admission(permits, settings.queue_size, settings.queue_timeout)

        def pool(purpose: Purpose, size: int) -> Pool:
            return Pool(purpose, level, size=size, max_output_bytes=settings.max_output_bytes)

        graders = min(settings.workers, MAX_GRADERS)
        self.level = level
        self.running, self.grading = admission(settings.workers), admission(graders)
        self.runners, self.graders = pool(Purpose.RUN, settings.workers), pool(Purpose.GRADE, graders)
        self.zygotes = SessionZygotes(level)
        self.sessions = Sessions(
            level,
            self.running,
            self.runners,
            self.zygotes,
            max_sessions=settings.max_sessions,
            max_snapshots=settings.max_snapshots,
            memory_bytes=settings.session_memory_mb * 2**20,
            idle_seconds=settings.session_idle_seconds,
            max_output_bytes=settings.max_output_bytes,
        )
        self.ready = False

    async def start(self) -> None:
        """Start all zygotes. Raises ZygoteDiedError."""
        await self.runners.start()
        await self.graders.start()
        await self.zygotes.start()
        self.sessions.start()
        self.ready = True

    async def stop(self) -> None:
        """End everything that runs."""
        self.ready = False
        await self.sessions.stop()
        await self.zygotes.stop()
        await self.runners.stop()
        await self.graders.stop()

    def health(self) -> Health:
        """What is in force."""
        layers = sorted(self.level.layers) + self.runners.cgroup_layers
        replaced = self.runners.replaced + self.graders.replaced + self.zygotes.replaced
        return Health(
            service="sandbox",
            ready=self.ready,
            version=__version__,
            detail={
                "isolation": self.level.isolation,
                "isolation_reason": self.level.reason,
                "layers": layers,
                "workers": self.runners.size,
                "graders": self.graders.size,
                "waiting": self.running.waiting + self.grading.waiting,
                "zygotes_replaced": replaced,
                "incremental": self.sessions.incremental,
                "sessions": self.sessions.open,
                "snapshots": self.sessions.snapshots,
                "snapshots_given_up": self.sessions.evicted,
                "stray_processes_killed": self.sessions.strays,
                **library_versions(),
            },
        )


@functools.cache
def library_versions() -> dict[str, str]:
    """Of what programs run on; looking them up takes some milliseconds."""
    return {"python": platform.python_version(), "numpy": version("numpy"), "sympy": version("sympy")}


def build_app(settings: SandboxSettings, level: Level) -> FastAPI:
    """The app; its jails start and end with it. `level` is from `required_isolation`."""
    sandbox = Sandbox(settings, level)

    @contextlib.asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        try:
            await sandbox.start()
            yield
        finally:
            await sandbox.stop()

    app = create_app(
        service="sandbox",
        summary="Runs untrusted Python in jails, and compares answers.",
        settings=settings,
        lifespan=lifespan,
        health=sandbox.health,
    )
    _add_run_routes(app, sandbox)
    _add_session_routes(app, sandbox)
    return app


def _add_run_routes(app: FastAPI, sandbox: Sandbox) -> None:
    @app.post("/run_code", tags=["run"])
    async def run_code(body: RunCodeRequest, request: Request, x_caller: Caller = None) -> RunCodeResponse:
        """Run one program from nothing. The field names are SandboxFusion's."""
        async with (
            _problems(),
            cancelled_on_disconnect(request),
            sandbox.running.permit(_caller(x_caller, request)),
        ):
            return await _run_program(sandbox, body)

    @app.post("/run_code/batch", tags=["run"])
    async def run_code_batch(
        body: RunCodeBatchRequest, request: Request, x_caller: Caller = None
    ) -> RunCodeBatchResponse:
        """Run programs side by side, as many at once as there are workers. All of them find room, or none is run.

        One that waits for too long is not run, which its result says.
        """
        caller = _caller(x_caller, request)

        async def one(program: RunCodeRequest) -> RunCodeResponse:
            try:
                async with sandbox.running.permit(caller):
                    return await _run_program(sandbox, program)
            except BusyError as error:
                return _not_run(error)

        async with _problems(), cancelled_on_disconnect(request):
            sandbox.running.check_room(caller, len(body.programs))
            return RunCodeBatchResponse(
                results=await asyncio.gather(*(one(program) for program in body.programs))
            )

    @app.post("/run_steps", tags=["run"])
    async def run_steps(body: RunStepsRequest, request: Request, x_caller: Caller = None) -> RunStepsResponse:
        """Run steps in order in one fresh interpreter; stop at the first that fails. Steps write no files."""
        permit = sandbox.running.permit(_caller(x_caller, request))
        async with _problems(), cancelled_on_disconnect(request), permit:
            return await _run_steps(sandbox, body)

    @app.post("/run_steps/batch", tags=["run"])
    async def run_steps_batch(
        body: RunStepsBatchRequest, request: Request, x_caller: Caller = None
    ) -> RunStepsBatchResponse:
        """Run solutions side by side, each as `/run_steps` does. All of them find room, or none is run.

        One that waits for too long is not run, which its result says.
        """
        caller = _caller(x_caller, request)

        async def one(run: RunStepsRequest) -> RunStepsResponse:
            try:
                async with sandbox.running.permit(caller):
                    return await _run_steps(sandbox, run)
            except BusyError as error:
                return _no_step_run(run, str(error))

        async with _problems(), cancelled_on_disconnect(request):
            sandbox.running.check_room(caller, len(body.runs))
            return RunStepsBatchResponse(results=await asyncio.gather(*map(one, body.runs)))

    @app.post("/grade", tags=["grade"])
    async def grade_pair(body: GradeRequest, request: Request, x_caller: Caller = None) -> GradeResponse:
        """Compare two answers: as text, as numbers, and then as mathematics in a jail of its own."""
        async with _problems(), cancelled_on_disconnect(request):
            try:
                async with sandbox.grading.permit(_caller(x_caller, request)):
                    return await grade(sandbox.graders, body)
            except (ZygoteDiedError, NotConfinedError) as error:
                raise ProblemError(
                    HTTPStatus.SERVICE_UNAVAILABLE,
                    f"The grading jail failed: {error}",
                    headers={"Retry-After": RETRY_AFTER_SECONDS},
                ) from error


def _add_session_routes(app: FastAPI, sandbox: Sandbox) -> None:
    sessions = sandbox.sessions

    @app.post("/sessions", tags=["sessions"], status_code=HTTPStatus.CREATED)
    async def create_session(body: SessionRequest) -> Session:
        """Begin a session: a tree of steps, each of which is run once. It ends by itself when nobody uses it."""
        async with _problems():
            return sessions.create(body)

    @app.get("/sessions/{session}", tags=["sessions"])
    async def get_session(session: str) -> Session:
        """What the session holds."""
        async with _problems():
            return sessions.view(session)

    @app.delete("/sessions/{session}", tags=["sessions"])
    async def delete_session(session: str) -> Session:
        """End the session, with every process in it. What it held comes back."""
        async with _problems():
            return await sessions.close(session)

    @app.post("/sessions/{session}/nodes/{parent}/run", tags=["sessions"])
    async def run_node(session: str, parent: str, body: NodeRunRequest, request: Request) -> NodeRunResponse:
        """Run one step in a copy of the parent's interpreter state (`root` for the first), and keep the copy as a node."""
        async with _problems(), cancelled_on_disconnect(request):
            result = await sessions.run(session, parent, [body.code])
            return NodeRunResponse(status=result.status, message=result.message, step=result.steps[0])

    @app.post("/sessions/{session}/batch", tags=["sessions"])
    async def run_batch(session: str, body: SessionBatchRequest, request: Request) -> SessionBatchResponse:
        """Run chains of steps side by side. What the session knows already is answered from memory."""
        async with _problems(), cancelled_on_disconnect(request):
            chains = (sessions.run(session, chain.parent, chain.steps) for chain in body.chains)
            return SessionBatchResponse(chains=await _all_or_first_error(chains))


async def _all_or_first_error(runs: Iterable[Coroutine[Any, Any, ChainResult]]) -> list[ChainResult]:
    """Wait for all; where one raises, the others are ended."""
    try:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(run) for run in runs]
    except ExceptionGroup as group_of_errors:
        raise group_of_errors.exceptions[0] from None
    return [task.result() for task in tasks]


def _caller(header: str | None, request: Request) -> str:
    return header or (request.client.host if request.client else "unknown")


@contextlib.asynccontextmanager
async def _problems() -> AsyncIterator[None]:
    try:
        yield
    except BusyError as error:
        raise ProblemError(
            error.status,
            f"The sandbox is busy: {error} Try again later.",
            headers={"Retry-After": str(error.retry_after)},
        ) from error
    except (UnknownSessionError, UnknownNodeError) as error:
        raise ProblemError(HTTPStatus.NOT_FOUND, str(error)) from error
    except SessionFullError as error:
        raise ProblemError(HTTPStatus.CONFLICT, str(error)) from error
    except TooManySessionsError as error:
        raise ProblemError(
            HTTPStatus.SERVICE_UNAVAILABLE, str(error), headers={"Retry-After": RETRY_AFTER_SECONDS}
        ) from error


async def _run_steps(sandbox: Sandbox, body: RunStepsRequest) -> RunStepsResponse:
    run = Run(
        task=Task.STEPS,
        units=list(body.steps),
        seconds=body.run_timeout,
        memory_bytes=body.memory_limit_MB * 2**20,
        seed=body.seed,
    )
    try:
        return steps_response(await sandbox.runners.run(run), len(body.steps))
    except (ZygoteDiedError, NotConfinedError) as error:
        return _no_step_run(body, f"The steps were not run: {error}")


def _no_step_run(body: RunStepsRequest, message: str) -> RunStepsResponse:
    return RunStepsResponse(
        status=RunStatus.SANDBOX_ERROR,
        message=message,
        steps=[StepResult(status=StepStatus.NOT_RUN) for _ in body.steps],
        measured=Measured(wall_seconds=0, cpu_seconds=0, peak_memory_mb=0),
    )


async def _run_program(sandbox: Sandbox, body: RunCodeRequest) -> RunCodeResponse:
    run = Run(
        task=Task.PROGRAM,
        units=[body.code],
        seconds=body.run_timeout,
        memory_bytes=body.memory_limit_MB * 2**20,
        stdin=body.stdin or "",
    )
    try:
        return code_response(await sandbox.runners.run(run))
    except (ZygoteDiedError, NotConfinedError) as error:
        return _not_run(error)


def _not_run(error: Exception) -> RunCodeResponse:
    nothing = Measured(wall_seconds=0, cpu_seconds=0, peak_memory_mb=0)
    return RunCodeResponse(
        status=RunStatus.SANDBOX_ERROR,
        message=f"The program was not run: {error}",
        run_result=RunResult(
            status=CommandStatus.ERROR, execution_time=0, stdout="", stderr="", measured=nothing
        ),
    )


_LIMIT_MESSAGES = {
    Limit.WALL: "It ran for longer than run_timeout.",
    Limit.CPU: "It used more processor time than run_timeout allows.",
    Limit.MEMORY: "It used more memory than memory_limit_MB allows.",
    Limit.OUTPUT: "It printed without end.",
}


def _message(outcome: RunOutcome) -> str:
    if outcome.limit is not None:
        return _LIMIT_MESSAGES[outcome.limit]
    return "" if outcome.signal is None else f"Ended by signal {outcome.signal}."


def code_response(outcome: RunOutcome) -> RunCodeResponse:
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


def steps_response(outcome: RunOutcome, asked: int) -> RunStepsResponse:
    """The answer of `/run_steps`: what each step did, and which were not run."""
    steps = [
        StepResult(status=unit_status(unit, outcome), stdout=unit.stdout, stderr=unit.stderr)
        for unit in outcome.units
    ]
    steps += [StepResult(status=StepStatus.NOT_RUN) for _ in range(asked - len(steps))]
    # A child may answer for steps that it did not run; a limit that it then hits is the supervisor's word.
    succeeded = outcome.limit is None and all(step.status is StepStatus.OK for step in steps)
    return RunStepsResponse(
        status=RunStatus.SUCCESS if succeeded else RunStatus.FAILED,
        message="" if succeeded else _message(outcome),
        steps=steps,
        measured=measured(outcome),
    )
