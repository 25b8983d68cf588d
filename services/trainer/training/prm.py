"""Trains a PRM on search trees: `python -m services.trainer.training.prm JOB.json` (a PrmJob).

The round's policy gets a head with one output, which is read at the end of each step. It learns which of two steps is better
(pairs) and, if the config says so, how often a step led to a right end (values, at its end and at all its tokens). A tree is
read as one sequence, so both steps of a pair are in one pass. The problems that the job holds out calibrate the logits as
probabilities, and the result is judged by them (prm_quality). It is for the caller to hold out problems that the policy was
not trained on either.

Limits: one process, and nothing is sharded. A job none of whose trees is of a held-out problem leaves a PRM that is neither
calibrated nor judged.
"""

import random
import sys
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from pydantic import ValidationError
from torch.nn.functional import binary_cross_entropy_with_logits, logsigmoid

from ratchet.contracts.prm import Calibration
from ratchet.contracts.training import PrmTraining
from ratchet.models.prm_head import CONFIG_KEY
from ratchet.solutions.preferences import Preferences, Tree, nodes_that_ran, preferences
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
from services.trainer.training.optimizer import trained_weights
from services.trainer.training.prm_network import (
    as_served,
    in_passes,
    load_policy,
    logits_of,
    stored_dtype,
)
from services.trainer.training.prm_pieces import Piece, pieces
from services.trainer.training.prm_quality import platt, quality
from services.trainer.training.prm_readings import HeldOut, readings

LEAST_PROBLEMS = 4
"""What fewer problems teach is these problems."""


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
    """Packed trees, and those that the PRM is judged by."""

    train: list[Piece]
    held_out: list[HeldOut]
    counts: Counts


def train(job: PrmJob) -> PrmResult:
    """Train, or go on with, or only read the result of, this job. Raises TrainingFailedError."""
    with job_folder(job.out), explained_failures(job, job.config):
        digest = job_digest(job.config, job.base, job.data, repr((sorted(job.held_out), sorted(job.without))))
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


def dataset(
    trees: Iterable[Tree],
    tokenizer: Any,
    config: PrmTraining,
    *,
    held_out: Collection[str],
    without: Collection[str] = (),
) -> Dataset:
    """Pairs, values and packed sequences. Raises TrainingFailedError when there is nothing to learn.

    Trees of the problems `held_out` are not learnt from, and those of the problems `without` are not even read.
    """
    kept_out, left_out = set(held_out) - set(without), set(without)
    training: list[Piece] = []
    judges: list[HeldOut] = []
    taught: list[Preferences] = []
    problems: dict[bool, set[str]] = {True: set(), False: set()}
    dropped = 0
    for tree in trees:
        if tree.problem_id in left_out:
            continue
        judging = tree.problem_id in kept_out
        problems[judging].add(tree.problem_id)
        nodes = nodes_that_ran(tree)
        found = preferences(tree, margin=config.margin, edit_distance=config.edit_distance)
        if not judging and not (config.value_weight or config.token_weight):
            # Steps in no pair teach nothing then, and need not be read.
            found = replace(found, values={})
        packed, too_long = pieces(
            tree, nodes, found, tokenizer, limit=config.micro_tokens, max_length=config.max_length
        )
        dropped += too_long
        if judging:
            judges.append(HeldOut(tree.problem_id, nodes, found, packed))
        else:
            taught.append(found)
            training.extend(packed)
    _require_something_to_learn(taught, training, len(problems[False]), len(problems[True]), config)
    counts = Counts(
        trees=len(taught) + len(judges),
        problems=len(problems[True] | problems[False]),
        held_out_problems=len(problems[True]),
        sibling_pairs=sum(len(found.siblings) for found in taught),
        trajectory_pairs=sum(len(found.pairs) - len(found.siblings) for found in taught),
        values=sum(len(found.values) for found in taught),
        dropped_too_long=dropped,
    )
    return Dataset(training, judges, counts)


def _require_something_to_learn(
    taught: Sequence[Preferences],
    training: Sequence[Piece],
    problems: int,
    held_out: int,
    config: PrmTraining,
) -> None:
    """Raise TrainingFailedError for too few problems, for ends of one kind, and for steps that do not differ."""
    if problems + held_out < LEAST_PROBLEMS or not problems:
        raise TrainingFailedError(
            f"There are trees of {problems + held_out} problems, {held_out} of them held out; a PRM needs {LEAST_PROBLEMS} at "
            "the least, and some hundreds to be of use. Search more problems."
        )
    ends = {right for found in taught for right in found.ends.values()}
    for kind, missing in ((True, "right"), (False, "wrong")):
        if kind not in ends:
            raise TrainingFailedError(
                f"No finished trajectory in {len(taught)} trees is {missing}, so there is nothing to tell apart. Search "
                f"{'easier' if kind else 'harder'} problems, or with more rollouts."
            )
    if not training:
        raise TrainingFailedError(
            f"No pair of steps differs by a Q of {config.margin} and {config.edit_distance} characters. Lower margin or "
            "edit_distance, or set value_weight."
        )


# --- the loss ---------------------------------------------------------------------------------------------------------


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
    """For each optimizer step its forward passes, in an order of its own each epoch.

    A step goes on until it holds both `batch_tokens` and trees of `batch_problems` problems; what is left at the end of an
    epoch, of fewer problems, goes with the step before it.
    """
    passes = in_passes(data, min(config.micro_tokens, config.batch_tokens))
    steps: list[list[list[Piece]]] = []
    for epoch in range(config.epochs):
        shuffled = random.Random(f"{config.seed}/{epoch}").sample(passes, len(passes))  # noqa: S311
        steps += _steps_of_an_epoch(shuffled, config)
    return steps


def _steps_of_an_epoch(passes: Iterable[list[Piece]], config: PrmTraining) -> list[list[list[Piece]]]:
    steps: list[list[list[Piece]]] = []
    problems: set[str] = set()
    room = 0
    for batch in passes:
        size = len(batch) * len(batch[-1])
        if not steps or (size > room and len(problems) >= config.batch_problems):
            steps.append([])
            problems = set()
            room = config.batch_tokens
        steps[-1].append(batch)
        problems.update(piece.problem_id for piece in batch)
        room -= size
    if len(steps) > 1 and len(problems) < config.batch_problems:
        steps[-2:] = [steps[-2] + steps[-1]]
    return steps


def _train(job: PrmJob, digest: str) -> PrmResult:
    device = "cuda" if torch.cuda.is_available() else "cpu"
    config = set_up(job.config, device)
    model, tokenizer = load_policy(job.base, config, device)
    data = dataset(read_trees(job.data), tokenizer, config, held_out=job.held_out, without=job.without)
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
    stored = stored_dtype(job.base)
    if config.lora is not None:
        model = model.merge_and_unload()
    model = as_served(model, job.base, stored, device)
    found = readings(model, data.held_out, margin=config.margin, tokens=config.micro_tokens)
    calibration = platt(found.logits, found.targets, found.weights) if len(found.logits) else Calibration()
    setattr(model.config, CONFIG_KEY, calibration.entry())
    save_model(model.to(stored), job.base, job.out / MODEL_FOLDER)
    result = PrmResult(
        **trained.figures(),
        epochs=config.epochs,
        **asdict(data.counts),
        calibration=calibration,
        quality=quality(found),
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


if __name__ == "__main__":
    sys.exit(run_job(PrmJob, train, sys.argv))
