"""The loop of every training: from the last checkpoint, step by step, to the last step.

A training computes the gradients of a step. The loop moves the weights, tells the progress, keeps checkpoints, and stops where
the training diverges. A job that is run again goes on from its newest checkpoint, to the same weights as without the
interruption.
"""

import math
import shutil
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

import torch
from pydantic import ValidationError
from torch import Tensor

from ratchet.contracts.round_metrics import TrainingFigures
from ratchet.contracts.training import TrainingConfig
from ratchet.models.precision import computes_bf16
from services.trainer.files import write_file_atomically
from services.trainer.training.checkpoints import State, load_state, save_state
from services.trainer.training.jobs import (
    PROGRESS_FILE,
    RESULT_FILE,
    Job,
    Progress,
    ProgressWriter,
    TrainingFailedError,
)
from services.trainer.training.optimizer import optimizer_of

CHECKPOINTS = "checkpoints"
"""The folder of a job's checkpoints: about three times the weights, four with validation. It goes when the job is done."""
LOSS_POINTS = 200


@dataclass(frozen=True, slots=True)
class Gradients:
    """What one step has left in the weights' gradients, which are clipped already."""

    loss: float
    """The step's mean loss."""
    norm: float
    """Of the gradients, before they were clipped."""
    tokens: int


Losses = list[float]
"""Of validation problems: the sum over the tokens of each."""


@dataclass(frozen=True, slots=True)
class Validation:
    """When a training looks at problems that it does not learn from, and how."""

    steps: frozenset[int]
    """After which; 0 is before the first."""
    losses: Callable[[], Losses]
    """Of the weights as they are."""
    against: Callable[[Losses, Losses], bool]
    """Whether the first losses speak against a point, beside those of the best one."""


@dataclass(slots=True)
class Trained:
    """What the steps so far have done, those of earlier attempts among them."""

    losses: list[float] = field(default_factory=list)
    tokens: int = 0
    seconds: float = 0.0
    curve: list[tuple[int, Losses]] = field(default_factory=list)
    """Validation: step and losses."""
    kept_step: int = 0
    """The last step that the validation problems do not speak against."""
    kept: dict[str, Tensor] = field(default_factory=dict)
    """The weights after it, on the CPU; empty without validation."""

    def notes(self) -> dict[str, Any]:
        """All but the weights, for a checkpoint."""
        return {
            "losses": self.losses,
            "tokens": self.tokens,
            "seconds": self.seconds,
            "curve": self.curve,
            "kept_step": self.kept_step,
        }

    def validate(self, validation: Validation, step: int, weights: Mapping[str, Tensor]) -> None:
        """Take the losses after this step, and keep the weights if nothing speaks against them. Raises TrainingFailedError."""
        losses = validation.losses()
        if not math.isfinite(sum(losses)):
            raise TrainingFailedError(
                f"The loss on the validation problems at step {step} is {sum(losses)}: lower lr, train in fp32, or look "
                "for damage in the base checkpoint."
            )
        self.curve.append((step, losses))
        best = min((known for _, known in self.curve), key=sum)
        # Either the new point is the last good one, or it changes nothing: it is not the best one then.
        if not validation.against(losses, best):
            self.kept_step = step
            self.kept = {name: weight.detach().to("cpu", copy=True) for name, weight in weights.items()}

    def figures(self) -> dict[str, Any]:
        """The part of a result that all trainings have."""
        return {
            "steps": len(self.losses),
            "tokens": self.tokens,
            "final_loss": self.losses[-1],
            "losses": spread(self.losses),
            "seconds": round(self.seconds, 3),
            "tokens_per_second": round(self.tokens / max(self.seconds, 1e-9), 1),
        }


C = TypeVar("C", bound=TrainingConfig)
R = TypeVar("R", bound=TrainingFigures)


def set_up(config: C, device: str) -> C:
    """Set torch's threads and random numbers; the config with the number format that `dtype` "auto" means here."""
    if config.threads is not None:
        torch.set_num_threads(config.threads)
    torch.manual_seed(config.seed)
    # With a mask cuDNN's attention can give gradients that are NaN on Hopper GPUs (pytorch/pytorch#196678).
    torch.backends.cuda.enable_cudnn_sdp(enabled=False)
    return with_dtype(config, device)


