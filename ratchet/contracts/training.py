"""How models are trained: the part of a round's configuration that its training processes read."""

from typing import Literal

from pydantic import Field

from ratchet.contracts.base import Contract


class Lora(Contract):
    """Low-rank adapters in place of full training; the result is merged."""

    r: int = Field(default=16, ge=1)
    alpha: float = Field(default=32, gt=0)
    dropout: float = Field(default=0.0, ge=0, lt=1)
    target_modules: str | list[str] = "all-linear"


class TrainingConfig(Contract):
    """What every training has in common. Weights are fp32 while they are trained; what LoRA leaves alone is in `dtype`."""

    epochs: int = Field(default=2, ge=1)
    lr: float = Field(default=7e-6, gt=0)
    schedule: Literal["cosine", "linear", "constant"] = "cosine"
    warmup_ratio: float = Field(
        default=0.03, ge=0, le=1, description="Share of the steps; then the schedule."
    )
    batch_tokens: int = Field(default=16_384, ge=1, description="Tokens of one optimizer step, about.")
    micro_tokens: int = Field(default=4096, ge=1, description="Tokens of one forward pass, padding included.")
    max_length: int = Field(default=4096, ge=2, description="Longer examples are dropped, and counted.")
    weight_decay: float = Field(default=0.0, ge=0, description="Of matrices; vectors are not decayed.")
    max_grad_norm: float = Field(default=1.0, gt=0)
    lora: Lora | None = Field(
        default=None, description="Train adapters (and a new head) alone; none: all weights."
    )
    dtype: Literal["auto", "bf16", "fp32"] = Field(
        default="auto",
        description="Of the computation; auto: bf16 where the machine multiplies it, otherwise fp32.",
    )
    gradient_checkpointing: bool = False
    seed: int = 0
    save_every_steps: int = Field(default=200, ge=1)
    threads: int | None = Field(default=None, ge=1, description="CPU threads; None leaves it to torch.")


class SftConfig(TrainingConfig):
    """Supervised fine-tuning."""

    step_format: Literal["serving", "markers"] = Field(
        default="serving",
        description="In which prompt the policy learns to answer. serving: in that with which the model is served that it is "
        "trained from, so that nothing is spent on another form. markers: in the bare trained one, which is far shorter.",
    )
    validations: int = Field(
        default=8,
        ge=1,
        le=1000,
        description="How often in an epoch the loss on validation problems is taken, where there are some.",
    )
    validation_errors: float = Field(
        default=2.0,
        ge=0,
        description="By how many standard errors of the paired difference over problems a point must be less likely than the "
        "best one to be left. 0: the point of least loss is taken.",
    )


class PrmTraining(TrainingConfig):
    """Training of the PRM's head and the policy under it."""

    epochs: int = Field(default=1, ge=1)
    pair_weight: float = Field(default=1.0, ge=0, description="Of the pairwise ranking loss.")
    value_weight: float = Field(
        default=0.0, ge=0, description="Of the regression to Monte-Carlo values; 0: preferences alone."
    )
    token_weight: float = Field(
        default=0.0, ge=0, description="Of the regression to Monte-Carlo values at every token of a step."
    )
    margin: float = Field(default=0.5, ge=0, le=2, description="Least difference of Q in a pair.")
    edit_distance: int = Field(default=20, ge=0, description="Least edit distance of the steps of a pair.")
    batch_problems: int = Field(
        default=16,
        ge=1,
        description="Least problems of one optimizer step, which goes beyond `batch_tokens` for them: a tree is all right or "
        "all wrong, and one or two of them tell little.",
    )
