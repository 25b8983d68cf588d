"""The sandbox's API: run programs and steps, grow sessions, grade pairs of answers. Everything happens in jails.

A request waits for a permit (`admission.py`), is run (`service.py`, `sessions.py`, `grader.py`), and is answered from what
the supervisor measured (`responses.py`). A caller that goes away ends what it asked for.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Coroutine, Iterable
from http import HTTPStatus
from typing import Annotated, Any

from fastapi import APIRouter, Depends, FastAPI, Header, Request
from fastapi.responses import Response

from ratchet.contracts.sandbox import (
    ChainResult,
    GradeRequest,
    GradeResponse,
    NodeRunRequest,
    NodeRunResponse,
    RunCodeBatchRequest,
    RunCodeBatchResponse,
    RunCodeRequest,
    RunCodeResponse,
    RunStepsBatchRequest,
    RunStepsBatchResponse,
    RunStepsRequest,
    RunStepsResponse,
    Session,
    SessionBatchRequest,
    SessionBatchResponse,
    SessionRequest,
)
from ratchet.settings import SandboxSettings
from ratchet.web.app import ProblemError, cancelled_on_disconnect, create_app
from ratchet.web.problems import problem_response
from services.sandbox.admission import BusyError
from services.sandbox.responses import no_code_response, no_steps_response
from services.sandbox.service import Sandbox
from services.sandbox.sessions import (
    SessionFullError,
    Sessions,
    TooManySessionsError,
    UnknownNodeError,
    UnknownSessionError,
)
from services.sandbox.zygotes import Level, NotConfinedError, ZygoteDiedError

RETRY_AFTER_SECONDS = "1"


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
    app.state.sandbox = sandbox
    app.include_router(router)
    for error in (
        *(BusyError, UnknownSessionError, UnknownNodeError),
        *(SessionFullError, TooManySessionsError),
    ):
        app.add_exception_handler(error, _on_refusal)
    return app


async def _on_refusal(request: Request, error: Exception) -> Response:
    """The problem document of a request that was refused."""
    detail, headers = str(error), {}
    match error:
        case BusyError():
            status, detail = error.status, f"The sandbox is busy: {error} Try again later."
            headers = {"Retry-After": str(error.retry_after)}
        case SessionFullError():
            status = HTTPStatus.CONFLICT
        case TooManySessionsError():
            status, headers = HTTPStatus.SERVICE_UNAVAILABLE, {"Retry-After": RETRY_AFTER_SECONDS}
        case _:
            status = HTTPStatus.NOT_FOUND
    return problem_response(status, detail, request.url.path, headers=headers)


# FastAPI gives a dependency that is not async a thread.
async def _running_sandbox(request: Request) -> Sandbox:
    sandbox: Sandbox = request.app.state.sandbox
    return sandbox


async def _open_sessions(request: Request) -> Sessions:
    return (await _running_sandbox(request)).sessions


async def _caller_of(
    request: Request,
    x_caller: Annotated[
        str | None,
        Header(
            max_length=200,
            description="On whose behalf: the queue is fair between callers. Without it, the address that the request "
            "comes from.",
        ),
    ] = None,
) -> str:
    return x_caller or (request.client.host if request.client else "unknown")


RunningSandbox = Annotated[Sandbox, Depends(_running_sandbox)]
OpenSessions = Annotated[Sessions, Depends(_open_sessions)]
Caller = Annotated[str, Depends(_caller_of)]
"""Who waits in the queue."""

router = APIRouter()


@router.post("/run_code", tags=["run"])
async def run_code(
    body: RunCodeRequest, request: Request, sandbox: RunningSandbox, caller: Caller
) -> RunCodeResponse:
    """Run one program from nothing. The field names are SandboxFusion's."""
    async with cancelled_on_disconnect(request), sandbox.running.permit(caller):
        return await sandbox.run_program(body)