def with_dtype(config: C, device: str) -> C:
    """The config with the number format that `dtype` "auto" means on this device."""
    if config.dtype != "auto":
        return config
    return config.model_copy(update={"dtype": "bf16" if computes_bf16(device) else "fp32"})


def run_steps(
    job: Job,
    config: TrainingConfig,
    digest: str,
    weights: Mapping[str, torch.nn.Parameter],
    steps: int,
    gradients_of: Callable[[int], Gradients],
    *,
    progress: ProgressWriter | None,
    wait: Callable[[], None] = lambda: None,
    keep_last: bool = False,
    validation: Validation | None = None,
) -> Trained:
    """Train `weights` in so many steps. `gradients_of` computes those of the step with this index, from 0.

    Of several processes only the first has a `progress`, and writes; `wait` is where they wait for one another. With
    `keep_last` the last step is a checkpoint, too, for a training with much to do after it. Raises TrainingFailedError.
    """
    optimizer, scheduler = optimizer_of(weights.values(), config, steps)
    folder = job.out / CHECKPOINTS
    state = load_state(folder, job=digest, optimizer=optimizer, scheduler=scheduler)
    done = Trained() if state is None else _resume(state, weights)
    if state is None and progress is not None:
        _remove_old_files(job)
    wait()
    began = time.monotonic() - done.seconds
    if validation is not None and state is None:
        done.validate(validation, 0, weights)
    for step in range(len(done.losses) + 1, steps + 1):
        lr = scheduler.get_last_lr()[0]
        made = gradients_of(step - 1)
        _require_finite(made, step, steps, config)
        optimizer.step()
        optimizer.zero_grad()
        scheduler.step()
        done.losses.append(made.loss)
        done.tokens += made.tokens
        if validation is not None and step in validation.steps:
            done.validate(validation, step, weights)
        done.seconds = time.monotonic() - began
        if progress is None:
            continue
        progress.write(
            Progress(
                step=step,
                steps=steps,
                loss=made.loss,
                lr=lr,
                tokens=done.tokens,
                seconds=round(done.seconds, 3),
            )
        )
        if step % config.save_every_steps == 0 if step < steps else keep_last:
            save_state(
                folder,
                job=digest,
                step=step,
                tensors=weights,
                optimizer=optimizer,
                scheduler=scheduler,
                notes=done.notes(),
                kept=done.kept,
            )
    return done


def read_result(job: Job, result: type[R], digest: str) -> R | None:
    """The result that this job has left; None where there is none, or one of another job."""
    try:
        known = result.model_validate_json((job.out / RESULT_FILE).read_bytes())
    except (OSError, ValidationError):
        return None
    return known if known.job == digest else None


def finish(job: Job, result: TrainingFigures) -> None:
    """Write the result, which every later attempt gives out, and remove the checkpoints."""
    write_file_atomically(job.out / RESULT_FILE, result.model_dump_json(indent=2) + "\n")
    shutil.rmtree(job.out / CHECKPOINTS, ignore_errors=True)


def spread(losses: list[float]) -> list[float]:
    """At most LOSS_POINTS of the losses, at even distances, the last among them."""
    stride = -(-len(losses) // LOSS_POINTS)
    return losses[::-1][::stride][::-1] if losses else []


def _resume(state: State, weights: Mapping[str, torch.nn.Parameter]) -> Trained:
    """What was done up to the checkpoint, whose weights are put back."""
    with torch.no_grad():
        for name, weight in weights.items():
            weight.copy_(state.tensors[name])
    curve = [(step, losses) for step, losses in state.notes["curve"]]
    return Trained(**{**state.notes, "curve": curve}, kept=state.kept)


def _remove_old_files(job: Job) -> None:
    """They are of another job, or of an attempt that left no checkpoint."""
    for file in (RESULT_FILE, PROGRESS_FILE):
        (job.out / file).unlink(missing_ok=True)


def _require_finite(made: Gradients, step: int, steps: int, config: TrainingConfig) -> None:
    if not (math.isfinite(made.loss) and math.isfinite(made.norm)):
        raise TrainingFailedError(
            f"The loss at step {step} of {steps} is {made.loss} (norm of the gradient: {made.norm}): the training "
            f"diverged. Lower lr (now {config.lr:g}), train in fp32, or look for damage in the base checkpoint."
        )
