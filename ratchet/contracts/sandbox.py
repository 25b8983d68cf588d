"""Sandbox service: what does this code do? Field names of `/run_code` follow ByteDance's SandboxFusion."""

from enum import StrEnum
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field

from ratchet.contracts.base import MAX_CODE_CHARS, Contract, StepText, Text


class RunStatus(StrEnum):
    """Outcome of a request, SandboxFusion's words."""

    SUCCESS = "Success"
    """The program ran to its end with return code 0."""
    FAILED = "Failed"
    """The program failed, was stopped at a limit, or was killed."""
    SANDBOX_ERROR = "SandboxError"
    """The sandbox itself could not run the program; nothing is said about the program."""


class CommandStatus(StrEnum):
    """How the process ended, SandboxFusion's words."""

    FINISHED = "Finished"
    ERROR = "Error"
    TIME_LIMIT_EXCEEDED = "TimeLimitExceeded"


class Limit(StrEnum):
    """Which limit ended a run. Decided by the supervisor outside the jail."""

    WALL = "wall"
    CPU = "cpu"
    MEMORY = "memory"
    OUTPUT = "output"


class Measured(Contract):
    """What the supervisor measured from outside the jail. The program cannot forge these."""

    signal: int | None = Field(default=None, description="Signal that ended the process, if one did.")
    limit: Limit | None = Field(default=None, description="The limit that ended the run, if one did.")
    stdout_truncated: bool = Field(
        default=False, description="More was printed than is kept: its beginning and its end are."
    )
    stderr_truncated: bool = False
    wall_seconds: float = Field(ge=0)
    cpu_seconds: float = Field(
        ge=0, description="User and system time of the process and its reaped children."
    )
    peak_memory_mb: float = Field(ge=0, description="Peak resident set size, MiB.")


DEFAULT_MEMORY_MB = 512


class RunLimits(Contract):
    """What a run may use."""

    run_timeout: float = Field(default=10.0, gt=0, le=120, description="Wall-clock seconds.")
    memory_limit_MB: int = Field(  # noqa: N815 - SandboxFusion's name
        default=DEFAULT_MEMORY_MB, ge=64, le=8192, description="Memory beyond the preloaded libraries, MiB."
    )


def _none_given(value: Any) -> Any:
    return DEFAULT_MEMORY_MB if type(value) is int and value == -1 else value


class RunCodeRequest(RunLimits):
    """Run one Python program from nothing in a fresh jail. Clients of SandboxFusion send every field of it."""

    code: Text = Field(max_length=MAX_CODE_CHARS, examples=["print(48 + 48 / 2)"])
    language: Literal["python"] = "python"
    stdin: Text | None = Field(default=None, max_length=MAX_CODE_CHARS)
    memory_limit_MB: Annotated[int, BeforeValidator(_none_given)] = Field(  # noqa: N815
        default=DEFAULT_MEMORY_MB,
        ge=64,
        le=8192,
        description="Memory beyond the preloaded libraries, MiB; -1 is the default.",
    )
    compile_timeout: float = Field(
        default=10.0, gt=0, le=3600, description="Has no effect: Python has nothing to compile."
    )
    files: dict[str, str | None] | None = Field(
        default=None, max_length=0, description="Must be empty: a program gets its input from stdin."
    )
    fetch_files: list[str] | None = Field(
        default=None, max_length=0, description="Must be empty: what a program writes goes with its jail."
    )


class RunResult(Contract):
    """How the process ended and what it wrote."""

    status: CommandStatus
    execution_time: float = Field(ge=0, description="Wall-clock seconds.")
    return_code: int | None = Field(
        default=None, description="Exit status; none when a signal ended the process."
    )
    stdout: str
    stderr: str
    measured: Measured


class RunCodeResponse(Contract):
    """Answer of `/run_code`."""

    status: RunStatus
    message: str = ""
    run_result: RunResult


class RunCodeBatchRequest(Contract):
    """Programs that have nothing to do with each other, each run from nothing in a jail of its own."""

    programs: list[RunCodeRequest] = Field(
        min_length=1, max_length=256, examples=[[{"code": "print(2**10)"}, {"code": "print(sum(range(10)))"}]]
    )


class RunCodeBatchResponse(Contract):
    """One result per program, in order."""

    results: list[RunCodeResponse]


class RunStepsRequest(RunLimits):
    """Run steps in order in one fresh interpreter; stop at the first that fails."""

    steps: list[StepText] = Field(
        min_length=1,
        max_length=64,
        examples=[["# Half as many in May.\nmay = 48 / 2", "# Both months.\nprint(48 + may)"]],
    )
    seed: int = Field(
        default=0, ge=0, lt=2**32, description="Seeds `random` and `numpy.random` before the first step."
    )


class StepStatus(StrEnum):
    """What became of one step."""

    OK = "ok"
    """Ran to its end. The program says so itself; what counts as proof is the clean re-execution."""
    ERROR = "error"
    """Did not compile, or raised."""
    LIMIT = "limit"
    """Stopped at a limit."""
    KILLED = "killed"
    """The process ended before the step did: a signal, or an exit of its own."""
    NOT_RUN = "not_run"
    """An earlier step failed."""


