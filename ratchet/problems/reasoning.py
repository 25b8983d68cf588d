"""Tasks of the package reasoning-gym: problems generated from a seed, with the answers that the package computes.

Limits: every task at its own default difficulty. Many tasks are puzzles whose answers are texts or grids; the check of
answers refuses those. Some have more than one right answer, of which the package's is taken.
"""

import difflib
from collections.abc import Iterator

from ratchet.problems.problem import Problem, ProblemFileError, Refused, level_of
from ratchet.problems.records import problem_of


def read_task(task: str, size: int, seed: int) -> Iterator[Problem | Refused]:
    """`size` problems of a task; the task is their family. Raises ProblemFileError."""
    try:
        # Imported late: it takes a second, and matplotlib with it.
        import reasoning_gym  # type: ignore[import-untyped,unused-ignore]
        from reasoning_gym.factory import DATASETS  # type: ignore[import-untyped,unused-ignore]
    except ImportError as error:
        raise ProblemFileError(
            f"reasoning-gym:{task} needs a package: pip install reasoning-gym ({error})."
        ) from error
    if task not in DATASETS:
        close = difflib.get_close_matches(task, DATASETS, n=5) or sorted(DATASETS)
        raise ProblemFileError(f"reasoning-gym has no task {task!r}; there are: {', '.join(close)}.")
    try:
        entries = reasoning_gym.create_dataset(task, size=size, seed=seed)
    except (AssertionError, TypeError, ValueError) as error:
        raise ProblemFileError(f"reasoning-gym's task {task} cannot be made: {error}.") from error
    for index in range(size):
        entry = entries[index]
        level = level_of(entry["metadata"].get("difficulty"))
        fields = {"problem": entry["question"], "answer": entry["answer"], "family": task, "level": level}
        source = f"reasoning-gym:{task}:{index}"
        yield problem_of(fields, source, source)
