"""Rows to files: JSON Lines or Parquet, a folder a kind and a file a split, each opened when its first row comes."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Protocol, Self

import orjson

from ratchet.exports.kinds import COLUMNS, Column, Format, Kind, Split
from ratchet.exports.shapes import Row

BATCH = 1000
"""Rows of a group in a Parquet file, and in memory."""


@dataclass(frozen=True, slots=True)
class Written:
    """A file."""

    kind: Kind
    split: Split
    path: str
    """In the folder of the export."""
    rows: int
    sha256: str


class _File(Protocol):
    rows: int

    def write(self, row: Row) -> None: ...
    def close(self) -> None: ...


class Writers:
    """Writes rows into files of a folder; `written` lists them once all are closed."""

    def __init__(self, folder: Path, format_: Format) -> None:
        self._folder = folder
        self._format = format_
        self._files: dict[tuple[Kind, Split], _File] = {}
        self.written: list[Written] = []

    def write(self, kind: Kind, split: Split, row: Row) -> None:
        """Add a row. It has the columns of its kind."""
        file = self._files.get((kind, split))
        if file is None:
            path = self._folder / self._name(kind, split)
            path.parent.mkdir(exist_ok=True)
            made = _Jsonl(path) if self._format is Format.JSONL else _Parquet(path, COLUMNS[kind])
            file = self._files[kind, split] = made
        file.write({name: row.get(name) for name in COLUMNS[kind]})

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for (of, split), file in sorted(self._files.items()):
            file.close()
            name = self._name(of, split)
            with (self._folder / name).open("rb") as opened:
                sha256 = hashlib.file_digest(opened, "sha256").hexdigest()
            self.written.append(Written(of, split, name, file.rows, sha256))

    def _name(self, kind: Kind, split: Split) -> str:
        return f"{kind}/{split}.{self._format}"


class _Jsonl:
    def __init__(self, path: Path) -> None:
        self.rows = 0
        self._file: IO[bytes] = path.open("wb")

    def write(self, row: Row) -> None:
        self._file.write(orjson.dumps(row) + b"\n")
        self.rows += 1

    def close(self) -> None:
        self._file.close()


class _Parquet:
    def __init__(self, path: Path, columns: Mapping[str, Column]) -> None:
        import pyarrow.parquet as pq

        self.rows = 0
        self._schema = _arrow_schema(columns)
        self._waiting: list[Row] = []
        self._file: Any = pq.ParquetWriter(path, self._schema)

    def write(self, row: Row) -> None:
        self._waiting.append(row)
        self.rows += 1
        if len(self._waiting) == BATCH:
            self._flush()

    def close(self) -> None:
        self._flush()
        self._file.close()

    def _flush(self) -> None:
        import pyarrow as pa

        if self._waiting:
            self._file.write_table(pa.Table.from_pylist(self._waiting, schema=self._schema))
            self._waiting = []


def _arrow_schema(columns: Mapping[str, Column]) -> Any:
    import pyarrow as pa

    message = pa.struct([("role", pa.string()), ("content", pa.string())])
    types = {
        Column.TEXT: pa.string(),
        Column.INTEGER: pa.int64(),
        Column.NUMBER: pa.float64(),
        Column.FLAG: pa.bool_(),
        Column.TEXTS: pa.list_(pa.string()),
        Column.NUMBERS: pa.list_(pa.float64()),
        Column.FLAGS: pa.list_(pa.bool_()),
        Column.MESSAGES: pa.list_(message),
    }
    return pa.schema([(name, types[column]) for name, column in columns.items()])


def features(kind: Kind) -> list[dict[str, Any]]:
    """The columns as `dataset_info` of a data card has them, so that a column of nulls has its type all the same."""
    message = [{"name": name, "dtype": "string"} for name in ("role", "content")]
    types: dict[Column, dict[str, Any]] = {
        Column.TEXT: {"dtype": "string"},
        Column.INTEGER: {"dtype": "int64"},
        Column.NUMBER: {"dtype": "float64"},
        Column.FLAG: {"dtype": "bool"},
        Column.TEXTS: {"list": "string"},
        Column.NUMBERS: {"list": "float64"},
        Column.FLAGS: {"list": "bool"},
        Column.MESSAGES: {"list": message},
    }
    return [{"name": name, **types[column]} for name, column in COLUMNS[kind].items()]
