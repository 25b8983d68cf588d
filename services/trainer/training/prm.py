"""Trains a PRM on search trees: `python -m services.trainer.training.prm JOB.json` (a PrmJob).

The round's policy gets a head with one output, which is read at the end of each step. It learns which of two steps is better
(pairs) and, if the config says so, how often a step led to a right end (values, at its end and at all its tokens). A tree is
read as one sequence, so both steps of a pair are in one pass. A tenth of the problems is kept out: they calibrate the logits
as probabilities, and the result is judged by them (prm_quality).

Limits: one process, and nothing is sharded.
"""

import random
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pydantic import ValidationError
from torch.nn.functional import binary_cross_entropy_with_logits, logsigmoid

from ratchet.contracts.training import PrmTraining
from ratchet.models.precision import serving_dtype
from ratchet.models.prm_head import CONFIG_KEY
from services.trainer.training.checkpoints import checkpoint_sha256, job_digest, save_model
from services.trainer.training.jobs import (
    MODEL_FOLDER,
    PrmJob,
    PrmResult,
    ProgressWriter,
    TrainingFailedError,
    explained_failures,
    job_folder,
    run_job,
)
from services.trainer.training.loop import Gradients, finish, read_result, run_steps, set_up
from services.trainer.training.optimizer import trained_weights, with_adapters
from services.trainer.training.preferences import (
    Preferences,
    Tree,
    held_out_problems,
    nodes_that_ran,
    preferences,
)
from services.trainer.training.prm_pieces import Piece, pieces
from services.trainer.training.prm_quality import Readings, platt, quality
from services.trainer.training.token_trie import ancestor_mask

HELD_OUT_FRACTION = 0.1
HELD_OUT_AT_LEAST = 20
LEAST_PROBLEMS = 4
"""With fewer problems too little can be held out to judge by."""


@dataclass(frozen=True)
class Counts:
    """What a data set is made of. Pairs and values are those of the training part."""

    trees: int
    problems: int
    held_out_problems: int
    sibling_pairs: int
    trajectory_pairs: int
    values: int
    dropped_too_long: int


@dataclass(frozen=True)
class Dataset:
    """Packed trees; `held_out` with what each of them is judged by."""

    train: list[Piece]
    held_out: list[tuple[Preferences, list[Piece]]]
    counts: Counts


def train(job: PrmJob) -> PrmResult:
    """Train, or go on with, or only read the result of, this job. Raises TrainingFailedError."""
    with job_folder(job.out), explained_failures(job, job.config):
        digest = job_digest(job.config, job.base, job.data)
        return read_result(job, PrmResult, digest) or _train(job, digest)


def read_trees(files: Iterable[Path]) -> Iterator[Tree]:
    """The trees of all files. Raises TrainingFailedError that names the line."""
    for file in files:
        try:
            with file.open("rb") as lines:
                for number, line in enumerate(lines, 1):
                    if line.strip():
                        yield _tree(file, number, line)
        except OSError as error:
            raise TrainingFailedError(f"The trees in {file} cannot be read: {error.strerror}.") from error


def _tree(file: Path, number: int, line: bytes) -> Tree:
    try:
        return Tree.model_validate_json(line)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"])) or "the tree"
        raise TrainingFailedError(f"{file}, line {number}: {where}: {first['msg']}.") from error