class StepResult(Contract):
    """What one step did."""

    status: StepStatus
    stdout: str = ""
    stdout_truncated: bool = Field(
        default=False, description="It printed more than is kept: its beginning and its end are."
    )
    stderr: str = Field(default="", description="The last line is the error, as Python prints it.")


class RunStepsResponse(Contract):
    """One result per step, in order, and what the whole run used."""

    status: RunStatus
    message: str = ""
    steps: list[StepResult]
    measured: Measured


class RunStepsBatchRequest(Contract):
    """Solutions that have nothing to do with each other, each run from nothing in an interpreter of its own."""

    runs: list[RunStepsRequest] = Field(
        min_length=1,
        max_length=256,
        examples=[[{"steps": ["may = 48 / 2", "print(48 + may)"]}, {"steps": ["print(2**10)"]}]],
    )


class RunStepsBatchResponse(Contract):
    """One result per solution, in order."""

    results: list[RunStepsResponse]


ROOT_NODE = "root"
"""The node of a session at which nothing has run yet."""


class SessionRequest(RunLimits):
    """A session: a tree of interpreter states, in a pid namespace and a memory and process limit of its own.

    `run_timeout` bounds the steps on the way from the root to a node together, as it does in `/run_steps`.
    """

    seed: int = Field(
        default=0,
        ge=0,
        lt=2**32,
        examples=[7],
        description="Seeds `random` and `numpy.random` at the root. A step finds the generators as its parent left them.",
    )
    id: str | None = Field(
        default=None,
        pattern=r"^[0-9a-z-]{16,64}$",
        description="A name that nobody guesses, so that whoever comes after this caller can end the session. One that is "
        "there already under this name ends first. None: the service chooses.",
    )


class Session(Contract):
    """A session as it is now."""

    id: str
    nodes: int = Field(ge=0, description="Steps whose results are known, the root apart.")
    snapshots: int = Field(ge=0, description="Nodes whose interpreter state is kept, the root apart.")
    executed: int = Field(ge=0, description="Steps executed because they were new.")
    replayed: int = Field(
        ge=0, description="Steps executed again, because the state after them was not kept."
    )


class NodeRunRequest(Contract):
    """One step, to be run in a copy of the parent's interpreter state."""

    code: StepText = Field(examples=["# Both months.\ntotal = 48 + may\nprint(total)"])


class NodeResult(StepResult):
    """What one step of a session did, and where one can go on."""

    node: str | None = Field(description="The node that the step made; none if it was not run.")
    measured: Measured | None = Field(description="None if it was not run.")


class NodeRunResponse(Contract):
    """Answer of `/sessions/{session}/nodes/{parent}/run`."""

    status: RunStatus
    message: str = ""
    step: NodeResult


class Chain(Contract):
    """Steps that follow one another, the first of them after `parent`."""

    parent: str = Field(default=ROOT_NODE, max_length=64)
    steps: list[StepText] = Field(min_length=1, max_length=64)


class SessionBatchRequest(Contract):
    """Chains to be run side by side: all candidates of an expansion. A step that is known is not run again."""

    chains: list[Chain] = Field(
        min_length=1,
        max_length=256,
        examples=[
            [{"steps": ["may = 48 / 2", "print(48 + may)"]}, {"steps": ["may = 48 // 2", "print(48 + may)"]}]
        ],
    )


class ChainResult(Contract):
    """One result per step, in order; after the first that failed they were not run."""

    status: RunStatus
    message: str = ""
    steps: list[NodeResult]


class SessionBatchResponse(Contract):
    """One result per chain, in order."""

    chains: list[ChainResult]


MAX_ANSWER_CHARS = 2000


class GradeRequest(Contract):
    """Are these two answers equal? Neither side is evaluated as code: both are read as data."""

    candidate: Text = Field(max_length=MAX_ANSWER_CHARS, examples=["72.0"])
    reference: Text = Field(max_length=MAX_ANSWER_CHARS, examples=["72"])


class GradeRule(StrEnum):
    """What decided a verdict."""

    EXACT = "exact"
    """The same text after trimming."""
    NUMERIC = "numeric"
    """Both are numbers; exact ones are compared exactly, decimals within a relative tolerance of 1e-6."""
    SYMBOLIC = "symbolic"
    """Both are mathematics (expressions, lists, sets, matrices, equations), compared by their values."""
    TEXT = "text"
    """The same words, case and markup aside."""
    UNPARSED = "unparsed"
    """One side is empty or no mathematics: not equal."""
    TIMEOUT = "timeout"
    """Comparing would take more time or memory than it may: not equal."""


class GradeResponse(Contract):
    """A verdict and the rule that decided it."""

    equal: bool
    rule: GradeRule
    candidate_parsed: str | None = None
    reference_parsed: str | None = None
