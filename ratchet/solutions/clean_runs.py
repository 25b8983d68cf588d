"""Programs run from nothing, each in a clean jail, many in a request.

Limits: what the sandbox had no room for is asked for again, for as long as some of it gets done. So programs that use up all of
their time cost time, and are no reason to fail.
"""

from collections.abc import Callable, Sequence
from typing import TypeVar

from pydantic import ValidationError

from ratchet.batching import REQUEST_CHARS, within_a_request
from ratchet.clients import SandboxClient, SandboxFailedError
from ratchet.contracts.sandbox import (
    RunStatus,
    RunStepsBatchRequest,
    RunStepsRequest,
    RunStepsResponse,
    StepStatus,
)
from ratchet.solutions.answers import answer_of

REEXECUTION_SEED = 0
"""Seed of `random` in clean re-executions: whoever makes a proof and whoever checks it use the same one."""
REEXECUTION_SECONDS = 10.0
"""For all steps of a program together, as in the search that found it."""
REEXECUTION_MEMORY_MB = 512
_ATTEMPTS = 3
"""Without anything that gets done."""
_OF_OUR_OWN = RunStepsRequest(steps=["print(1)"])

T = TypeVar("T")


def clean_run(steps: Sequence[str], *, seconds: float = REEXECUTION_SECONDS) -> RunStepsRequest | None:
    """The request for a clean run; None where the steps are none that can be run (no step, one too long, no text)."""
    if sum(map(len, steps)) > REQUEST_CHARS:
        return None
    try:
        return RunStepsRequest(
            steps=list(steps),
            seed=REEXECUTION_SEED,
            run_timeout=seconds,
            memory_limit_MB=REEXECUTION_MEMORY_MB,
        )
    except ValidationError:
        return None


def clean_answer(ran: RunStepsResponse) -> str | None:
    """What a program answers that ran to its end; None where it did not, or gives no answer."""
    if not ran.steps or any(step.status is not StepStatus.OK for step in ran.steps):
        return None
    return answer_of(ran.steps[-1])


async def run_from_nothing(
    runs: Sequence[RunStepsRequest | None], sandbox: SandboxClient, read: Callable[[RunStepsResponse], T]
) -> list[T | None]:
    """What `read` makes of each run, in order; None where there is no request, or the sandbox cannot run this one alone.

    Raises ServiceError, and SandboxFailedError where it runs no program at all.
    """
    found: dict[int, T] = {}
    message, idle = "", 0
    while idle < _ATTEMPTS:
        left = [(place, run) for place, run in enumerate(runs) if run is not None and place not in found]
        if not left:
            break
        before = len(found)
        for batch in within_a_request(left, lambda each: sum(map(len, each[1].steps))):
            asked = RunStepsBatchRequest(runs=[run for _, run in batch])
            for (place, _), ran in zip(batch, (await sandbox.run_steps_batch(asked)).results, strict=True):
                if ran.status is RunStatus.SANDBOX_ERROR:
                    message = ran.message
                else:
                    found[place] = read(ran)
        idle = idle + 1 if len(found) == before else 0
    if idle and (await sandbox.run_steps(_OF_OUR_OWN)).status is RunStatus.SANDBOX_ERROR:
        raise SandboxFailedError(message)
    return [found.get(place) for place in range(len(runs))]
