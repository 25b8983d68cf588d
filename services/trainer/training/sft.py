"""Supervised fine-tuning of the policy: `python -m services.trainer.training.sft JOB.json` (a SftJob).

The model reads a problem as the policy service will show it, and learns to write the steps that the search verified: the
loss is the mean over the completion's tokens of an optimizer step, those of the prompt count for nothing. A job that is run
again goes on from its last checkpoint, to the same weights as without the interruption.

Under torchrun each process takes its share of every step's forward passes. Limits: data parallel only, so model, gradients
and optimizer must fit on one device; bit-equal weights are promised for the CPU, and for one number of threads and processes.
"""

import sys
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator  # type: ignore[import-untyped]
from pydantic import BaseModel, Field, ValidationError
from safetensors import SafetensorError
from torch import Tensor

from ratchet.contracts.base import ProblemText, StepText
from ratchet.contracts.policy import Prefix
from ratchet.contracts.training import SftConfig
from ratchet.solutions.step_formats import CONFIG_KEY, END_OF_CODE, Markers
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
from services.trainer.training.loop import Gradients, finish, read_result, run_steps, set_up
from services.trainer.training.optimizer import trained_weights, with_adapters
from services.trainer.training.sft_rows import (
    IGNORED,
    Batch,
    Example,
    collate,
    forward_passes,
    optimizer_steps,
)

FORMAT = Markers()


class Demonstration(BaseModel):
    """A line of the data: a problem and the steps that solved it."""

    id: str
    problem: ProblemText
    steps: list[StepText] = Field(min_length=1)


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
        digest = job_digest(job.config, job.base, [job.data])
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


def encode(tokenizer: Any, demonstration: Demonstration) -> Example:
    """Prompt and completion are tokenised apart, as the policy service tokenises the prompt alone."""
    prompt = tokenizer(FORMAT.render(Prefix(problem=demonstration.problem)))["input_ids"]
    text = FORMAT.join(demonstration.steps) + END_OF_CODE
    completion = tokenizer(text, add_special_tokens=False)["input_ids"]
    return Example([*prompt, *completion, tokenizer.eos_token_id], len(prompt))


# --- the model -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Base:
    """The model that training starts from. `dtype` is that of the checkpoint, to which the result returns."""

    model: Any
    tokenizer: Any
    dtype: torch.dtype
    context: int


def load_base(folder: Path, config: SftConfig) -> Base:
    """The base model on the CPU, with new adapters if the config asks for LoRA. Raises TrainingFailedError."""
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
    context = getattr(model_config, "max_position_embeddings", None) or config.max_length
    return Base(with_adapters(model, config.lora, "CAUSAL_LM"), tokenizer, dtype, context)


def completion_loss(model: Any, batch: Batch, dtype: str) -> Tensor:
    """Sum of the cross-entropy over the batch's labels, a scalar in fp32."""
    # Logits are the largest tensor of a large vocabulary: none where no row has a label.
    kept = (batch.labels[:, 1:] != IGNORED).any(dim=0).nonzero().squeeze(1)
    with torch.autocast(batch.ids.device.type, torch.bfloat16, enabled=dtype == "bf16"):
        logits = model(
            input_ids=batch.ids, position_ids=batch.positions, use_cache=False, logits_to_keep=kept
        ).logits
    return torch.nn.functional.cross_entropy(
        logits.float().flatten(0, 1),
        batch.labels[:, kept + 1].flatten(),
        ignore_index=IGNORED,
        reduction="sum",
    )


# --- the training ----------------------------------------------------------------------------------------------------


def _train(
    job: SftJob,
    digest: str,
    accelerator: Accelerator,
    on_progress: Callable[[Progress], None] | None,
) -> SftResult:
    config, main = set_up(job.config, accelerator.device.type), accelerator.is_main_process
    demonstrations = read_demonstrations(job.data)
    base = load_base(job.base, config)
    examples = _examples_that_fit(
        [encode(base.tokenizer, each) for each in demonstrations], config, base.context
    )
    plan = optimizer_steps(
        list(map(len, examples)), batch_tokens=config.batch_tokens, epochs=config.epochs, seed=config.seed
    )
    model: Any = accelerator.prepare(base.model.train())
    trained = run_steps(
        job,
        config,
        digest,
        trained_weights(base.model),
        len(plan),
        lambda step: _gradients(model, [examples[index] for index in plan[step]], config, accelerator),
        progress=ProgressWriter(job.out, on_progress) if main else None,
        wait=accelerator.wait_for_everyone,
    )
    if main:
        _save(base, job)
    accelerator.wait_for_everyone()
    result = SftResult(
        **trained.figures(),
        epochs=config.epochs,
        examples=len(examples),
        dropped_too_long=len(demonstrations) - len(examples),
        sha256=checkpoint_sha256(job.out / MODEL_FOLDER),
        job=digest,
    )
    if main:
        finish(job, result)
    return result


def _examples_that_fit(encoded: Sequence[Example], config: SftConfig, context: int) -> list[Example]:
    """Those that are not too long for the config and the model, which reads `context` tokens."""
    longest = min(config.max_length, context)
    fitting = [each for each in encoded if len(each) <= longest]
    if not fitting:
        raise TrainingFailedError(
            f"None of {len(encoded)} demonstrations fits into {longest} tokens; raise max_length (the model reads "
            f"{context})."
        )
    return fitting


def _gradients(
    model: Any, examples: Sequence[Example], config: SftConfig, accelerator: Accelerator
) -> Gradients:
    """Add up the gradients of one step over its forward passes and over all processes, and clip them."""
    # Passes are so small that each process gets one, as long as there are enough examples.
    share_tokens = -(-sum(map(len, examples)) // accelerator.num_processes)
    passes = forward_passes(examples, min(config.micro_tokens, share_tokens))
    targets = sum(len(each) - each.prompt for each in examples)
    share = passes[accelerator.process_index :: accelerator.num_processes]
    # A process without a share takes part in the exchange of gradients, with zeros.
    weight = 1 / targets if share else 0.0
    share = share or passes[:1]
    total = torch.zeros((), device=accelerator.device)
    for number, rows in enumerate(share, 1):
        with nullcontext() if number == len(share) else accelerator.no_sync(model):
            loss = completion_loss(model, collate(rows).to(accelerator.device), config.dtype) * weight
            # The exchange takes the mean over processes, and this is a part of a sum.
            accelerator.backward(loss * accelerator.num_processes)
        total += loss.detach()
    mean: Any = accelerator.reduce(total, "sum")
    norm: Any = accelerator.clip_grad_norm_(model.parameters(), config.max_grad_norm)
    return Gradients(float(mean), float(norm), sum(map(len, examples)))


def _save(base: Base, job: SftJob) -> None:
    model = base.model if job.config.lora is None else base.model.merge_and_unload()
    model = model.to(base.dtype)
    setattr(model.config, CONFIG_KEY, FORMAT.name)
    save_model(model, job.base, job.out / MODEL_FOLDER)


if __name__ == "__main__":
    sys.exit(run_job(SftJob, train, sys.argv))
