"""Checkpoints on disk: a folder appears whole by one rename or not at all, and holds no pickled data.

The state of a training is a folder `step-N` with tensors as safetensors and the rest as JSON. An older one is removed once the
newer is on the disk, so a kill at any moment leaves one to go on from.

Limits: one writer a folder (jobs.job_folder sees to it). In a distributed training the first process saves for all, so the
optimizer must hold whole tensors (DDP, not FSDP), and after a resume all processes draw from its random numbers.
"""

import hashlib
import json
import shutil
import tempfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from ratchet.contracts.training import TrainingConfig
from ratchet.models.checkpoint import TOKENIZER_FILES, ModelSourceError, local_checkpoint
from services.trainer.files import write_atomically
from services.trainer.training.jobs import TrainingFailedError


@dataclass(frozen=True)
class State:
    """Where a training stopped: after `step` optimizer steps. `tensors` are the trained weights by name.

    `kept` are those of an earlier point that is kept; empty where none is.
    """

    step: int
    tensors: dict[str, Tensor]
    kept: dict[str, Tensor]
    notes: dict[str, Any]


def checkpoint_sha256(folder: Path) -> str:
    """The digest (weights and config.json) that the services report. Raises TrainingFailedError for a bad folder."""
    with tempfile.TemporaryDirectory() as cache:
        try:
            return local_checkpoint(folder, Path(cache)).sha256
        except ModelSourceError as error:
            raise TrainingFailedError(f"The checkpoint cannot be used: {error}") from error


def job_digest(config: TrainingConfig, base: Path, data: Iterable[Path], further: str = "") -> str:
    """What makes two jobs the same: configuration, `further` settings, and content (not place) of the base and of the data.

    Raises TrainingFailedError if one of them cannot be read.
    """
    settings = config.model_dump_json() + further
    digest = hashlib.sha256(settings.encode() + checkpoint_sha256(base).encode())
    for file in data:
        try:
            with file.open("rb") as opened:
                digest.update(hashlib.file_digest(opened, "sha256").digest())
        except OSError as error:
            raise TrainingFailedError(
                f"The data {file} cannot be read ({error.strerror}); write it there and start the job again."
            ) from error
    return digest.hexdigest()


def save_model(model: Any, base: Path, folder: Path) -> None:
    """Write the model (transformers), with the tokenizer of the checkpoint that its training started from."""

    def fill(partial: Path) -> None:
        model.save_pretrained(partial)
        copy_tokenizer(base, partial)

    write_atomically(folder, fill)


def copy_tokenizer(base: Path, folder: Path) -> None:
    """Copy the tokenizer's files, byte for byte."""
    for pattern in TOKENIZER_FILES:
        for file in base.glob(pattern):
            shutil.copyfile(file, folder / file.name)


def save_state(
    folder: Path,
    *,
    job: str,
    step: int,
    tensors: Mapping[str, Tensor],
    optimizer: torch.optim.Optimizer,
    scheduler: torch.optim.lr_scheduler.LRScheduler,
    notes: Mapping[str, Any],
    kept: Mapping[str, Tensor],
) -> None:
    """Write `folder`/step-N with everything that `load_state` needs, then remove the older ones.

    `job` is a digest of what is being trained, `notes` whatever JSON the caller wants back, `kept` the weights of
    another point (none: {}).
    """
    state = optimizer.state_dict()
    slots: dict[str, Tensor] = {}
    plain: dict[str, Any] = {}
    for parameter, values in state["state"].items():
        for key, value in values.items():
            kind: dict[str, Any] = slots if isinstance(value, Tensor) else plain
            kind[f"{parameter}.{key}"] = value
    record = {
        "job": job,
        "step": step,
        "optimizer": {"plain": plain, "param_groups": state["param_groups"]},
        "scheduler": scheduler.state_dict(),
        "notes": dict(notes),
    }

    def fill(partial: Path) -> None:
        for name, group in (("weights", tensors), ("kept", kept), ("optimizer", slots), ("rng", _rng())):
            save_file(
                {key: value.detach().contiguous() for key, value in group.items()},
                partial / f"{name}.safetensors",
            )
        (partial / "state.json").write_text(json.dumps(record))

    target = folder / f"step-{step:08d}"
    write_atomically(target, fill)
    for other in folder.iterdir():
        if other != target:
            shutil.rmtree(other, ignore_errors=True)


def load_state(
    folder: Path,
    *,
    job: str,
    optimizer: torch.optim.Optimizer,
    scheduler: torch.optim.lr_scheduler.LRScheduler,
) -> State | None:
    """The newest state of this job. Optimizer, scheduler and random numbers are restored; the caller restores the weights.

    None if there is none, or only one of another job. Raises TrainingFailedError if it cannot be read.
    """
    found = max(folder.glob("step-*"), default=None)
    if found is None:
        return None
    try:
        record = json.loads((found / "state.json").read_text())
        if record["job"] != job:
            return None
        tensors, kept, slots, rng = (
            load_file(found / f"{name}.safetensors") for name in ("weights", "kept", "optimizer", "rng")
        )
        saved = record["optimizer"]
        state: dict[int, dict[str, Any]] = {}
        for name, value in (*slots.items(), *saved["plain"].items()):
            parameter, key = name.split(".", 1)
            state.setdefault(int(parameter), {})[key] = value
        optimizer.load_state_dict({"state": state, "param_groups": saved["param_groups"]})
        scheduler.load_state_dict(record["scheduler"])
    except (OSError, ValueError, KeyError, SafetensorError) as error:
        raise TrainingFailedError(
            f"The checkpoint {found} cannot be read ({error}); delete it to train from the beginning."
        ) from error
    _set_rng(rng)
    return State(record["step"], tensors, kept, record["notes"])


def _rng() -> dict[str, Tensor]:
    cuda = torch.cuda.get_rng_state_all() if torch.cuda.is_available() else []
    return {"cpu": torch.get_rng_state()} | {f"cuda.{number}": value for number, value in enumerate(cuda)}


def _set_rng(states: Mapping[str, Tensor]) -> None:
    torch.set_rng_state(states["cpu"])
    for number in range(torch.cuda.device_count()):
        if (state := states.get(f"cuda.{number}")) is not None:
            torch.cuda.set_rng_state(state, number)
