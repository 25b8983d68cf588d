"""Fits the calibrations that come with the code, from trees whose references are known.

`python -m benchmarks.package_calibrations TREES.jsonl --source "which problems, with which budget" [--early-stop]`: the trees
(`python -m benchmarks.stored_trees`) are those of one policy and one PRM; their calibration takes the place of the one that
ratchet/models/calibrations.json has of that pair. `--early-stop` says that the searches might end early, or that the trees
are cut to where they would have: only by such a calibration may a search with a stated probability end early.

What it is worth is to be measured on problems that it was not fitted to: `python -m benchmarks.verified`. The last line is a
JSON object.
"""

import argparse
import json
import random
from collections.abc import Sequence
from pathlib import Path

from pydantic import TypeAdapter

import ratchet
from benchmarks.stored_trees import StoredTree, load_trees
from benchmarks.votes import vote_of_tree
from ratchet.contracts.calibration import AnswerCalibration
from ratchet.solutions.calibration import calibrate

PACKAGED = Path(ratchet.__file__).parent / "models" / "calibrations.json"
_LIST = TypeAdapter(list[AnswerCalibration])


def fitted(trees: Sequence[StoredTree], source: str, *, early_stop: bool) -> AnswerCalibration:
    """The calibration of the trees' pair. Raises ValueError where they are not of one pair."""
    pairs = {(tree.policy, tree.prm) for tree in trees}
    if len(pairs) != 1:
        raise ValueError(f"the trees are of {len(pairs)} pairs of policy and PRM, not of one")
    [(policy, prm)] = pairs
    # The fit is cross-checked in the order that it is given, and stored trees lie in that of their problems.
    order = random.Random(0).sample(trees, len(trees))
    return calibrate(
        policy, prm, [vote_of_tree(tree).labelled() for tree in order], source, early_stop=early_stop
    )


def put(calibration: AnswerCalibration, file: Path) -> None:
    """Write it in the place of the one that the file has of the same pair, or behind all."""
    pair = (calibration.policy, calibration.prm)
    kept = [each for each in _LIST.validate_json(file.read_bytes()) if (each.policy, each.prm) != pair]
    file.write_bytes(_LIST.dump_json([*kept, calibration], indent=2) + b"\n")


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("trees", type=Path, help="of one policy and one PRM")
    parser.add_argument("--source", required=True, help="in words, which problems these are of; it is shown")
    parser.add_argument("--early-stop", action="store_true", help="the searches might end early")
    options = parser.parse_args()
    try:
        made = fitted(load_trees([options.trees]), options.source, early_stop=options.early_stop)
    except (OSError, ValueError) as error:
        parser.error(str(error))
    put(made, PACKAGED)
    print(
        json.dumps(
            {
                "policy": made.policy,
                "prm": made.prm,
                "problems": made.problems,
                "min_confidence": made.min_confidence,
                "ece": made.reliability.ece,
            }
        )
    )


if __name__ == "__main__":
    main()
