"""Problem files: JSON Lines, JSON documents, CSV and Parquet, one problem a record; also packed by gzip or Zstandard.

What a file is says its content, but for CSV, which its name says. Behind the name may stand where the problems are:
`set.jsonl?problem=input&answer=target`, and of a JSON document in which of its fields the records are: `set.json?records=data`
(`records=.`: the document itself is the list).

Limits: a file is read as a whole.
"""

import contextlib
import gzip
import json
import os
import re
import stat
import zlib
from collections.abc import Iterator, Mapping
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import Any, BinaryIO

from ratchet.problems.problem import Problem, ProblemFileError, Refused
from ratchet.problems.records import USUAL, Naming, problem_of, value_at
from ratchet.problems.tables import csv_rows, parquet_rows

PACKED = (".gz", ".zst")
KINDS = (".parquet", ".jsonl", ".ndjson", ".json", ".csv", ".tsv")
"""Of a data set that holds the same rows in several, the first one counts."""
SUFFIXES = (*KINDS, *(kind + packed for kind in KINDS[1:] for packed in PACKED))

_PARQUET = b"PAR1"
_GZIP, _ZSTANDARD = b"\x1f\x8b", b"\x28\xb5\x2f\xfd"
_NO_DATA = {
    b"version https://git-lfs": "a Git LFS pointer and not the data: fetch it with git lfs pull",
    b"<": "a web page and not the data: download the raw file",
    b"404: Not Found": "the message of a server and not the data: look at the address that it came from",
    b"Entry not found": "the message of a server and not the data: look at the address that it came from",
    b"PK\x03\x04": "a ZIP archive or an Excel workbook: unpack it, or save it as CSV (UTF-8)",
    b"BZh": "compressed by bzip2: unpack it first",
    b"\xfd7zXZ": "compressed by xz: unpack it first",
    b"\xff\xfe": "UTF-16: save it as UTF-8",
    b"\xfe\xff": "UTF-16: save it as UTF-8",
}
"""How files begin that are often taken for the data, and what to do."""
_BEGINNING = 99
MAX_BYTES = 2 * 2**30
"""A larger file, or one that holds more when it is unpacked, is refused: it is held in memory."""
_OPTIONS = re.compile(r"(?P<path>[^?]*)\?(?P<options>[a-z_]+=.*)", re.DOTALL)


def is_problem_file(name: str) -> bool:
    """Whether a file is called as problem files are."""
    return name.endswith(SUFFIXES)


def without_suffix(name: str) -> str:
    """The file's name without what says its kind."""
    return next(
        (name.removesuffix(s) for s in sorted(SUFFIXES, key=len, reverse=True) if name.endswith(s)), name
    )


def split_options(spec: str) -> tuple[str, str]:
    """The path of a file, and the options behind it, as `problem=input&answer=target`."""
    found = _OPTIONS.fullmatch(spec)
    return (found["path"], found["options"]) if found else (spec, "")


def unit_of(path: Path, records: str | None = None) -> str:
    """What the number in a problem's source counts: lines, rows of a table, or records of a document."""
    if records is not None:
        return "record"
    return "row" if re.search(r"\.(parquet|[ct]sv)(\.|$)", path.name) else "line"


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
            raise ProblemFileError(f"{path}: not a regular file: give a problem file.")
        if found.st_size > MAX_BYTES:
            raise ProblemFileError(
                f"{path}: {found.st_size / 2**30:.1f} GiB, more than {MAX_BYTES / 2**30:.0f}: split it."
            )
        yield file


def _unreadable(path: Path, error: OSError | ValueError) -> ProblemFileError:
    reason = error.strerror if isinstance(error, OSError) and error.strerror else error
    return ProblemFileError(f"{path}: cannot be read: {reason}.")


def read_file(
    path: Path, name: str | None = None, naming: Naming = USUAL, records: str | None = None
) -> Iterator[Problem | Refused]:
    """The problems of a file, their sources `name:line` (tables: `name:row`, from 1). Raises ProblemFileError."""
    name, unit = name or path.name, unit_of(path, records)
    for number, fields in _records(path, naming, records):
        yield problem_of(fields, f"{path}, {unit} {number}", f"{name}:{number}", naming)


def _records(path: Path, naming: Naming, records: str | None) -> Iterator[tuple[int, Mapping[str, Any]]]:
    try:
        with opened(path) as file:
            # One that grows meanwhile does not grow here.
            beginning = file.read(_BEGINNING)
            file.seek(0)
            _refuse(path, beginning)
            if path.name.endswith(".parquet"):
                yield from parquet_rows(path, file, naming)
                return
            content = _unpacked(path, file, beginning)
    except OSError as error:
        raise _unreadable(path, error) from error
    content = content.removeprefix(b"\xef\xbb\xbf")
    _refuse(path, content[:_BEGINNING])
    if content.startswith(_PARQUET):
        raise ProblemFileError(f"{path}, line 1: Parquet: name it *.parquet.")
    if records is not None:
        yield from _document(path, content, records)
    elif unit_of(path) == "row":
        yield from csv_rows(path, content)
    else:
        yield from _lines(path, content)


