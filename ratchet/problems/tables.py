"""Tables of problems: CSV with any usual delimiter, and Parquet.

Limits: the first row of a CSV file names its columns. In Parquet only the columns that make a problem are read.
"""

import csv
import io
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO

from ratchet.problems.problem import ProblemFileError
from ratchet.problems.records import Naming, columns_read

LONGEST_NAME = 60
"""A longer cell in the first row is a problem's text, and the file has no header."""
_DELIMITERS = ",;\t|"


def csv_rows(path: Path, content: bytes) -> Iterator[tuple[int, Mapping[str, Any]]]:
    """The rows below the header, counted from 1. Raises ProblemFileError that names the row."""
    try:
        text = content.decode()
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise ProblemFileError(f"{path}, line {line}: no UTF-8 text: save it as UTF-8.") from error
    header, _, rest = text.partition("\n")
    delimiter = max(_DELIMITERS, key=header.count)
    if header.strip().lower().startswith("sep=") and len(header.strip()) == len("sep=;"):
        # Excel's own way to say the delimiter.
        delimiter, text = header.strip()[-1], rest
    rows = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    number = 0
    try:
        names = [name.strip() for name in next(rows, [])]
        if any(len(name) > LONGEST_NAME for name in names):
            raise ProblemFileError(f"{path}: the first row must name the columns, as problem,answer.")
        for cells in rows:
            if not any(cell.strip() for cell in cells):
                continue
            number += 1
            if len(cells) > len(names):
                raise ProblemFileError(
                    f"{path}, row {number}: {len(cells)} cells, and the first row names {len(names)} columns: put cells "
                    f"that hold {delimiter!r} in quotes."
                )
            yield number, dict(zip(names, cells, strict=False))
    except csv.Error as error:
        raise ProblemFileError(f"{path}, row {number + 1}: not valid CSV: {error}.") from error


def parquet_rows(path: Path, content: BinaryIO, naming: Naming) -> Iterator[tuple[int, Mapping[str, Any]]]:
    """The rows, counted from 1, of the columns of a problem and those that are named. Raises ProblemFileError, OSError."""
    try:
        import pyarrow  # type: ignore[import-untyped,unused-ignore]
        from pyarrow import parquet  # type: ignore[import-untyped,unused-ignore]
    except ImportError as error:
        raise ProblemFileError(f"{path}: reading Parquet needs pyarrow: pip install pyarrow.") from error
    number = 0
    try:
        with parquet.ParquetFile(content) as file:
            for batch in file.iter_batches(columns=columns_read(file.schema_arrow.names, naming)):
                for fields in batch.to_pylist():
                    number += 1
                    yield number, fields
    except pyarrow.ArrowException as error:
        raise ProblemFileError(f"{path}: not a Parquet file that can be read.", f"{error}.") from error
