"""What both trainings do alike: low-rank adapters, and the optimizer with its schedule."""

from collections.abc import Iterable
from typing import Any, Literal

import torch

from ratchet.contracts.training import Lora, TrainingConfig
from services.trainer.training.jobs import TrainingFailedError

NEW_HEADS = ["score", "classifier"]
"""What transformers calls the head of a token classifier; peft trains a module of these names in full."""


def with_adapters(model: Any, lora: Lora | None, task: Literal["CAUSAL_LM", "TOKEN_CLS"]) -> Any:
    """The model with new adapters, all else frozen but for a new head; as it is without `lora`.

    Raises TrainingFailedError if the adapters do not fit.
    """
    if lora is None:
        return model
    from peft import LoraConfig, get_peft_model

    try:
        return get_peft_model(
            model,
            LoraConfig(
                r=lora.r,
                lora_alpha=lora.alpha,  # type: ignore[arg-type]  # a factor, so it may be a float
                lora_dropout=lora.dropout,
                target_modules=lora.target_modules,
                task_type=task,
                # It is trained as a whole; "all-linear" would adapt it, too.
                exclude_modules=NEW_HEADS if task == "TOKEN_CLS" else None,
            ),
        )
    except ValueError as error:
        raise TrainingFailedError(f"LoRA does not fit this model; change target_modules: {error}") from error


def trained_weights(model: Any) -> dict[str, torch.nn.Parameter]:
    """The weights that training changes, by name."""
    return {name: one for name, one in model.named_parameters() if one.requires_grad}


def optimizer_of(
    weights: Iterable[torch.nn.Parameter], config: TrainingConfig, steps: int
) -> tuple[torch.optim.Optimizer, torch.optim.lr_scheduler.LRScheduler]:
    """AdamW, which decays matrices alone, and the schedule of its learning rate over so many steps."""
    from transformers import get_scheduler

    weights = list(weights)
    groups = [
        {"params": [one for one in weights if one.ndim >= 2], "weight_decay": config.weight_decay},
        {"params": [one for one in weights if one.ndim < 2], "weight_decay": 0.0},
    ]
    optimizer = torch.optim.AdamW(groups, lr=config.lr, fused=True)
    name = "constant_with_warmup" if config.schedule == "constant" else config.schedule
    warmup = int(config.warmup_ratio * steps)
    return optimizer, get_scheduler(name, optimizer, num_warmup_steps=warmup, num_training_steps=steps)