def dataset(trees: Sequence[Tree], tokenizer: Any, config: PrmTraining) -> Dataset:
    """Pairs, values and packed sequences, split by problem. Raises TrainingFailedError when there is nothing to learn."""
    problems = {tree.problem_id for tree in trees}
    if len(problems) < LEAST_PROBLEMS:
        raise TrainingFailedError(
            f"There are trees of {len(problems)} problems; a PRM needs {LEAST_PROBLEMS} at the least, and some hundreds "
            "to be of use. Search more problems."
        )
    kept_out = held_out_problems(
        problems, fraction=HELD_OUT_FRACTION, at_least=HELD_OUT_AT_LEAST, seed=config.seed
    )
    training: list[Piece] = []
    held_out: list[tuple[Preferences, list[Piece]]] = []
    taught: list[Preferences] = []
    ends: set[bool] = set()
    dropped = 0
    for tree in trees:
        nodes = nodes_that_ran(tree)
        found = preferences(tree, margin=config.margin, edit_distance=config.edit_distance)
        if tree.problem_id not in kept_out and not (config.value_weight or config.token_weight):
            # Steps in no pair teach nothing then, and need not be read.
            found = replace(found, values={})
        packed, too_long = pieces(
            tree, nodes, found, tokenizer, limit=config.micro_tokens, max_length=config.max_length
        )
        dropped += too_long
        ends.update(found.ends.values())
        if tree.problem_id in kept_out:
            held_out.append((found, packed))
        else:
            taught.append(found)
            training.extend(packed)
    for kind, missing in ((True, "right"), (False, "wrong")):
        if kind not in ends:
            raise TrainingFailedError(
                f"No finished trajectory in {len(trees)} trees is {missing}, so there is nothing to tell apart. Search "
                f"{'easier' if kind else 'harder'} problems, or with more rollouts."
            )
    if not training:
        raise TrainingFailedError(
            f"No pair of steps differs by a Q of {config.margin} and {config.edit_distance} characters. Lower margin or "
            "edit_distance, or set value_weight."
        )
    counts = Counts(
        trees=len(trees),
        problems=len(problems),
        held_out_problems=len(kept_out),
        sibling_pairs=sum(len(found.siblings) for found in taught),
        trajectory_pairs=sum(len(found.pairs) - len(found.siblings) for found in taught),
        values=sum(len(found.values) for found in taught),
        dropped_too_long=dropped,
    )
    return Dataset(training, held_out, counts)


# --- the model -------------------------------------------------------------------------------------------------------


def load_policy(base: Path, config: PrmTraining, device: str) -> tuple[Any, Any]:
    """The policy's network with a new head, adapters if the config asks for LoRA, and its tokenizer.

    Raises TrainingFailedError.
    """
    from transformers import AutoConfig, AutoModelForTokenClassification, AutoTokenizer
    from transformers.utils import logging

    # The head is new, and transformers would warn of it.
    logging.set_verbosity_error()  # type: ignore[no-untyped-call]
    try:
        tokenizer = AutoTokenizer.from_pretrained(base, local_files_only=True)
        model_config = AutoConfig.from_pretrained(base, local_files_only=True)
        model_config.num_labels = 1
        # The policy was trained without dropout; transformers' default for this head is 0.1.
        model_config.classifier_dropout = 0.0
        model = AutoModelForTokenClassification.from_pretrained(
            base,
            config=model_config,
            dtype=torch.bfloat16 if config.lora is not None and config.dtype == "bf16" else torch.float32,
            attn_implementation="sdpa",
            local_files_only=True,
            use_safetensors=True,
        )
    except (OSError, ValueError, KeyError, ImportError) as error:
        first = str(error).strip().splitlines()
        raise TrainingFailedError(
            f"The policy in {base} cannot be loaded: {first[0] if first else type(error).__name__}"
        ) from error
    if config.gradient_checkpointing:
        model.gradient_checkpointing_enable({"use_reentrant": False})
    model = with_adapters(model, config.lora, "TOKEN_CLS")
    # A small step would vanish in the last bit of bf16.
    for weight in trained_weights(model).values():
        weight.data = weight.data.float()
    return model.to(device), tokenizer


