"""Problem files: JSON Lines and Parquet, one problem a record.

Limits: a file is read as a whole; compressed JSON Lines are not read. In Parquet only the columns that make a problem are.
"""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

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


def read_file(path: Path, name: str | None = None) -> Iterator[Problem | Refused]:
    """The problems of a file, their sources `name:line` (Parquet: `name:row`, from 1). Raises ProblemFileError."""
    name = name or path.name
    for kind, number, fields in _rows(path) if path.suffix == ".parquet" else _lines(path):
        yield problem_of(fields, f"{path}, {kind} {number}", f"{name}:{number}")


def _lines(path: Path) -> Iterator[tuple[str, int, Mapping[str, Any]]]:
    try:
        content = path.read_bytes()
    except OSError as error:
        raise ProblemFileError(f"{path}: cannot be read: {error.strerror}.") from error
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
        with path.open("rb") as opened:
            _refuse(path, opened.read(_BEGINNING), _NO_DATA)
        with path.open("rb") as opened, parquet.ParquetFile(opened) as file:
            names = file.schema_arrow.names
            # Where none is known, all of them are read, to be named in the error.
            columns = [name for name in names if name in COLUMNS] or names
            for batch in file.iter_batches(columns=columns):
                for fields in batch.to_pylist():
                    number += 1
                    yield "row", number, fields
    except pyarrow.ArrowException as error:
        raise ProblemFileError(f"{path}: not a Parquet file that can be read: {error}.") from error
    except OSError as error:
        raise ProblemFileError(f"{path}: cannot be read: {error.strerror or error}.") from error
