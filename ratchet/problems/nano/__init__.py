"""nano's problems as a source: generated, with reference answers, in three splits that share no number tuple and no text.

To which split a problem belongs is decided by a hash of the numbers in it, whatever its family: a tuple of numbers is in one
split only. Each split is one endless list for a seed; the first `count` of it are returned.
"""

import hashlib
import random
from collections.abc import Iterator
from enum import StrEnum

from ratchet.problems.nano.families import FAMILIES, draw
from ratchet.problems.nano.instance import Instance
from ratchet.problems.problem import Problem, problem_id

BUCKETS = 20
DEVELOPMENT_BUCKETS = {0, 1}
HELD_OUT_BUCKETS = {2, 3, 4}
TRIES = 200
"""Draws for one problem: enough for the smallest split's share, and an end where a family has no new text."""


class Split(StrEnum):
    """What a problem is for."""

    TRAIN = "train"
    """Search and training."""
    DEVELOPMENT = "development"
    """Choices: hyperparameters, thresholds, the promotion gate."""
    HELD_OUT = "held_out"
    """Reporting alone."""


def split_of(numbers: tuple[int, ...]) -> Split:
    """The split of a tuple of numbers, in any order."""
    key = ",".join(map(str, sorted(numbers)))
    bucket = int.from_bytes(hashlib.sha256(key.encode()).digest()[:4], "big") % BUCKETS
    if bucket in DEVELOPMENT_BUCKETS:
        return Split.DEVELOPMENT
    return Split.HELD_OUT if bucket in HELD_OUT_BUCKETS else Split.TRAIN


def instances(split: Split, seed: int = 0, *, unique: bool = True) -> Iterator[Instance]:
    """Problems of a split without end, the families in turn; where `unique`, no text twice.

    A family that hardly has a new text left is passed over.
    """
    rng = random.Random(f"{split}/{seed}")  # noqa: S311 - problems, not secrets
    seen: set[str] = set()
    while True:
        for family in FAMILIES:
            for _ in range(TRIES):
                found = draw(family, rng)
                if split_of(found.numbers) is split and found.text not in seen:
                    if unique:
                        seen.add(found.text)
                    yield found
                    break


def generate(split: Split, count: int, seed: int = 0) -> list[Problem]:
    """The first `count` problems of a split; their difficulty is the number of steps of their worked solution."""

    return [
        Problem(
            id=problem_id(found.text, str(found.answer)),
            text=found.text,
            answer=str(found.answer),
            source=f"nano:{split}:{number}",
            family=found.family,
            difficulty=len(found.steps),
        )
        for number, found in zip(range(count), instances(split, seed), strict=False)
    ]
