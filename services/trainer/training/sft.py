"""Supervised fine-tuning of the policy: `python -m services.trainer.training.sft JOB.json` (a SftJob).

The model reads a problem as the policy service will show it, and learns to write the steps that the search verified: the
loss is the mean over the completion's tokens of an optimizer step, each with its line's weight; those of the prompt count for
nothing. Programs of other problems, where there are some, say how far to go (`sft_validation`). A job that is run again goes
on from its last checkpoint, to the same weights as without the interruption.

Under torchrun each process takes its share of every step's forward passes. Limits: data parallel only, so model, gradients
and optimizer must fit on one device; bit-equal weights are promised for the CPU, and for one number of threads and processes.
"""

import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator  # type: ignore[import-untyped]
from pydantic import BaseModel, Field, ValidationError
from safetensors import SafetensorError
from torch import Tensor

from ratchet.contracts.base import ProblemText, StepText
from ratchet.contracts.policy import Prefix
from ratchet.contracts.round_metrics import SftValidation, ValidationPoint
from ratchet.contracts.training import SftConfig
from ratchet.models.prompts import choose as choose_format
from ratchet.solutions.step_formats import CONFIG_KEY, StepFormat
from services.trainer.training.checkpoints import checkpoint_sha256, job_digest, save_model
from services.trainer.training.jobs import (
    MODEL_FOLDER,
    Progress,
    ProgressWriter,
    SftJob,
    SftResult,
    TrainingFailedError,
    explained_failures,
    job_folder,
    run_job,
)
from services.trainer.training.loop import (
    Gradients,
    Losses,
    Trained,
    Validation,
    finish,
    read_result,
    run_steps,
    set_up,
)
from services.trainer.training.optimizer import trained_weights, with_adapters
from services.trainer.training.sft_rows import (
    Batch,
    Example,
    by_problem,
    collate,
    forward_passes,
    optimizer_steps,
)
from services.trainer.training.sft_validation import (
    choose,
    speak_against,
    starting_weights,
    validation_losses,
    validation_steps,
)


class Demonstration(BaseModel):
    """A line of the data: a problem, the steps that solved it, and the weight of each of their tokens."""

    id: str
    problem: ProblemText
    steps: list[StepText] = Field(min_length=1)
    weight: float = Field(default=1.0, gt=0, allow_inf_nan=False)


def train(job: SftJob, *, on_progress: Callable[[Progress], None] | None = None) -> SftResult:
    """Train, or go on with, or only read the result of, this job. Raises TrainingFailedError."""
    # Without `cpu`, processes of a torchrun on CPUs would not know of one another.
    accelerator = Accelerator(mixed_precision="no", cpu=not torch.accelerator.is_available())
    # The first process holds the folder for all.
    with (
        job_folder(job.out) if accelerator.is_main_process else nullcontext(),
        explained_failures(job, job.config),
    ):
        accelerator.wait_for_everyone()
        data = [job.data] if job.validation is None else [job.data, job.validation]
        digest = job_digest(job.config, job.base, data, job.step_format)
        known = read_result(job, SftResult, digest)
        accelerator.wait_for_everyone()
        return known or _train(job, digest, accelerator, on_progress)


# --- the data --------------------------------------------------------------------------------------------------------


def read_demonstrations(file: Path) -> list[Demonstration]:
    """All lines of the file. Raises TrainingFailedError that names the line."""
    found = []
    with file.open("rb") as lines:
        for number, line in enumerate(lines, 1):
            try:
                found.append(Demonstration.model_validate_json(line))
            except ValidationError as error:
                first = error.errors()[0]
                field = ".".join(map(str, first["loc"])) or "the line"
                raise TrainingFailedError(
                    f"Line {number} of {file} is no demonstration ({field}: {first['msg']}); mend or remove it."
                ) from error
    if not found:
        raise TrainingFailedError(
            f"There is nothing to train on: {file} is empty. Give more or easier problems, or loosen the selection."
        )
    return found


def encode(
    tokenizer: Any, step_format: StepFormat, demonstration: Demonstration, problem: int = 0
) -> Example:
    """Prompt and completion are tokenised apart, as the policy service tokenises the prompt alone."""
    prompt = tokenizer(step_format.render(Prefix(problem=demonstration.problem)))["input_ids"]
    text = step_format.join(demonstration.steps) + step_format.ending(tokenizer.eos_token)
    completion = tokenizer(text, add_special_tokens=False)["input_ids"]
    return Example([*prompt, *completion], len(prompt), demonstration.weight, problem)


