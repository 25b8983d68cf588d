"""Problem sources: a spec becomes a set of problems with reference answers that a machine can check.

`sets.py` says what a spec is and what happens to what it names; one module a source (`files.py`, `hub.py`, `reasoning.py`,
`nano/`); `verifiable.py` is the check of answers, `contamination.py` the comparison of two sets.
"""

from ratchet.problems.confined import confined
from ratchet.problems.contamination import Overlap, find_overlaps
from ratchet.problems.problem import Problem, ProblemFileError, Refused, problem_id
from ratchet.problems.sets import Duplicate, ProblemSet, load, names_file, read_problems, sample, split

__all__ = [
    "Duplicate",
    "Overlap",
    "Problem",
    "ProblemFileError",
    "ProblemSet",
    "Refused",
    "confined",
    "find_overlaps",
    "load",
    "names_file",
    "problem_id",
    "read_problems",
    "sample",
    "split",
]
