"""Training jobs: what the trainer service writes down for a training process, and how that process answers.

A job is one JSON file; its process leaves `progress.jsonl`, and `result.json` or `error.json`, in the job's folder. The
same job, run again, goes on or returns the result that is there. Nothing here needs torch, so the service can import it.

Limits: one process (or one torchrun) trains in a folder at a time; a second waits for the first.
"""

import contextlib
import errno
import fcntl
import re
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from ratchet.contracts.round_metrics import PrmFigures, SftFigures
from ratchet.contracts.serving import FormatName
from ratchet.contracts.training import PrmTraining, SftConfig, TrainingConfig

PROGRESS_FILE, RESULT_FILE, ERROR_FILE = "progress.jsonl", "result.json", "error.json"
MODEL_FOLDER = "model"
"""Where a job leaves its checkpoint."""
PROGRESS_SECONDS = 0.5
DISK_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


class TrainingFailedError(Exception):
    """The training ended without a model; the message is one sentence that says why, and what to do."""


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Job(_Strict):
    """What every job has. `out` is the job's own folder."""

    base: Path = Field(description="Folder of the checkpoint from which training starts.")
    out: Path


class SftJob(Job):
    """Lines of `data`: `{"id", "problem", "steps": [str, ...], "weight"}`; other fields are ignored.

    A line's weight (1 where it has none) is that of each of its tokens in the loss. Lines of `validation` are the same, of
    other problems.
    """

    data: Path
    validation: Path | None = None
    step_format: FormatName = Field(description="In which the policy is trained, and served afterwards.")
    config: SftConfig = SftConfig()


class Progress(_Strict):
    """One line of progress.jsonl. `loss` is the mean of the last optimizer step, `seconds` those of all attempts."""

    step: int
    steps: int
    loss: float
    lr: float
    tokens: int
    seconds: float


class SftResult(SftFigures):
    """result.json of a fine-tuning."""

    losses: list[float]


class PrmJob(Job):
    """Lines of `data` are search trees (preferences.Tree), of this round and earlier ones. `base` is the round's policy."""

    data: list[Path] = Field(min_length=1)
    held_out: list[str] = Field(
        default=[], description="Ids of the problems that the result is calibrated and judged by."
    )
    without: list[str] = Field(default=[], description="Ids of problems whose trees are left out.")
    config: PrmTraining = PrmTraining()


class PrmResult(PrmFigures):
    """result.json of a PRM's training."""

    losses: list[float]


class ProgressWriter:
    """Appends to progress.jsonl, at most twice a second and always the last step."""

    def __init__(self, out: Path, on_progress: Callable[[Progress], None] | None = None) -> None:
        self._file = out / PROGRESS_FILE
        self._on_progress = on_progress
        self._next = 0.0

    def write(self, progress: Progress) -> None:
        now = time.monotonic()
        if now < self._next and progress.step < progress.steps:
            return
        self._next = now + PROGRESS_SECONDS
        with self._file.open("a") as opened:
            opened.write(progress.model_dump_json() + "\n")
        if self._on_progress is not None:
            self._on_progress(progress)


@contextlib.contextmanager
def job_folder(out: Path) -> Iterator[None]:
    """Make the job's folder and lock it. The lock ends with its process, also when that is killed."""
    out.mkdir(parents=True, exist_ok=True)
    with (out / ".lock").open("a") as opened:
        fcntl.flock(opened, fcntl.LOCK_EX)
        (out / ERROR_FILE).unlink(missing_ok=True)
        yield


@contextlib.contextmanager
def explained_failures(job: Job, config: TrainingConfig) -> Iterator[None]:
    """Raise TrainingFailedError for a full disk and for too little memory."""
    try:
        yield
    except TrainingFailedError:
        raise
    except Exception as error:
        if _errno(error) in DISK_FULL:
            raise TrainingFailedError(
                f"The disk is full: {job.out} cannot be written. Free some space and retry; it goes on "
                "from its last checkpoint."
            ) from error
        if isinstance(error, MemoryError) or re.search(r"out of memory|can't allocate memory", str(error)):
            raise TrainingFailedError(
                f"There is not enough memory for micro_tokens={config.micro_tokens} and max_length={config.max_length}: "
                "lower them, turn on gradient_checkpointing, or train with LoRA."
            ) from error
        raise


J = TypeVar("J", bound=Job)


def run_job(job_type: type[J], train: Callable[[J], object], argv: list[str]) -> int:
    """The body of a training process: `argv[1]` is the job's file. Returns the exit code.

    A failure is one sentence in out/error.json and on stderr. An unforeseen one is also raised, for its traceback.
    """
    if len(argv) != 2:
        print(f"usage: python -m MODULE JOB.json (a {job_type.__name__})", file=sys.stderr)  # noqa: T201
        return 2
    try:
        job = job_type.model_validate_json(Path(argv[1]).read_bytes())
    except (OSError, ValidationError) as error:
        print(f"The job {argv[1]} cannot be read: {error}", file=sys.stderr)  # noqa: T201
        return 2
    try:
        train(job)
    except TrainingFailedError as error:
        _write_error(job, str(error))
        return 1
    except Exception as error:
        first = (str(error).strip().splitlines() or [""])[0]
        _write_error(job, f"{type(error).__name__}: {first} (the whole story is in the process's stderr)")
        raise
    return 0


class _Failure(_Strict):
    reason: str


def _write_error(job: Job, reason: str) -> None:
    print(reason, file=sys.stderr)  # noqa: T201
    # On a full disk stderr has to do.
    with contextlib.suppress(OSError):
        fresh = job.out / f".{ERROR_FILE}"
        fresh.write_text(_Failure(reason=reason).model_dump_json() + "\n")
        fresh.replace(job.out / ERROR_FILE)


def _errno(error: Exception) -> int | None:
    if isinstance(error, OSError):
        return error.errno
    # safetensors and tokenizers are written in Rust, whose I/O errors reach us as text.
    found = re.search(r"\(os error (\d+)\)", str(error))
    return int(found[1]) if found else None
