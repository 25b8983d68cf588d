"""Which problems of GSM8K's training file are for what, so that nothing is reported on problems that chose it.

All parts are of one shuffle, `sample(problems, seed=SEED, offset, limit)`; they do not overlap. What lies beyond
is for training.
"""

import sys
from dataclasses import dataclass
from pathlib import Path

from ratchet.problems import Problem, ProblemFileError, read_problems, sample

SEED = 13


@dataclass(frozen=True)
class Slice:
    """Places in the shuffled file: so many from `offset` on."""

    offset: int
    count: int

    def problems(self, file: Path, limit: int | None = None) -> list[Problem]:
        """The first `limit` problems of it. Ends the program where the file cannot be read."""
        count = self.count if limit is None else min(limit, self.count)
        try:
            held = read_problems(file)
        except ProblemFileError as error:
            sys.exit(str(error))
        return sample(held.problems, seed=SEED, offset=self.offset, limit=count)


CHOOSING = Slice(0, 120)
"""Prompts and models are chosen on these."""
CALIBRATION = Slice(120, 400)
"""Probabilities and votes are fitted on these."""
REPORT = Slice(520, 400)
"""Nothing is fitted or chosen on these."""
