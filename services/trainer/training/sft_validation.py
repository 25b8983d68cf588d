"""How far a fine-tuning is to go: programs of problems that it does not learn from say it.

The last point of a training is taken that they do not speak against, and the largest part of the way there from the base:
few demonstrations are soon learnt by heart, and half of a step may help where the whole one harms. Scale 0 is the base.

To speak against a point is to be less likely under it than under the best one, by more than so many standard errors of the
paired difference over problems (`SftConfig.validation_errors`). The loss is no measure of accuracy, it only warns: where it was
least, a policy solved fewer problems than one that was trained to the end (docs/measurements/how-far-to-train.md).
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import variance
from typing import Any

import torch
from accelerate import Accelerator  # type: ignore[import-untyped]
from torch import Tensor

from ratchet.contracts.training import SftConfig
from services.trainer.training.loop import Losses, Trained
from services.trainer.training.sft_rows import Batch, Example, collate, forward_passes

SCALES = (0.0, 0.25, 0.5, 0.75, 1.0)

LossesOf = Callable[[Any, Batch, str], Tensor]
"""The weighted loss of each of a batch's targets, of a model in this number format."""


@dataclass(frozen=True, slots=True)
class Choice:
    """What was chosen: the weights of this step, scaled, and the sum of each problem's losses."""

    step: int
    scale: float
    losses: Losses


def validation_steps(steps: int, count: int) -> frozenset[int]:
    """`count` of so many steps (all, if there are fewer) at even distances, the last among them, and 0."""
    return frozenset(round(number * steps / count) for number in range(count + 1))


def validation_losses(
    model: Any, examples: Sequence[Example], config: SftConfig, accelerator: Accelerator, losses_of: LossesOf
) -> Losses:
    """The sum of the losses of each problem's tokens, each with its weight; every process gets those of all.

    `model` is not one that exchanges gradients: processes have different numbers of passes.
    """
    passes = forward_passes(examples, config.micro_tokens)
    sums = torch.zeros(1 + max(each.problem for each in examples), device=accelerator.device)
    training = model.training
    model.eval()
    with torch.no_grad():
        for rows in passes[accelerator.process_index :: accelerator.num_processes]:
            batch = collate(rows).to(accelerator.device)
            sums.index_add_(0, batch.targets[3], losses_of(model, batch, config.dtype))
    model.train(training)
    summed: Any = accelerator.reduce(sums, "sum")
    return [float(each) for each in summed]


def speak_against(one: Losses, best: Losses, errors: float) -> bool:
    """Whether problems are less likely with the first losses than with those of `best`, by so many standard errors."""
    gaps = [here - there for here, there in zip(one, best, strict=True)]
    error = math.sqrt(len(gaps) * variance(gaps)) if len(gaps) > 1 else 0.0
    return sum(gaps) > errors * error


def starting_weights(weights: Mapping[str, Tensor], *, adapters: bool) -> dict[str, Tensor]:
    """Copies of the weights that are to be scaled, on the CPU, before the first step.

    An adapter is a product of two matrices. One of them begins as 0, and it alone is scaled: the product goes with it.
    """
    return {
        name: weight.detach().to("cpu", copy=True)
        for name, weight in weights.items()
        if not adapters or not bool(weight.detach().any())
    }


def set_weights(
    weights: Mapping[str, Tensor], start: Mapping[str, Tensor], end: Mapping[str, Tensor], scale: float
) -> None:
    """Set the weights to `start + scale * (end - start)`, exactly so at 0 and 1; what has no start is as in `end`."""
    with torch.no_grad():
        for name, weight in weights.items():
            value = end[name]
            weight.copy_(torch.lerp(start[name], value, scale) if name in start else value)


def choose(
    weights: Mapping[str, Tensor],
    start: Mapping[str, Tensor],
    trained: Trained,
    losses: Callable[[], Losses],
    against: Callable[[Losses, Losses], bool],
) -> Choice:
    """Find how much of the way to the kept point is taken, and set the weights to it."""
    found = [Choice(0, 0.0, trained.curve[0][1])]
    step = trained.kept_step
    for scale in SCALES[1:] if step else ():
        set_weights(weights, start, trained.kept, scale)
        here = dict(trained.curve)[step] if scale == 1 else losses()
        found.append(Choice(step, scale, here))
    best = min(found, key=lambda choice: sum(choice.losses))
    chosen = [each for each in found if not against(each.losses, best.losses)][-1]
    set_weights(weights, start, trained.kept, chosen.scale)
    return chosen
