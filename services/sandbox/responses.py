"""What the API answers about a run, made from what the supervisor measured of it."""

from ratchet.contracts.sandbox import (
    CommandStatus,
    Limit,
    Measured,
    RunCodeResponse,
    RunResult,
    RunStatus,
    RunStepsResponse,
    StepResult,
    StepStatus,
)
from services.sandbox.runs import RunOutcome, Unit, measured_of, unit_status

_LIMIT_MESSAGES = {
    Limit.WALL: "It ran for longer than run_timeout.",
    Limit.CPU: "It used more processor time than run_timeout allows.",
    Limit.MEMORY: "It used more memory than memory_limit_MB allows.",
    Limit.OUTPUT: "It printed without end.",
}


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
            measured=measured_of(outcome),
        ),
    )


def no_code_response(message: str) -> RunCodeResponse:
    """The answer of `/run_code` about a program that was not run."""
    return RunCodeResponse(
        status=RunStatus.SANDBOX_ERROR,
        message=message,
        run_result=RunResult(
            status=CommandStatus.ERROR, execution_time=0, stdout="", stderr="", measured=_nothing_measured()
        ),
    )


def steps_response(outcome: RunOutcome, asked: int) -> RunStepsResponse:
    """The answer of `/run_steps` for so many steps: what each one did, and which were not run."""
    steps = [
        StepResult(
            status=unit_status(unit, outcome),
            stdout=unit.stdout,
            stdout_truncated=unit.stdout_truncated,
            stderr=unit.stderr,
        )
        for unit in outcome.units
    ]
    steps += _not_run(asked - len(steps))
    # A child may answer for steps that it did not run; a limit that it then hits is the supervisor's word.
    succeeded = outcome.limit is None and all(step.status is StepStatus.OK for step in steps)
    return RunStepsResponse(
        status=RunStatus.SUCCESS if succeeded else RunStatus.FAILED,
        message="" if succeeded else _message(outcome),
        steps=steps,
        measured=measured_of(outcome),
    )


def no_steps_response(message: str, asked: int) -> RunStepsResponse:
    """The answer of `/run_steps` about so many steps of which none was run."""
    return RunStepsResponse(
        status=RunStatus.SANDBOX_ERROR, message=message, steps=_not_run(asked), measured=_nothing_measured()
    )


def _not_run(count: int) -> list[StepResult]:
    return [StepResult(status=StepStatus.NOT_RUN) for _ in range(count)]


def _nothing_measured() -> Measured:
    return Measured(wall_seconds=0, cpu_seconds=0, peak_memory_mb=0)


def _message(outcome: RunOutcome) -> str:
    if outcome.limit is not None:
        return _LIMIT_MESSAGES[outcome.limit]
    return "" if outcome.signal is None else f"Ended by signal {outcome.signal}."