def _refuse(path: Path, content: bytes) -> None:
    for beginning, what in _NO_DATA.items():
        if content.lstrip().startswith(beginning):
            raise ProblemFileError(f"{path}, line 1: {what}.")


def _unpacked(path: Path, file: BinaryIO, beginning: bytes) -> bytes:
    try:
        if beginning.startswith(_GZIP):
            with gzip.open(file) as packed:
                content = packed.read(MAX_BYTES + 1)
        elif beginning.startswith(_ZSTANDARD):
            content = _from_zstandard(path, file)
        else:
            return file.read(MAX_BYTES)
    except (OSError, EOFError, ValueError, zlib.error) as error:
        raise ProblemFileError(f"{path}: compressed, and cannot be unpacked: {error}.") from error
    if len(content) > MAX_BYTES:
        raise ProblemFileError(f"{path}: unpacked more than {MAX_BYTES / 2**30:.0f} GiB: split it.")
    return content


def _from_zstandard(path: Path, file: BinaryIO) -> bytes:
    try:
        import pyarrow  # type: ignore[import-untyped,unused-ignore]
    except ImportError as error:
        raise ProblemFileError(f"{path}: reading Zstandard needs pyarrow: pip install pyarrow.") from error
    with pyarrow.CompressedInputStream(file, "zstd") as packed:
        content: bytes = packed.read(MAX_BYTES + 1)
    return content


# --- JSON ------------------------------------------------------------------------------------------------------------


def _lines(path: Path, content: bytes) -> Iterator[tuple[int, Mapping[str, Any]]]:
    if content.lstrip().startswith(b"["):
        raise _array_error(path, content)
    first = True
    for number, line in enumerate(content.split(b"\n"), 1):
        if not line.strip():
            continue
        try:
            fields = _object_of(line, f"{path}, line {number}")
        except ProblemFileError:
            if first and (spread := _document_error(path, content)):
                raise spread from None
            raise
        first = False
        yield number, fields


def _object_of(text: bytes, where: str) -> Mapping[str, Any]:
    value = _json(text, where)
    if not isinstance(value, dict):
        raise ProblemFileError(f"{where}: expected a JSON object with the fields problem and answer.")
    return value


def _json(text: bytes, where: str) -> Any:
    try:
        # A faster parser would make floats of whole numbers beyond 64 bits, and of all decimals.
        return json.loads(text.decode(), parse_float=Decimal)
    except UnicodeDecodeError as error:
        raise ProblemFileError(f"{where}: not valid JSON: no UTF-8 text (byte {error.start + 1}).") from error
    except json.JSONDecodeError as error:
        raise ProblemFileError(
            f"{where}: not valid JSON: {error.msg} (column {error.colno}). Expected one JSON object a line."
        ) from error
    except (ValueError, RecursionError, InvalidOperation) as error:
        # A number of thousands of digits, or thousands of brackets.
        raise ProblemFileError(f"{where}: not valid JSON: {error}.") from error


def _array_error(path: Path, content: bytes) -> ProblemFileError:
    said = (
        f"{path}, line 1: a JSON array and not JSON Lines (one JSON object a line). To read it as it is, say where its records "
        f"are: {path.name}?records=."
    )
    try:
        records = _json(content, str(path))
    except ProblemFileError:
        return ProblemFileError(said)
    if records and isinstance(records[0], dict):
        return ProblemFileError(
            said, f"The fields of its {len(records)} records are {', '.join(sorted(records[0]))}."
        )
    return ProblemFileError(said)


def _document_error(path: Path, content: bytes) -> ProblemFileError | None:
    """What to say of one JSON object that is spread over lines; None if it is none."""
    try:
        document = _json(content, str(path))
    except ProblemFileError:
        return None
    if not isinstance(document, dict):
        return None
    lists = [name for name, value in document.items() if isinstance(value, list)]
    return ProblemFileError(
        f"{path}, line 1: one JSON object over many lines and not JSON Lines (one JSON object a line). If its problems "
        f"are in one of its fields, name that: {path.name}?records=FIELD.",
        f"The fields are {', '.join(sorted(document))}; lists are {', '.join(lists) or 'none'}.",
    )


def _document(path: Path, content: bytes, records: str) -> Iterator[tuple[int, Mapping[str, Any]]]:
    document = _json(content, str(path))
    found = document if records == "." else value_at(document, records)
    if isinstance(found, dict) and found and all(isinstance(each, dict) for each in found.values()):
        # As pandas and many crowd-sourced sets write it: the records by their names.
        found = list(found.values())
    if not isinstance(found, list):
        names = f"The fields are {', '.join(sorted(document))}." if isinstance(document, dict) else ""
        raise ProblemFileError(f"{path}: there is no list of records at records={records}.", names)
    for number, fields in enumerate(found, 1):
        if not isinstance(fields, dict):
            raise ProblemFileError(
                f"{path}, record {number}: expected a JSON object with the fields of a problem."
            )
        yield number, fields