def _read_validation(job: SftJob, learnt: Sequence[Demonstration]) -> list[Demonstration]:
    """Those of the job; none where it has none. Raises TrainingFailedError where a problem is also learnt from."""
    if job.validation is None:
        return []
    found = read_demonstrations(job.validation)
    if both := {each.id for each in found} & {each.id for each in learnt}:
        raise TrainingFailedError(
            f"{len(both)} problems are in {job.data} and in {job.validation}, {min(both)} among them: a training is judged "
            "by problems that it does not learn from. Take them out of one of the files."
        )
    return found


# --- the model -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Base:
    """The model that training starts from. `dtype` is that of the checkpoint, to which the result returns."""

    model: Any
    tokenizer: Any
    step_format: StepFormat
    dtype: torch.dtype
    context: int


def load_base(job: SftJob, config: SftConfig) -> Base:
    """The base model on the CPU, with new adapters if the config asks for LoRA. Raises TrainingFailedError."""
    folder = job.base
    from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

    # What is trained is fp32: a small step would vanish in the last bit of bf16.
    frozen = config.lora is not None and config.dtype == "bf16"
    try:
        model_config = AutoConfig.from_pretrained(folder, local_files_only=True)
        tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
        # Before the loading, which writes its own into the config.
        dtype = torch.float32 if model_config.dtype == torch.float32 else torch.bfloat16
        loaded: Any = AutoModelForCausalLM.from_pretrained(
            folder,
            config=model_config,
            dtype=torch.bfloat16 if frozen else torch.float32,
            attn_implementation="sdpa",
            local_files_only=True,
            use_safetensors=True,
            output_loading_info=True,
        )
        model, loading = loaded
    except (OSError, ValueError, KeyError, ImportError, SafetensorError) as error:
        first = str(error).strip().splitlines()
        raise TrainingFailedError(
            f"The base checkpoint in {folder} cannot be loaded: {first[0] if first else type(error).__name__}"
        ) from error
    # transformers would only warn, and go on with random weights.
    if missing := sorted(loading["missing_keys"]):
        raise TrainingFailedError(f"The base checkpoint in {folder} lacks weights: {', '.join(missing[:3])}.")
    if tokenizer.eos_token_id is None:
        raise TrainingFailedError(
            f"The tokenizer in {folder} has no end token; set eos_token in tokenizer_config.json."
        )
    if config.gradient_checkpointing:
        model.gradient_checkpointing_enable({"use_reentrant": False})
    try:
        step_format = choose_format(job.step_format, folder)
    except ValueError as error:
        raise TrainingFailedError(
            f"The policy cannot be trained in the step format {job.step_format}: {error}"
        ) from error
    context = getattr(model_config, "max_position_embeddings", None) or config.max_length
    return Base(with_adapters(model, config.lora, "CAUSAL_LM"), tokenizer, step_format, dtype, context)


def completion_losses(model: Any, batch: Batch, dtype: str) -> Tensor:
    """The cross-entropy of each of the batch's targets times its weight, fp32 [N]."""
    with torch.autocast(batch.ids.device.type, torch.bfloat16, enabled=dtype == "bf16"):
        logits = model(
            input_ids=batch.ids,
            attention_mask=batch.mask,
            position_ids=batch.positions,
            use_cache=False,
            logits_to_keep=batch.kept,
        ).logits.float()
    row, place, token, _ = batch.targets
    # Several examples may go on from one place; their logits are there once.
    found: Tensor = logits.logsumexp(-1)[row, place] - logits[row, place, token]
    return found * batch.weights


# --- the training ----------------------------------------------------------------------------------------------------


def _train(
    job: SftJob,
    digest: str,
    accelerator: Accelerator,
    on_progress: Callable[[Progress], None] | None,
) -> SftResult:
    config, main = set_up(job.config, accelerator.device.type), accelerator.is_main_process
    demonstrations = read_demonstrations(job.data)
    kept_apart = _read_validation(job, demonstrations)
    base = load_base(job, config)
    examples = _those_that_fit(base, demonstrations, config)
    if not examples:
        raise TrainingFailedError(
            f"None of {len(demonstrations)} demonstrations fits into {min(config.max_length, base.context)} tokens; raise "
            f"max_length (the model reads {base.context})."
        )
    judged_by = _those_that_fit(base, kept_apart, config)
    problems = by_problem(examples)
    lengths = [sum(map(len, each)) for each in problems]
    plan = optimizer_steps(lengths, batch_tokens=config.batch_tokens, epochs=config.epochs, seed=config.seed)
    model: Any = accelerator.prepare(base.model.train())
    weights = trained_weights(base.model)
    judge = _Judge.of(base, judged_by, weights, config, accelerator) if judged_by else None
    trained = run_steps(
        job,
        config,
        digest,
        weights,
        len(plan),
        lambda step: _gradients(
            model, [each for index in plan[step] for each in problems[index]], config, accelerator
        ),
        progress=ProgressWriter(job.out, on_progress) if main else None,
        wait=accelerator.wait_for_everyone,
        validation=None if judge is None else judge.plan(len(plan)),
    )
    validation = None if judge is None else judge.choose(weights, trained)
    if main:
        _save(base, job)
    accelerator.wait_for_everyone()
    result = SftResult(
        **trained.figures(),
        epochs=config.epochs,
        examples=len(examples),
        dropped_too_long=len(demonstrations) - len(examples),
        step_format=job.step_format,
        validation=validation,
        sha256=checkpoint_sha256(job.out / MODEL_FOLDER),
        job=digest,
    )
    if main:
        finish(job, result)
    return result


