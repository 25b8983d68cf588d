"""Fourth and fifth stage: the next policy and the next PRM, each trained in a process of its own.

The process leaves checkpoints in the round's folder. One that was killed, alone or with its trainer, goes on where it stopped,
and a folder that holds a result is not trained again. The service itself never imports torch.
"""

import asyncio
import contextlib
import os
import signal
import sys
from pathlib import Path
from typing import TypeVar

import structlog
from pydantic import BaseModel, TypeAdapter, ValidationError

from ratchet.contracts.round_metrics import RoundMetrics, TrainedPolicy, TrainedPrm
from ratchet.contracts.rounds import RoundProgress
from ratchet.contracts.serving import FormatName
from ratchet.contracts.trainer import ModelKind, ModelRegistration
from ratchet.models.checkpoint import ModelSourceError, local_checkpoint
from ratchet.round_files import KEPT_APART_FILE, SFT_FILE, TREES_FILE, VALIDATION_FILE
from services.trainer.files import run_folder
from services.trainer.holding import Serving, hold
from services.trainer.stages.context import Context, RoundFailedError, require_part
from services.trainer.training.jobs import (
    ERROR_FILE,
    MODEL_FOLDER,
    PROGRESS_FILE,
    RESULT_FILE,
    Job,
    PrmJob,
    PrmResult,
    Progress,
    SftJob,
    SftResult,
)

log = structlog.get_logger()

R = TypeVar("R", bound=BaseModel)
_IDS: TypeAdapter[list[str]] = TypeAdapter(list[str])
_FORMAT: TypeAdapter[FormatName] = TypeAdapter(FormatName)
POLL_SECONDS = 0.5
END_SECONDS = 10.0


async def train_policy(context: Context) -> RoundMetrics:
    """Supervised fine-tuning, from the base model; the new version is registered as a candidate."""
    config, models = context.claim.config, require_part(context.claim.metrics.models)
    parent, uri = (
        (models.policy, models.policy_uri) if config.from_current else (models.base, models.base_uri)
    )
    validation = context.folder / VALIDATION_FILE
    job = SftJob(
        base=Path(uri),
        data=context.folder / SFT_FILE,
        validation=validation if validation.is_file() and validation.stat().st_size else None,
        out=context.folder / "policy",
        step_format=(
            "markers"
            if config.policy.step_format == "markers"
            else await served_format(context.serving, parent)
        ),
        config=config.policy,
    )
    result = await _run(context, "services.trainer.training.sft", job, SftResult, "training the policy")
    version = await _register(context, ModelKind.POLICY, job.out, parent=parent)
    figures = result.model_dump(exclude={"losses"})
    return RoundMetrics(policy=TrainedPolicy(version=version, uri=str(job.out / MODEL_FOLDER), **figures))


async def served_format(serving: Serving, version: str) -> FormatName:
    """The step format in which the service asks this version. Raises RoundFailedError, UnknownVersionError, ServiceError."""
    models = await serving.services[ModelKind.POLICY].models()
    held = next((each for each in models if each.version == version), None)
    if held is None:
        held = await hold(serving, ModelKind.POLICY, version)
        assert held is not None, "only PRM1 has no checkpoint"
    try:
        return _FORMAT.validate_python(held.step_format)
    except ValidationError as error:
        raise RoundFailedError(
            f"The policy service serves {version} in the step format {held.step_format!r}, which this trainer does not know. "
            "Run policy and trainer of one version, or set policy.step_format=markers."
        ) from error


async def train_prm(context: Context) -> RoundMetrics:
    """The PRM on the round's policy, from the trees of this round and of those before it."""
    config = context.claim.config
    if config.prm is None:
        return RoundMetrics(prm=None)
    policy = require_part(context.claim.metrics.policy)
    await _require_unchanged(context, policy)
    run = run_folder(context.settings, context.claim.run)
    files = [run / f"round-{number}" / TREES_FILE for number in range(1, context.claim.number + 1)]
    ledger = await context.rounds.quarantined(run=context.claim.run)
    job = PrmJob(
        base=Path(policy.uri),
        data=[file for file in files if file.is_file()],
        held_out=_ids(context.folder / KEPT_APART_FILE),
        without=sorted(each.id for each in ledger if each.overruled_at is None),
        out=context.folder / "prm",
        config=config.prm,
    )
    result = await _run(context, "services.trainer.training.prm", job, PrmResult, "training the PRM")
    version = await _register(context, ModelKind.PRM, job.out, parent=policy.version)
    figures = result.model_dump(exclude={"losses"})
    return RoundMetrics(prm=TrainedPrm(version=version, uri=str(job.out / MODEL_FOLDER), **figures))


