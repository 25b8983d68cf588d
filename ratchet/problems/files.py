"""Problem files: JSON Lines and Parquet, one problem a record.

Limits: a file is read as a whole; compressed JSON Lines are not read. In Parquet only the columns that make a problem are.
"""

import contextlib
import json
import os
import stat
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO

from ratchet.problems.problem import COLUMNS, Problem, ProblemFileError, Refused, problem_of

SUFFIXES = (".jsonl", ".parquet")
_NO_DATA = {
    b"version https://git-lfs": "a Git LFS pointer and not the data: fetch it with git lfs pull",
    b"<": "a web page and not the data: download the raw file",
}
_NO_LINES = _NO_DATA | {
    b"\x1f\x8b": "compressed: unpack it first",
    b"PK\x03\x04": "compressed: unpack it first",
    b"\xff\xfe": "UTF-16: save it as UTF-8",
    b"\xfe\xff": "UTF-16: save it as UTF-8",
    b"PAR1": "Parquet: name it *.parquet",
    b"[": "a JSON array: expected JSON Lines, one JSON object a line. To convert it: jq -c '.[]' FILE > FILE.jsonl",
}
"""How files begin that are often taken for JSON Lines, and what to do."""
_BEGINNING = 99
MAX_BYTES = 2 * 2**30
"""A larger file is refused: it is held in memory."""


@contextlib.contextmanager
def opened(path: Path) -> Iterator[BinaryIO]:
    """The file, open to be read. Raises ProblemFileError unless it is a regular one of bounded size: a device or a pipe may
    never end."""
    try:
        # Without O_NONBLOCK, the opening of a pipe waits for somebody who writes.
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except (OSError, ValueError) as error:
        raise _unreadable(path, error) from error
    with os.fdopen(descriptor, "rb") as file:
        found = os.fstat(descriptor)
        if not stat.S_ISREG(found.st_mode):
            raise ProblemFileError(f"{path}: not a regular file: give a JSON Lines or Parquet file.")
        if found.st_size > MAX_BYTES:
            raise ProblemFileError(
                f"{path}: {found.st_size / 2**30:.1f} GiB, more than {MAX_BYTES / 2**30:.0f}: split it."
            )
        yield file


def _unreadable(path: Path, error: OSError | ValueError) -> ProblemFileError:
    reason = error.strerror if isinstance(error, OSError) and error.strerror else error
    return ProblemFileError(f"{path}: cannot be read: {reason}.")


def read_file(path: Path, name: str | None = None) -> Iterator[Problem | Refused]:
    """The problems of a file, their sources `name:line` (Parquet: `name:row`, from 1). Raises ProblemFileError."""
    name = name or path.name
    for kind, number, fields in _rows(path) if path.suffix == ".parquet" else _lines(path):
        yield problem_of(fields, f"{path}, {kind} {number}", f"{name}:{number}")


def _lines(path: Path) -> Iterator[tuple[str, int, Mapping[str, Any]]]:
    try:
        with opened(path) as file:
            # One that grows meanwhile does not grow here.
            content = file.read(MAX_BYTES)
    except OSError as error:
        raise _unreadable(path, error) from error
    content = content.removeprefix(b"\xef\xbb\xbf")
    _refuse(path, content[:_BEGINNING], _NO_LINES)
    for number, line in enumerate(content.split(b"\n"), 1):
        if line.strip():
            yield "line", number, _object_of(line, f"{path}, line {number}")


def _refuse(path: Path, content: bytes, others: Mapping[bytes, str]) -> None:
    for beginning, what in others.items():
        if content.lstrip().startswith(beginning):
            raise ProblemFileError(f"{path}, line 1: {what}.")


def _object_of(line: bytes, where: str) -> Mapping[str, Any]:
    try:
        # A faster parser would make floats of whole numbers beyond 64 bits.
        value = json.loads(line.decode())
    except UnicodeDecodeError as error:
        raise ProblemFileError(f"{where}: not valid JSON: no UTF-8 text (byte {error.start + 1}).") from error
    except json.JSONDecodeError as error:
        raise ProblemFileError(
            f"{where}: not valid JSON: {error.msg} (column {error.colno}). Expected one JSON object a line."
        ) from error
    except (ValueError, RecursionError) as error:
        # A number of thousands of digits, or thousands of brackets.
        raise ProblemFileError(f"{where}: not valid JSON: {error}.") from error
    if not isinstance(value, dict):
        raise ProblemFileError(f"{where}: expected a JSON object with the fields problem and answer.")
    return value


def _rows(path: Path) -> Iterator[tuple[str, int, Mapping[str, Any]]]:
    try:
        import pyarrow  # type: ignore[import-untyped,unused-ignore]
        from pyarrow import parquet  # type: ignore[import-untyped,unused-ignore]
    except ImportError as error:
        raise ProblemFileError(f"{path}: reading Parquet needs pyarrow: pip install pyarrow.") from error
    number = 0
    try:
        with opened(path) as content:
            _refuse(path, content.read(_BEGINNING), _NO_DATA)
        with opened(path) as content, parquet.ParquetFile(content) as file:
            names = file.schema_arrow.names
            # Where none is known, all of them are read, to be named in the error.
            columns = [name for name in names if name in COLUMNS] or names
            for batch in file.iter_batches(columns=columns):
                for fields in batch.to_pylist():
                    number += 1
                    yield "row", number, fields
    except pyarrow.ArrowException as error:
        raise ProblemFileError(f"{path}: not a Parquet file that can be read.", f"{error}.") from error
    except OSError as error:
        raise _unreadable(path, error) from error