def _those_that_fit(base: Base, demonstrations: Sequence[Demonstration], config: SftConfig) -> list[Example]:
    """Those that are not too long for the config and the model."""
    longest = min(config.max_length, base.context)
    fitting: list[Example] = []
    numbers: dict[str, int] = {}
    for each in demonstrations:
        example = encode(base.tokenizer, base.step_format, each, numbers.get(each.id, len(numbers)))
        if len(example) <= longest:
            numbers.setdefault(each.id, example.problem)
            fitting.append(example)
    return fitting


@dataclass(frozen=True)
class _Judge:
    """Takes the losses on the programs that were kept apart, and chooses by them."""

    examples: Sequence[Example]
    start: Mapping[str, Tensor]
    """The weights before the first step, as far as they are scaled."""
    points: int
    losses: Callable[[], Losses]
    against: Callable[[Losses, Losses], bool]

    @classmethod
    def of(
        cls,
        base: Base,
        examples: Sequence[Example],
        weights: Mapping[str, Tensor],
        config: SftConfig,
        accelerator: Accelerator,
    ) -> "_Judge":
        return cls(
            examples,
            starting_weights(weights, adapters=config.lora is not None),
            config.validations * config.epochs,
            lambda: validation_losses(base.model, examples, config, accelerator, completion_losses),
            partial(speak_against, errors=config.validation_errors),
        )

    def plan(self, steps: int) -> Validation:
        return Validation(validation_steps(steps, self.points), self.losses, self.against)

    def choose(self, weights: Mapping[str, Tensor], trained: Trained) -> SftValidation:
        """Set the weights to what is chosen."""
        choice = choose(weights, self.start, trained, self.losses, self.against)
        tokens = sum(each.loss_weight for each in self.examples)
        return SftValidation(
            problems=len(by_problem(self.examples)),
            programs=len(self.examples),
            curve=[ValidationPoint(step=step, nll=sum(losses) / tokens) for step, losses in trained.curve],
            base_nll=sum(trained.curve[0][1]) / tokens,
            nll=sum(choice.losses) / tokens,
            step=choice.step,
            scale=choice.scale,
        )


def _gradients(
    model: Any, examples: Sequence[Example], config: SftConfig, accelerator: Accelerator
) -> Gradients:
    """Add up the gradients of one step over its forward passes and over all processes, and clip them."""
    # Passes are so small that each process gets one, as long as there are enough examples.
    share_tokens = -(-sum(map(len, examples)) // accelerator.num_processes)
    passes = forward_passes(examples, min(config.micro_tokens, share_tokens))
    targets = sum(each.loss_weight for each in examples)
    share = passes[accelerator.process_index :: accelerator.num_processes]
    # A process without a share takes part in the exchange of gradients, with zeros.
    weight = 1 / targets if share else 0.0
    share = share or passes[:1]
    total = torch.zeros((), device=accelerator.device)
    for number, rows in enumerate(share, 1):
        with nullcontext() if number == len(share) else accelerator.no_sync(model):
            batch = collate(rows).to(accelerator.device)
            loss = completion_losses(model, batch, config.dtype).sum() * weight
            # The exchange takes the mean over processes, and this is a part of a sum.
            accelerator.backward(loss * accelerator.num_processes)
        total += loss.detach()
    mean: Any = accelerator.reduce(total, "sum")
    norm: Any = accelerator.clip_grad_norm_(model.parameters(), config.max_grad_norm)
    return Gradients(float(mean), float(norm), sum(map(len, examples)))


def _save(base: Base, job: SftJob) -> None:
    model = base.model if job.config.lora is None else base.model.merge_and_unload()
    model = model.to(base.dtype)
    setattr(model.config, CONFIG_KEY, base.step_format.name)
    save_model(model, job.base, job.out / MODEL_FOLDER)


if __name__ == "__main__":
    sys.exit(run_job(SftJob, train, sys.argv))