def logits_of(model: Any, batch: Sequence[Piece], dtype: str | None) -> torch.Tensor:
    """Logits of packed trees, fp32 [B, T]; T is the longest's. `dtype` None: that of the weights."""
    device = model.device
    width = max(map(len, batch))
    ids = torch.zeros((len(batch), width), dtype=torch.long)
    positions = torch.zeros((len(batch), width), dtype=torch.long)
    for row, piece in enumerate(batch):
        ids[row, : len(piece)] = torch.from_numpy(piece.tokens)
        positions[row, : len(piece)] = torch.from_numpy(piece.positions)
    mask = torch.from_numpy(np.stack([ancestor_mask(piece.parents, width) for piece in batch])).unsqueeze(1)
    with torch.autocast(device.type, torch.bfloat16, enabled=dtype == "bf16"):
        out = model(
            input_ids=ids.to(device),
            attention_mask=mask.to(device),
            position_ids=positions.to(device),
            use_cache=False,
        )
    return torch.as_tensor(out.logits[..., 0]).float()


@dataclass(frozen=True)
class _Totals:
    """Weights of an optimizer step, by which the sums over its passes become means."""

    pairs: float
    values: float
    tokens: float


def _totals(batch: Sequence[Piece]) -> _Totals:
    return _Totals(
        *(
            max(float(sum(part.sum() for part in parts)), 1e-9)
            for parts in (
                [piece.pair_weights for piece in batch],
                [piece.values[:, 1] for piece in batch],
                [piece.token_values[:, 1] for piece in batch],
            )
        )
    )


def loss_of(
    logits: torch.Tensor, batch: Sequence[Piece], config: PrmTraining, totals: _Totals
) -> torch.Tensor:
    """The batch's part of the step's loss, from logits [B, T]: weighted pairs, values at step ends, values at tokens."""
    loss = logits.sum() * 0.0
    for row, piece in zip(logits, batch, strict=True):
        read = row[_tensor(piece.ends, row)]
        if len(piece.better):
            gaps = read[_tensor(piece.better, row)] - read[_tensor(piece.worse, row)]
            weights = _tensor(piece.pair_weights, row)
            loss = loss - config.pair_weight / totals.pairs * (weights * logsigmoid(gaps)).sum()
        for weight, found, wanted, total in (
            (config.value_weight, read, piece.values, totals.values),
            (config.token_weight, row[: len(piece)], piece.token_values, totals.tokens),
        ):
            if weight:
                targets, weights = _tensor(wanted, row).unbind(dim=1)
                loss = loss + weight / total * binary_cross_entropy_with_logits(
                    found, targets, weights, reduction="sum"
                )
    return loss


def _tensor(values: Any, like: torch.Tensor) -> torch.Tensor:
    return torch.from_numpy(values).to(like.device)


# --- training --------------------------------------------------------------------------------------------------------


def plan(data: Sequence[Piece], config: PrmTraining) -> list[list[list[Piece]]]:
    """For each optimizer step its forward passes: pieces of like length, the passes in an order of its own each epoch."""
    ordered = sorted(data, key=lambda piece: (len(piece), piece.problem_id))
    passes: list[list[Piece]] = []
    for piece in ordered:
        if not passes or len(piece) * (len(passes[-1]) + 1) > min(config.micro_tokens, config.batch_tokens):
            passes.append([])
        passes[-1].append(piece)
    steps: list[list[list[Piece]]] = []
    for epoch in range(config.epochs):
        shuffled = random.Random(f"{config.seed}/{epoch}").sample(passes, len(passes))  # noqa: S311
        room = 0
        for batch in shuffled:
            size = len(batch) * len(batch[-1])
            if size > room:
                steps.append([])
                room = config.batch_tokens
            steps[-1].append(batch)
            room -= size
    return steps


