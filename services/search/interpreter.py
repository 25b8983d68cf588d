"""The interpreter of one search: its trajectories are run from nothing while that is cheap, in a session once it is not.

A session of the sandbox runs each step of the tree once, which costs a process that is kept for each branch; where all steps
of a trajectory take less than that, they are run again from the first. Both give the same results. All steps from the
problem on are named with each call, so that nothing has to be remembered but results: where a session was lost, a new one
makes the same states anew. What another search of the worker has run from nothing is not run again (`step_memory.py`).
Trajectories of one moment are one request.
"""

import asyncio
import contextlib
from collections.abc import Sequence
from typing import Self

from ratchet.batching import MicroBatcher, within_a_request
from ratchet.clients import SandboxClient, SandboxFailedError, ServiceError
from ratchet.contracts.sandbox import (
    Chain,
    RunStatus,
    RunStepsBatchRequest,
    RunStepsRequest,
    SessionBatchRequest,
    SessionRequest,
    StepResult,
)
from services.search.step_memory import StepMemory

STEP_SECONDS = 10.0
"""For all steps of a trajectory together."""
STEP_MEMORY_MB = 512
END_SECONDS = 2.0
"""For telling the sandbox that a session has ended. It ends by itself when it is not used."""
ATTEMPTS = 3
"""For what the sandbox could not do; a program that fails is not tried again."""
SESSION_PAYS_SECONDS = 0.02
"""A trajectory that takes longer is worth a session: starting one and keeping its states costs about as much."""


class Interpreter:
    """Use as an async context manager: at its end the session, if there is one, ends."""

    def __init__(
        self, sandbox: SandboxClient, seed: int, memory: StepMemory, session_name: str | None = None
    ) -> None:
        """With `session_name` whoever works on the search after this worker can end its session."""
        self._sandbox = sandbox
        self._seed = seed % 2**32
        self._memory = memory
        self._session_name = session_name
        self._known: dict[tuple[str, ...], list[StepResult]] = {}
        self._session_pays = False
        self._session: str | None = None
        # Rollouts run side by side, and the first ones begin together: one session for all of them.
        self._beginning = asyncio.Lock()
        self._batcher = MicroBatcher(self._run)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._session is not None:
            await end_session(self._sandbox, self._session)

    async def run(self, steps: Sequence[str]) -> list[StepResult]:
        """What each step does, in order; after one that fails they are not run.

        Raises ServiceError, SandboxFailedError.
        """
        return await self._batcher.ask(tuple(steps))

    async def _run(self, asked: Sequence[tuple[str, ...]]) -> list[list[StepResult]]:
        new = [steps for steps in dict.fromkeys(asked) if not self._recalls(steps)]
        for some in within_a_request(new, lambda steps: sum(map(len, steps))):
            found = await (self._in_session(some) if self._session_pays else self._from_nothing(some))
            self._known.update(zip(some, found, strict=True))
        return [self._known[steps] for steps in asked]

    def _recalls(self, steps: tuple[str, ...]) -> bool:
        """Whether it is known what these steps do: to this search, or to the worker."""
        if steps not in self._known and (found := self._memory.recall(self._seed, steps)) is not None:
            self._known[steps] = found
        return steps in self._known

    async def _from_nothing(self, new: Sequence[tuple[str, ...]]) -> list[list[StepResult]]:
        done: dict[tuple[str, ...], list[StepResult]] = {}
        for attempt in range(1, ATTEMPTS + 1):
            left = [steps for steps in new if steps not in done]
            runs = [self._from_first(steps) for steps in left]
            results = (await self._sandbox.run_steps_batch(RunStepsBatchRequest(runs=runs))).results
            for steps, result in zip(left, results, strict=True):
                if result.status is not RunStatus.SANDBOX_ERROR:
                    done[steps] = result.steps
                    self._memory.keep(self._seed, steps, result)
                    self._session_pays |= result.measured.wall_seconds > SESSION_PAYS_SECONDS
                elif attempt == ATTEMPTS:
                    # Three times no room, or no process: it says nothing of the steps.
                    raise SandboxFailedError(result.message)
            if len(done) == len(new):
                break
        return [done[steps] for steps in new]

    def _from_first(self, steps: tuple[str, ...]) -> RunStepsRequest:
        return RunStepsRequest(
            steps=list(steps),
            seed=self._seed,
            run_timeout=STEP_SECONDS,
            memory_limit_MB=STEP_MEMORY_MB,
        )

    async def _in_session(self, new: Sequence[tuple[str, ...]]) -> list[list[StepResult]]:
        batch = SessionBatchRequest(chains=[Chain(steps=list(steps)) for steps in new])
        for attempt in range(1, ATTEMPTS + 1):
            async with self._beginning:
                if self._session is None:
                    request = SessionRequest(
                        seed=self._seed,
                        run_timeout=STEP_SECONDS,
                        memory_limit_MB=STEP_MEMORY_MB,
                        id=self._session_name,
                    )
                    self._session = (await self._sandbox.create_session(request)).id
                session = self._session
            try:
                chains = (await self._sandbox.run_batch(session, batch)).chains
            except ServiceError as error:
                # 404: the sandbox was restarted, or the session idle for long. 409: it is full.
                if error.status not in (404, 409) or attempt == ATTEMPTS:
                    raise
                if self._session == session:
                    self._session = None
                continue
            for chain in chains:
                if chain.status is RunStatus.SANDBOX_ERROR:
                    raise SandboxFailedError(chain.message)
            return [list(chain.steps) for chain in chains]
        raise AssertionError("the last attempt returns or raises")


async def end_session(sandbox: SandboxClient, session: str) -> None:
    """End a session, if the sandbox says soon that it has: nobody needs to wait for one that is away."""
    with contextlib.suppress(ServiceError, TimeoutError):
        async with asyncio.timeout(END_SECONDS):
            await sandbox.end_session(session)
