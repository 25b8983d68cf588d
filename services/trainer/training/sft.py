"""Supervised fine-tuning of the policy: `python -m services.trainer.training.sft JOB.json` (a SftJob).

The model reads a problem as the policy service will show it, and learns to write the steps that the search verified: the
loss is the mean over the completion's tokens of an optimizer step, those of the prompt count for nothing. A job that is run
again goes on from its last checkpoint, to the same weights as without the interruption.

Under torchrun each process takes its share of every step's forward passes. Limits: data parallel only, so model, gradients
and optimizer must fit on one device; bit-equal weights are promised for the CPU, and for one number of threads and processes.
"""

import math
import shutil
import sys
import time
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
from services.trainer.files import write_atomically, write_file_atomically
from services.trainer.training.checkpoints import (
    checkpoint_sha256,
    copy_tokenizer,
    job_digest,
    load_state,
    save_state,
)
from services.trainer.training.jobs import (
    PROGRESS_FILE,
    RESULT_FILE,
    Progress,
    ProgressWriter,
    SftJob,
    SftResult,
    TrainingFailedError,
    computed,
    job_folder,
    named_failures,
    run_job,
    sampled,
)
from services.trainer.training.optimizer import optimizer_of, trained_weights, with_adapters
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
        named_failures(job, job.config),
    ):
        accelerator.wait_for_everyone()
        digest = job_digest(job.config, job.base, [job.data])
        known = _known_result(job.out / RESULT_FILE, digest)
        accelerator.wait_for_everyone()
        return known or _train(job, digest, accelerator, on_progress)


def _known_result(file: Path, digest: str) -> SftResult | None:
    try:
        result = SftResult.model_validate_json(file.read_bytes())
    except (OSError, ValidationError):
        return None
    return result if result.job == digest else None


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
    config, main = computed(job.config, accelerator.device.type), accelerator.is_main_process
    if config.threads is not None:
        torch.set_num_threads(config.threads)
    torch.manual_seed(config.seed)
    demonstrations = read_demonstrations(job.data)
    base = load_base(job.base, config)
    longest = min(config.max_length, base.context)
    encoded = [encode(base.tokenizer, each) for each in demonstrations]
    examples = [each for each in encoded if len(each) <= longest]
    if not examples:
        raise TrainingFailedError(
            f"None of {len(encoded)} demonstrations fits into {longest} tokens; raise max_length (the model reads "
            f"{base.context})."
        )
    plan = optimizer_steps(
        list(map(len, examples)), batch_tokens=config.batch_tokens, epochs=config.epochs, seed=config.seed
    )

    model: Any = accelerator.prepare(base.model.train())
    weights = trained_weights(base.model)
    optimizer, scheduler = optimizer_of(weights.values(), config, len(plan))
    states = job.out / "checkpoints"
    state = load_state(states, job=digest, optimizer=optimizer, scheduler=scheduler)
    start, losses, tokens, before = 0, list[float](), 0, 0.0
    if state is not None:
        start, losses = state.step, state.notes["losses"]
        tokens, before = state.notes["tokens"], state.notes["seconds"]
        with torch.no_grad():
            for name, weight in weights.items():
                weight.copy_(state.tensors[name])
    elif main:
        # Of another job, or of nothing that could be gone on with.
        for file in (RESULT_FILE, PROGRESS_FILE):
            (job.out / file).unlink(missing_ok=True)
    accelerator.wait_for_everyone()

    progress = ProgressWriter(job.out, on_progress)
    began = time.monotonic() - before
    for step in range(start + 1, len(plan) + 1):
        chosen = [examples[index] for index in plan[step - 1]]
        lr = scheduler.get_last_lr()[0]
        loss, norm = _gradients(model, chosen, config, accelerator)
        if not (math.isfinite(loss) and math.isfinite(norm)):
            raise TrainingFailedError(
                f"The loss at step {step} of {len(plan)} is {loss} (norm of the gradient: {norm}): the training "
                f"diverged. Lower lr (now {config.lr:g}), or look for damage in the base checkpoint."
            )
        optimizer.step()
        optimizer.zero_grad()
        scheduler.step()
        losses.append(loss)
        tokens += sum(map(len, chosen))
        if not main:
            continue
        seconds = time.monotonic() - began
        progress.write(
            Progress(step=step, steps=len(plan), loss=loss, lr=lr, tokens=tokens, seconds=round(seconds, 3))
        )
        if step % config.save_every_steps == 0 and step < len(plan):
            save_state(
                states,
                job=digest,
                step=step,
                tensors=weights,
                optimizer=optimizer,
                scheduler=scheduler,
                notes={"losses": losses, "tokens": tokens, "seconds": seconds},
            )

    seconds = time.monotonic() - began
    if main:
        _save(base, job)
    accelerator.wait_for_everyone()
    result = SftResult(
        steps=len(plan),
        tokens=tokens,
        epochs=config.epochs,
        final_loss=losses[-1],
        losses=sampled(losses),
        seconds=round(seconds, 3),
        tokens_per_second=round(tokens / seconds, 1),
        examples=len(examples),
        dropped_too_long=len(encoded) - len(examples),
        sha256=checkpoint_sha256(job.out / "model"),
        job=digest,
    )
    if main:
        write_file_atomically(job.out / RESULT_FILE, result.model_dump_json(indent=2) + "\n")
        shutil.rmtree(states, ignore_errors=True)
    return result


def _gradients(
    model: Any, examples: Sequence[Example], config: SftConfig, accelerator: Accelerator
) -> tuple[float, float]:
    """Add up the gradients of one step and clip them; the step's mean loss, and the norm before the clipping."""
    # Never so much a pass that a process has nothing to do.
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
    return float(mean), float(norm)


def _save(base: Base, job: SftJob) -> None:
    model = base.model if job.config.lora is None else base.model.merge_and_unload()
    model = model.to(base.dtype)
    setattr(model.config, CONFIG_KEY, FORMAT.name)

    def fill(partial: Path) -> None:
        model.save_pretrained(partial)
        copy_tokenizer(job.base, partial)

    write_atomically(job.out / "model", fill)


if __name__ == "__main__":
    sys.exit(run_job(SftJob, train, sys.argv))