def _train(job: PrmJob, digest: str) -> PrmResult:
    device = "cuda" if torch.cuda.is_available() else "cpu"
    config = set_up(job.config, device)
    trees = list(read_trees(job.data))
    model, tokenizer = load_policy(job.base, config, device)
    data = dataset(trees, tokenizer, config)
    steps = plan(data.train, config)
    weights = trained_weights(model)
    model.train()
    trained = run_steps(
        job,
        config,
        digest,
        weights,
        len(steps),
        lambda step: _gradients(model, weights.values(), steps[step], config),
        progress=ProgressWriter(job.out),
        # Reading the held-out trees takes long, and a kill in it must not cost the training.
        keep_last=True,
    )
    # Judged and calibrated as it will be served: rounded to the policy's own format, computed in that of the service.
    stored = _stored_dtype(job.base)
    if config.lora is not None:
        model = model.merge_and_unload()
    model = model.to(stored).to(serving_dtype(job.base, stored, device)).eval()
    readings = read(model, data.held_out, config)
    calibration = platt(readings.logits, readings.targets, readings.weights)
    setattr(model.config, CONFIG_KEY, calibration.entry())
    save_model(model.to(stored), job.base, job.out / MODEL_FOLDER)
    result = PrmResult(
        **trained.figures(),
        epochs=config.epochs,
        **asdict(data.counts),
        calibration=calibration,
        quality=quality(readings),
        sha256=checkpoint_sha256(job.out / MODEL_FOLDER),
        job=digest,
    )
    finish(job, result)
    return result


def _gradients(
    model: Any, weights: Iterable[torch.nn.Parameter], passes: Sequence[Sequence[Piece]], config: PrmTraining
) -> Gradients:
    """Add up the gradients of one step over its forward passes, and clip them."""
    totals = _totals([piece for batch in passes for piece in batch])
    loss, tokens = 0.0, 0
    for batch in passes:
        part = loss_of(logits_of(model, batch, config.dtype), batch, config, totals)
        part.backward()  # type: ignore[no-untyped-call]
        loss += part.item()
        tokens += sum(map(len, batch))
    norm = torch.nn.utils.clip_grad_norm_(weights, config.max_grad_norm)
    return Gradients(loss, norm.item(), tokens)


@torch.inference_mode()
def read(model: Any, held_out: Sequence[tuple[Preferences, list[Piece]]], config: PrmTraining) -> Readings:
    """Logits of held-out trees beside what is known of them."""
    numbers: dict[str, int] = {}
    steps: list[tuple[float, float, float, int]] = []
    pairs: list[tuple[float, float, int]] = []
    ends: list[tuple[float, bool, int]] = []
    logits = _read_all(model, [piece for _, packed in held_out for piece in packed], config)
    for found, packed in held_out:
        if not packed:
            continue
        problem = numbers.setdefault(packed[0].problem_id, len(numbers))
        known = {node: value for piece in packed for node, value in logits[id(piece)].items()}
        steps += [
            (known[node], value.target, value.weight, problem)
            for node, value in found.values.items()
            if node in known
        ]
        pairs += [
            (known[pair.better], known[pair.worse], problem)
            for pair in found.siblings
            if pair.better in known and pair.worse in known
        ]
        ends += [(known[node], right, problem) for node, right in found.ends.items() if node in known]
    step, pair, end = (
        np.array(rows, dtype=np.float64).reshape(-1, width).T
        for rows, width in ((steps, 4), (pairs, 3), (ends, 3))
    )
    return Readings(
        logits=step[0],
        targets=step[1],
        weights=step[2],
        step_problem=step[3].astype(int),
        better=pair[0],
        worse=pair[1],
        pair_problem=pair[2].astype(int),
        end_logits=end[0],
        end_right=end[1].astype(bool),
        end_problem=end[2].astype(int),
    )


def _read_all(model: Any, data: Sequence[Piece], config: PrmTraining) -> dict[int, dict[str, float]]:
    """The logit of each read node, by piece."""
    found: dict[int, dict[str, float]] = {}
    for passes in plan(data, config.model_copy(update={"epochs": 1})):
        for batch in passes:
            for piece, row in zip(batch, logits_of(model, batch, None).cpu().numpy(), strict=True):
                found[id(piece)] = dict(zip(piece.nodes, row[piece.ends].tolist(), strict=True))
    return found


def _stored_dtype(base: Path) -> torch.dtype:
    from transformers import AutoConfig

    dtype = AutoConfig.from_pretrained(base, local_files_only=True).dtype
    return torch.float32 if dtype == torch.float32 else torch.bfloat16


if __name__ == "__main__":
    sys.exit(run_job(PrmJob, train, sys.argv))
