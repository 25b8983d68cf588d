"""The interpreter of one search: a session of the sandbox in which each step of the tree runs once.

All steps from the problem on are named with each call, so the sandbox finds what it knows already and nothing here has to
be remembered: where the session was lost, a new one makes the same states anew.
"""

import asyncio
import contextlib
from collections.abc import Sequence

from ratchet.clients import SandboxClient, ServiceError
from ratchet.contracts.sandbox import (
    Chain,
    ChainResult,
    NodeResult,
    RunStatus,
    SessionBatchRequest,
    SessionRequest,
)
from services.search.together import Together

STEP_SECONDS = 10.0
"""For all steps of a trajectory together."""
STEP_MEMORY_MB = 512
ATTEMPTS = 3


class SandboxFailedError(Exception):
    """The sandbox could not run a program, which says nothing of the program."""


class Interpreter:
    """Use as an async context manager: at its end the session ends."""

    def __init__(self, sandbox: SandboxClient, seed: int) -> None:
        self._sandbox = sandbox
        self._request = SessionRequest(
            seed=seed % 2**32, run_timeout=STEP_SECONDS, memory_limit_MB=STEP_MEMORY_MB
        )
        self._session: str | None = None
        # Simulations run side by side, and the first ones begin together: one session for all of them.
        self._beginning = asyncio.Lock()
        self._chains = Together(self._run)

    async def __aenter__(self) -> "Interpreter":
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._session is not None:
            # It ends by itself when it is not used, so that nobody needs to wait for a sandbox that is away.
            with contextlib.suppress(ServiceError):
                await self._sandbox.end_session(self._session)

    async def run(self, steps: Sequence[str]) -> list[NodeResult]:
        """What each step does, in order; after one that fails they are not run. Calls of one moment are one request.

        Raises ServiceError, SandboxFailedError.
        """
        chain = await self._chains.ask(Chain(steps=list(steps)))
        if chain.status is RunStatus.SANDBOX_ERROR:
            raise SandboxFailedError(chain.message)
        return chain.steps

    async def _run(self, chains: Sequence[Chain]) -> list[ChainResult]:
        for attempt in range(1, ATTEMPTS + 1):
            async with self._beginning:
                if self._session is None:
                    self._session = (await self._sandbox.create_session(self._request)).id
                session = self._session
            try:
                return (
                    await self._sandbox.run_batch(session, SessionBatchRequest(chains=list(chains)))
                ).chains
            except ServiceError as error:
                # 404: the sandbox was restarted, or the session idle for long. 409: it is full.
                if error.status not in (404, 409) or attempt == ATTEMPTS:
                    raise
                if self._session == session:
                    self._session = None
        raise AssertionError("the last attempt returns or raises")
