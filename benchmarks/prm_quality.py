"""How good are the PRMs of a finished run of rounds? Each is read once more on the trees that it was not trained on.

`python -m benchmarks.prm_quality results/rounds/nano-seed1` takes the data folder of a stack, or a run's own folder with
`round-1`, `round-2` …; no stack has to run. The last line is a JSON object with the figures of each round
(`PrmQuality` in `ratchet/contracts/round_metrics.py` says what each of them is), all with 95 % intervals by bootstrap over
problems.

Limits: rounds of 0.1 held problems out from the PRM alone, so the policy under its head had been fine-tuned on solutions of
them: `policy_had_seen` says so, and flatters. Each round has other trees, so rounds are not measured on the same steps.
"""

import argparse
import json
import re
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from pydantic import ValidationError

from ratchet.contracts.training import PrmTraining
from ratchet.round_files import TREES_FILE
from ratchet.solutions.preferences import Tree
from services.trainer.kept_apart import held_out_problems
from services.trainer.training.checkpoints import checkpoint_sha256
from services.trainer.training.jobs import MODEL_FOLDER, PrmJob, TrainingFailedError
from services.trainer.training.prm import dataset, read_trees
from services.trainer.training.prm_network import as_served, load_policy, stored_dtype
from services.trainer.training.prm_quality import quality
from services.trainer.training.prm_readings import readings

OLD_FRACTION, OLD_AT_LEAST = 0.1, 20
"""Of 0.1, whose PRM training drew the problems that it held out."""
DIGITS = 4


class NoRunError(Exception):
    """The folder holds no PRM of a run; the message says what is missing."""


def run_folder_in(folder: Path) -> Path:
    """The folder of the one run in a data folder; the folder itself where it is a run's. Raises NoRunError."""
    if rounds_of(folder):
        return folder
    runs = [each for each in sorted((folder / "rounds").glob("*")) if rounds_of(each)]
    if len(runs) != 1:
        names = ", ".join(each.name for each in runs) or "none"
        raise NoRunError(
            f"{folder} must hold one run whose rounds have trained a PRM, or be the folder of one (found: {names})."
        )
    return runs[0]


def rounds_of(run: Path) -> dict[int, Path]:
    """The rounds that have left a PRM, by number."""
    found = {
        int(match[1]): folder
        for folder in run.glob("round-*")
        if (match := re.fullmatch(r"round-(\d+)", folder.name)) and (folder / "prm" / MODEL_FOLDER).is_dir()
    }
    return dict(sorted(found.items()))


def measure(run: Path, number: int, device: str) -> dict[str, Any]:
    """Figures of one round's PRM. Raises TrainingFailedError, NoRunError."""
    began = time.monotonic()
    folder = run / f"round-{number}" / "prm"
    job, files = read_job(folder), [run / f"round-{each}" / TREES_FILE for each in range(1, number + 1)]
    trees = list(read_trees(file for file in files if file.is_file()))
    held_out, had_seen = problems_to_judge_by(job, trees)
    # The checkpoint has its head, and its adapters are merged.
    config = PrmTraining.model_validate(job.config.model_dump() | {"lora": None})
    checkpoint = folder / MODEL_FOLDER
    model, tokenizer = load_policy(checkpoint, config, device)
    model = as_served(model, checkpoint, stored_dtype(checkpoint), device)
    data = dataset(trees, tokenizer, config, held_out=held_out, without=job.without)
    found = quality(readings(model, data.held_out, margin=config.margin, tokens=config.micro_tokens))
    return {
        "round": number,
        "sha256": checkpoint_sha256(checkpoint),
        "policy_had_seen": had_seen,
        "trees": data.counts.trees,
        "problems": data.counts.problems,
        **rounded(found.model_dump(mode="json", exclude={"problems"})),
        "held_out_problems": found.problems,
        "seconds": round(time.monotonic() - began, 1),
    }


def read_job(folder: Path) -> PrmJob:
    """What the PRM in this folder was trained with. Raises NoRunError."""
    try:
        return PrmJob.model_validate_json((folder / "job.json").read_bytes())
    except (OSError, ValidationError) as error:
        raise NoRunError(f"{folder / 'job.json'} cannot be read: {str(error).splitlines()[0]}") from error


def problems_to_judge_by(job: PrmJob, trees: list[Tree]) -> tuple[list[str], bool]:
    """The held-out problems, and whether the policy under the head had been trained on them."""
    if job.held_out:
        return job.held_out, False
    drawn = held_out_problems(
        {tree.problem_id for tree in trees},
        fraction=OLD_FRACTION,
        at_least=OLD_AT_LEAST,
        seed=job.config.seed,
    )
    return sorted(drawn), True


def rounded(figures: Mapping[str, Any]) -> dict[str, Any]:
    """With four digits."""
    return {
        name: rounded(value)
        if isinstance(value, Mapping)
        else round(value, DIGITS)
        if isinstance(value, float)
        else value
        for name, value in figures.items()
    }


def main() -> int:
    """Measure each round, and print the JSON object."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path, help="data folder of a stack, or folder of a run")
    options = parser.parse_args()
    device = "cuda" if torch.cuda.is_available() else "cpu"
    found: list[dict[str, Any]] = []
    try:
        run = run_folder_in(options.folder)
        for number in rounds_of(run):
            found.append(measure(run, number, device))
            print(f"round {number}: {found[-1]}", flush=True)
    except (NoRunError, TrainingFailedError) as error:
        print(error, file=sys.stderr)
        return 1
    seed = read_job(run / f"round-{found[0]['round']}" / "prm").config.seed
    print(json.dumps({"benchmark": "prm_quality", "run": run.name, "seed": seed, "rounds": found}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
