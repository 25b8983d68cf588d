"""Result files: one fsync-ed line per problem, so that a run that was broken off goes on where it was."""

import contextlib
import fcntl
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import typer
from pydantic import ValidationError

from ratchet.cli.outcomes import GradedProblem


@dataclass(frozen=True)
class ResultFile:
    """What a file holds by problem, and a function that adds to both for good."""

    path: Path
    known: dict[str, GradedProblem]
    append: Callable[[GradedProblem], None]


@contextlib.contextmanager
def open_results(path: Path, *, fresh: bool) -> Iterator[ResultFile]:
    """The file, made where it is not there; one run at a time. Raises typer.BadParameter."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        file = path.open("ab+")
    except OSError as error:
        raise typer.BadParameter(f"{path}: {error.strerror}.", param_hint="--output") from None
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise typer.BadParameter(
                f"{path} is being written by another run.", param_hint="--output"
            ) from None
        if fresh:
            file.truncate(0)
        known = _read(file, path)

        def append(line: GradedProblem) -> None:
            file.write(line.model_dump_json().encode() + b"\n")
            file.flush()
            os.fsync(file.fileno())
            known[line.id] = line

        yield ResultFile(path, known, append)


def _read(file: IO[bytes], path: Path) -> dict[str, GradedProblem]:
    """By problem. Raises typer.BadParameter for a line that is no result."""
    file.seek(0)
    content = file.read()
    whole = content[: content.rfind(b"\n") + 1]
    # A run that was killed while it wrote leaves half a line.
    file.truncate(len(whole))
    known: dict[str, GradedProblem] = {}
    for number, line in enumerate(whole.splitlines(), 1):
        try:
            entry = GradedProblem.model_validate_json(line)
        except ValidationError:
            raise typer.BadParameter(
                f"{path}, line {number}: not a result. Use --fresh to start over.", param_hint="--output"
            ) from None
        known[entry.id] = entry
    return known