@router.post("/run_code/batch", tags=["run"])
async def run_code_batch(
    body: RunCodeBatchRequest, request: Request, sandbox: RunningSandbox, caller: Caller
) -> RunCodeBatchResponse:
    """Run programs side by side, as many at once as there are workers. All of them find room, or none is run.

    One that waits for too long is not run, which its result says.
    """

    async def run_one(program: RunCodeRequest) -> RunCodeResponse:
        try:
            async with sandbox.running.permit(caller):
                return await sandbox.run_program(program)
        except BusyError as error:
            return no_code_response(f"The program was not run: {error}")

    async with cancelled_on_disconnect(request):
        sandbox.running.check_room(caller, len(body.programs))
        return RunCodeBatchResponse(results=await asyncio.gather(*map(run_one, body.programs)))


@router.post("/run_steps", tags=["run"])
async def run_steps(
    body: RunStepsRequest, request: Request, sandbox: RunningSandbox, caller: Caller
) -> RunStepsResponse:
    """Run steps in order in one fresh interpreter; stop at the first that fails. Steps write no files."""
    async with cancelled_on_disconnect(request), sandbox.running.permit(caller):
        return await sandbox.run_steps(body)


@router.post("/run_steps/batch", tags=["run"])
async def run_steps_batch(
    body: RunStepsBatchRequest, request: Request, sandbox: RunningSandbox, caller: Caller
) -> RunStepsBatchResponse:
    """Run solutions side by side, each as `/run_steps` does. All of them find room, or none is run.

    One that waits for too long is not run, which its result says.
    """

    async def run_one(run: RunStepsRequest) -> RunStepsResponse:
        try:
            async with sandbox.running.permit(caller):
                return await sandbox.run_steps(run)
        except BusyError as error:
            return no_steps_response(str(error), len(run.steps))

    async with cancelled_on_disconnect(request):
        sandbox.running.check_room(caller, len(body.runs))
        return RunStepsBatchResponse(results=await asyncio.gather(*map(run_one, body.runs)))


@router.post("/grade", tags=["grade"])
async def grade_pair(
    body: GradeRequest, request: Request, sandbox: RunningSandbox, caller: Caller
) -> GradeResponse:
    """Compare two answers: as text, as numbers, and then as mathematics in a jail of its own, for two seconds at most."""
    async with cancelled_on_disconnect(request):
        try:
            return await sandbox.grader.grade(caller, body)
        except (ZygoteDiedError, NotConfinedError) as error:
            raise ProblemError(
                HTTPStatus.SERVICE_UNAVAILABLE,
                f"The grading jail failed: {error}",
                headers={"Retry-After": RETRY_AFTER_SECONDS},
            ) from error


@router.post("/sessions", tags=["sessions"], status_code=HTTPStatus.CREATED)
async def create_session(body: SessionRequest, sessions: OpenSessions) -> Session:
    """Begin a session: a tree of steps, each of which is run once. It ends by itself when nobody uses it."""
    return await sessions.create(body)


@router.get("/sessions/{session}", tags=["sessions"])
async def get_session(session: str, sessions: OpenSessions) -> Session:
    """What the session holds."""
    return sessions.view(session)


@router.delete("/sessions/{session}", tags=["sessions"])
async def delete_session(session: str, sessions: OpenSessions) -> Session:
    """End the session, with every process in it. What it held comes back."""
    return await sessions.close(session)


@router.post("/sessions/{session}/nodes/{parent}/run", tags=["sessions"])
async def run_node(
    session: str, parent: str, body: NodeRunRequest, request: Request, sessions: OpenSessions
) -> NodeRunResponse:
    """Run one step in a copy of the parent's interpreter state (`root` for the first), and keep the copy as a node."""
    async with cancelled_on_disconnect(request):
        result = await sessions.run(session, parent, [body.code])
        return NodeRunResponse(status=result.status, message=result.message, step=result.steps[0])


@router.post("/sessions/{session}/batch", tags=["sessions"])
async def run_batch(
    session: str, body: SessionBatchRequest, request: Request, sessions: OpenSessions
) -> SessionBatchResponse:
    """Run chains of steps side by side. What the session knows already is answered from memory."""
    async with cancelled_on_disconnect(request):
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
