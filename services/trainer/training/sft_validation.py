"""How far a fine-tuning is to go: the loss on problems that it does not learn from says it.

The best of a training's points is taken, and from the base to it the best of five places on the straight line between them:
few demonstrations are soon learnt by heart, and half of a step may help where the whole one harms. Scale 0 is the base.

Limits: the least of many noisy losses is a little too small; the gate measures on other problems.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from accelerate import Accelerator  # type: ignore[import-untyped]
from torch import Tensor

from ratchet.contracts.training import SftConfig
from services.trainer.training.loop import Trained
from services.trainer.training.sft_rows import Batch, Example, collate, forward_passes

SCALES = (0.0, 0.25, 0.5, 0.75, 1.0)

LossOf = Callable[[Any, Batch, str], Tensor]
"""The sum of a batch's losses, of a model in this number format."""


@dataclass(frozen=True, slots=True)
class Choice:
    """What was chosen: the weights of this step, scaled, and their loss."""

    step: int
    scale: float
    loss: float


def validation_steps(steps: int, count: int) -> frozenset[int]:
    """`count` of so many steps (all, if there are fewer) at even distances, the last among them, and 0."""
    return frozenset(round(number * steps / count) for number in range(count + 1))


def validation_loss(
    model: Any, examples: Sequence[Example], config: SftConfig, accelerator: Accelerator, loss_of: LossOf
) -> float:
    """The mean loss of the examples' tokens, each with its weight; every process gets that of all.

    `model` is not one that exchanges gradients: processes have different numbers of passes.
    """
    passes = forward_passes(examples, config.micro_tokens)
    total = torch.zeros((), device=accelerator.device)
    training = model.training
    model.eval()
    with torch.no_grad():
        for rows in passes[accelerator.process_index :: accelerator.num_processes]:
            total += loss_of(model, collate(rows).to(accelerator.device), config.dtype)
    model.train(training)
    summed: Any = accelerator.reduce(total, "sum")
    return float(summed) / sum(each.loss_weight for each in examples)


def starting_weights(weights: Mapping[str, Tensor], *, adapters: bool) -> dict[str, Tensor]:
    """Copies of the weights that are to be scaled, on the CPU, before the first step.

    An adapter is a product of two matrices. One of them begins as 0, and it alone is scaled: the product goes with it.
    """
    return {
        name: weight.detach().to("cpu", copy=True)
        for name, weight in weights.items()
        if not adapters or not bool(weight.detach().any())
    }


def set_best(
    weights: Mapping[str, Tensor], start: Mapping[str, Tensor], best: Mapping[str, Tensor], scale: float
) -> None:
    """Set the weights to `start + scale * (best - start)`, exactly so at 0 and 1; what has no start is as in `best`."""
    with torch.no_grad():
        for name, weight in weights.items():
            value = best[name]
            weight.copy_(torch.lerp(start[name], value, scale) if name in start else value)


def choose(
    weights: Mapping[str, Tensor], start: Mapping[str, Tensor], trained: Trained, loss: Callable[[], float]
) -> Choice:
    """Find the best point and scale, and set the weights to it; of equal losses the smaller scale is taken."""
    base = trained.curve[0][1]
    step, least = min(trained.curve, key=lambda point: (point[1], point[0]))
    found = Choice(0, 0.0, base)
    # Where nothing was better than the base, its weights are the best ones.
    for scale in SCALES[1:] if step else ():
        set_best(weights, start, trained.best, scale)
        here = least if scale == 1 else loss()
        if here < found.loss:
            found = Choice(step, scale, here)
    set_best(weights, start, trained.best, found.scale)
    return found