def _ids(file: Path) -> list[str]:
    """The problems of a file; none where an older version has written none. Raises RoundFailedError."""
    try:
        return _IDS.validate_json(file.read_bytes())
    except FileNotFoundError:
        return []
    except (OSError, ValidationError) as error:
        raise RoundFailedError(
            f"The list of problems in {file} cannot be read: {str(error).splitlines()[0]}"
        ) from error


async def _run(context: Context, module: str, job: Job, result: type[R], stage: str) -> R:
    """Run the job in a process and report its progress. Raises RoundFailedError with the job's own reason."""
    job.out.mkdir(parents=True, exist_ok=True)
    job_file = job.out / "job.json"
    job_file.write_text(job.model_dump_json(indent=2) + "\n")
    with (job.out / "train.log").open("ab") as output:
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            module,
            str(job_file),
            stdout=output,
            stderr=output,
            env={**os.environ, "HF_HUB_OFFLINE": "1"},
        )
    ended = asyncio.create_task(process.wait())
    try:
        while not ended.done():
            await asyncio.wait({ended}, timeout=POLL_SECONDS)
            progress = _last_progress(job.out / PROGRESS_FILE)
            if progress is not None:
                note = f"loss {progress.loss:.3f}"
                await context.report(
                    RoundProgress(stage=stage, done=progress.step, total=progress.steps, note=note)
                )
    finally:
        if not ended.done():
            await _end(process, ended)
    if process.returncode != 0:
        raise RoundFailedError(
            f"{stage[0].upper()}{stage[1:]} failed. {_reason(job.out, process.returncode)}"
        )
    try:
        return result.model_validate_json((job.out / RESULT_FILE).read_bytes())
    except (OSError, ValidationError) as error:
        raise RoundFailedError(
            f"{stage[0].upper()}{stage[1:]} left no result that can be read: {error}"
        ) from error


async def _end(process: asyncio.subprocess.Process, ended: "asyncio.Task[int]") -> None:
    with contextlib.suppress(ProcessLookupError):
        process.terminate()
    await asyncio.wait({ended}, timeout=END_SECONDS)
    if not ended.done():
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await asyncio.wait({ended})


def _last_progress(file: Path) -> Progress | None:
    with contextlib.suppress(OSError, ValidationError, IndexError):
        # The last line but one is whole, even while the last is being written.
        return Progress.model_validate_json(file.read_bytes()[-2000:].split(b"\n")[-2])
    return None


def _reason(out: Path, status: int | None) -> str:
    with contextlib.suppress(OSError, ValidationError):
        return _Error.model_validate_json((out / ERROR_FILE).read_bytes()).reason
    if status == -signal.SIGKILL:
        return (
            "The process was killed by signal 9, as a machine does that runs out of memory: lower micro_tokens, turn on "
            "gradient_checkpointing, or train with LoRA."
        )
    how = (
        f"killed by signal {-status}" if status is not None and status < 0 else f"ended with status {status}"
    )
    last = ""
    with contextlib.suppress(OSError, IndexError):
        last = (out / "train.log").read_text(errors="replace").strip().splitlines()[-1][:300]
    return f"The process was {how}. {last}".strip()


async def _require_unchanged(context: Context, policy: TrainedPolicy) -> None:
    """Refuse a policy whose files have changed, before hours go into a PRM on it. Raises RoundFailedError."""
    try:
        found = await asyncio.to_thread(local_checkpoint, Path(policy.uri), context.settings.cache_dir)
    except ModelSourceError as error:
        raise RoundFailedError(f"The new policy cannot be used. {error}") from error
    if found.sha256 != policy.sha256:
        raise RoundFailedError(
            f"The new policy was changed after its training: the SHA-256 of {policy.uri} is {found.sha256}, not "
            f"{policy.sha256}. Begin the next round."
        )


class _Error(BaseModel):
    reason: str


async def _register(context: Context, kind: ModelKind, out: Path, *, parent: str) -> str:
    """Make the checkpoint known, under a version made from the digest of its files; that version."""
    try:
        found = await asyncio.to_thread(
            local_checkpoint,
            out / MODEL_FOLDER,
            context.settings.cache_dir,
            name=f"{context.claim.run}-r{context.claim.number}-{kind}",
        )
    except ModelSourceError as error:
        raise RoundFailedError(f"The new {kind} cannot be used. {error}") from error
    await context.registry.register(
        ModelRegistration(
            version=found.version, kind=kind, uri=str(out / MODEL_FOLDER), sha256=found.sha256, parent=parent
        ),
        require_part(context.claim.metrics.selection).dataset,
    )
    return found.version
