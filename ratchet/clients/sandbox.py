"""Client of the sandbox."""

import math
import time
from http import HTTPStatus
from typing import Final

import structlog

from ratchet.clients.paths import session_path
from ratchet.contracts.sandbox import (
    GradeRequest,
    GradeResponse,
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
from ratchet.service_client import ServiceClient, ServiceError

log = structlog.get_logger()

VERSIONS_SECONDS: Final = 60.0
"""How long the sandbox's versions are believed before it is asked again."""


class SandboxFailedError(Exception):
    """The sandbox could not run a program, which says nothing of the program."""


class SandboxClient(ServiceClient):
    """The sandbox: runs programs and compares answers. One attempt may wait in the queue (60 s) and then run (120 s)."""

    service = "sandbox"
    attempt_seconds = 200.0
    retry_seconds = 120.0
    _versions: tuple[float, dict[str, str]] = (-math.inf, {})

    async def versions(self) -> dict[str, str]:
        """Of Python and the libraries on which programs run there; empty where it does not say."""
        asked, versions = self._versions
        if time.monotonic() - asked > VERSIONS_SECONDS:
            try:
                detail = (await self.health()).detail
            except ServiceError as error:
                log.warning("the sandbox does not say its versions", error=str(error))
                return versions
            versions = {name: str(detail[name]) for name in ("python", "numpy", "sympy") if name in detail}
            self._versions = time.monotonic(), versions
        return versions

    async def run_code(self, request: RunCodeRequest) -> RunCodeResponse:
        """Run a program from nothing in a fresh jail. Raises ServiceError."""
        return await self._call(RunCodeResponse, "POST", "/run_code", request)

    async def run_steps(self, request: RunStepsRequest) -> RunStepsResponse:
        """Run steps in order in one fresh interpreter. Raises ServiceError."""
        return await self._call(RunStepsResponse, "POST", "/run_steps", request)

    async def run_steps_batch(self, request: RunStepsBatchRequest) -> RunStepsBatchResponse:
        """Run solutions, each in one fresh interpreter. Raises ServiceError."""
        return await self._call(RunStepsBatchResponse, "POST", "/run_steps/batch", request)

    async def create_session(self, request: SessionRequest) -> Session:
        """Begin a session. One whose answer was lost ends by itself. Raises ServiceError."""
        return await self._call(Session, "POST", "/sessions", request)

    async def run_batch(self, session: str, request: SessionBatchRequest) -> SessionBatchResponse:
        """Run chains of steps; sent again, it finds what ran already. Raises ServiceError (404 if it has ended)."""
        return await self._call(SessionBatchResponse, "POST", f"{session_path(session)}/batch", request)

    async def end_session(self, session: str) -> None:
        """End a session; one that has ended already is no error. Raises ServiceError."""
        try:
            await self._call(Session, "DELETE", session_path(session))
        except ServiceError as error:
            if error.status != HTTPStatus.NOT_FOUND:
                raise

    async def grade(self, request: GradeRequest) -> GradeResponse:
        """Compare two answers as mathematics. Raises ServiceError."""
        return await self._call(GradeResponse, "POST", "/grade", request)
