"""A copy of a data folder that is consistent in itself: the database, and the files of rounds that it names.

The database is dumped first, as of one moment. Files of rounds are written before the database names them, and never change
afterwards, so what is copied after the dump has all that the dump names; the copy is checked for it, by their SHA-256.

Limits: Postgres as `ratchet up` runs it; docs/how-to/operations.md has the commands for compose. Weights that were downloaded,
the queue and logs are not copied: they are made again. Nor are passwords and keys of the stack.
"""

import asyncio
import json
import os
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from sqlalchemy import select, text
from sqlalchemy.engine import make_url
from sqlalchemy.ext.asyncio import AsyncEngine

from ratchet import __version__
from ratchet.models.checkpoint import ModelSourceError, file_sha256, local_checkpoint
from ratchet.stack import postgres
from ratchet.stack.config import StackConfig
from ratchet.stack.errors import StackError
from ratchet.stack.local import local_stack
from ratchet.store import tables as t
from ratchet.store.engine import make_engine, transaction
from ratchet.store.migrate import migrate

DUMP = "database.dump"
ABOUT = "backup.json"
FOLDERS = ("rounds", "problems")
DUMP_SECONDS = 24 * 3600.0


@dataclass(frozen=True, slots=True)
class Backup:
    """What was copied."""

    database_bytes: int
    files: int
    file_bytes: int


async def back_up(data: Path, database: str, target: Path) -> Backup:
    """Copy a stack's data into the new folder `target`. Raises StackError, and leaves no half copy then."""
    target = target.expanduser().resolve()  # noqa: ASYNC240 - a system call or two
    if target.exists():
        raise StackError(f"{target} is there already. Name a folder that is not.")
    partial = target.with_name(f".{target.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    try:
        partial.mkdir(mode=0o700, parents=True)
        await asyncio.to_thread(_pg, "pg_dump", database, "--format=custom", f"--file={partial / DUMP}")
        for name in FOLDERS:
            if (data / name).exists():
                await asyncio.to_thread(_copy, data / name, partial / name)
        about = {"version": __version__, "data": str(data), "folders": list(FOLDERS)}
        (partial / ABOUT).write_text(json.dumps(about, indent=2) + "\n")
        await asyncio.to_thread(_require_files, await _named_files(database), data, partial)
        partial.rename(target)
    except OSError as error:
        raise StackError(f"The backup cannot be made: {error}") from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return _measured(target)


async def restore_into(data: Path, source: Path) -> Backup:
    """Put a backup into a data folder without a database, and bring it to this version's tables. Raises StackError."""
    source = source.expanduser().resolve()  # noqa: ASYNC240 - a system call or two
    try:
        about = json.loads((source / ABOUT).read_text())
        old = str(about["data"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise StackError(f"{source} is no backup: {ABOUT} cannot be read: {error}.") from error
    if (data / "postgres" / "cluster").exists():
        raise StackError(
            f"{data} has a database already. Name another folder with --data; nothing is overwritten."
        )
    try:
        for name in FOLDERS:
            if (source / name).exists():
                await asyncio.to_thread(_copy, source / name, data / name)
        async with local_stack(StackConfig(data=data, services=())) as urls:
            engine = make_engine(urls.database)
            try:
                async with transaction(engine) as connection:
                    # The stack has made this version's tables; the backup brings those of its own.
                    await connection.execute(text("DROP SCHEMA public CASCADE"))
                    await connection.execute(text("CREATE SCHEMA public"))
                options = ("--no-owner", "--exit-on-error", "--single-transaction", str(source / DUMP))
                await asyncio.to_thread(_pg, "pg_restore", urls.database, *options)
                await migrate(engine)
                await _name_new_paths(engine, old, str(data))
                await asyncio.to_thread(_require_files, await _named_files(urls.database), data, data)
            finally:
                await engine.dispose()
    except OSError as error:
        raise StackError(f"The backup cannot be restored: {error}") from error
    return _measured(source)


def folder_bytes(folder: Path) -> int:
    """What the files below the folder take; those that vanish meanwhile take nothing."""
    return sum(_bytes(Path(where) / name) for where, _, names in os.walk(folder) for name in names)


def _bytes(file: Path) -> int:
    try:
        return file.lstat().st_size
    except OSError:
        return 0


def _measured(folder: Path) -> Backup:
    files = [file for name in FOLDERS for file in (folder / name).rglob("*") if file.is_file()]
    return Backup(_bytes(folder / DUMP), len(files), sum(map(_bytes, files)))


def _copy(source: Path, target: Path) -> None:
    """Copy a folder without what is half written. A folder that was replaced meanwhile is copied once more."""
    half_written = shutil.ignore_patterns(".*.partial", ".*.old", ".partial-*")
    try:
        shutil.copytree(source, target, ignore=half_written, dirs_exist_ok=True)
    except shutil.Error:
        shutil.copytree(source, target, ignore=half_written, dirs_exist_ok=True)


def _pg(program: str, database: str, *options: str) -> None:
    """Run one of Postgres's programs on the database. Raises StackError."""
    url = make_url(database)
    binary = postgres.binaries() / program
    if not binary.is_file():
        raise StackError(f"{program} is missing in {binary.parent}: install Postgres's client programs.")
    # Not on the command line, where every user of the machine could read the password.
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PG")}
    done = subprocess.run(
        [
            str(binary), "--no-password", f"--host={url.host}", f"--port={url.port}", f"--username={url.username}",
            f"--dbname={url.database}", *options,
        ],
        env={**environment, "PGPASSWORD": str(url.password or ""), "PGCONNECT_TIMEOUT": "10"},
        capture_output=True, text=True, errors="replace", timeout=DUMP_SECONDS, stdin=subprocess.DEVNULL, check=False,
    )  # fmt: skip
    if done.returncode != 0:
        raise StackError(f"{program} failed: {done.stderr.strip()[-2000:]}")


@dataclass(frozen=True, slots=True)
class _Named:
    """A file or a checkpoint's folder that the database names."""

    path: Path
    sha256: str
    is_checkpoint: bool


async def _named_files(database: str) -> list[_Named]:
    engine = make_engine(database)
    try:
        async with transaction(engine) as connection:
            datasets = (await connection.execute(select(t.datasets.c.uri, t.datasets.c.sha256))).all()
            models = (await connection.execute(select(t.models.c.uri, t.models.c.sha256))).all()
    finally:
        await engine.dispose()
    return [
        *(_Named(Path(row.uri), row.sha256, is_checkpoint=False) for row in datasets),
        *(_Named(Path(row.uri), row.sha256, is_checkpoint=True) for row in models),
    ]


def _require_files(named: Sequence[_Named], data: Path, copy: Path) -> None:
    """Raise StackError unless the copy has what the database names below the data folder, as it was."""
    wrong: list[str] = []
    with tempfile.TemporaryDirectory() as cache:
        for each in named:
            if not each.path.is_relative_to(data):
                continue
            there = copy / each.path.relative_to(data)
            try:
                if each.is_checkpoint:
                    digest = local_checkpoint(there, Path(cache)).sha256
                else:
                    digest = file_sha256(there, lambda _: None)
            except (OSError, ModelSourceError):
                wrong.append(f"{there} is missing, or cannot be read")
                continue
            if digest != each.sha256:
                wrong.append(f"{there} is not what the database says")
    if wrong:
        raise StackError(f"Database and files do not fit together: {'; '.join(wrong[:5])}.")


async def _name_new_paths(engine: AsyncEngine, old: str, new: str) -> None:
    """Have the database name the files where they are now."""
    before, after = f"{old}/", f"{new}/"
    async with transaction(engine) as connection:
        for table, column in (("models", "uri"), ("datasets", "uri")):
            await connection.execute(
                text(
                    f"UPDATE {table} SET {column} = :after || substr({column}, length(:before) + 1) "  # noqa: S608
                    f"WHERE starts_with({column}, :before)"
                ),
                {"before": before, "after": after},
            )
        for column in ("config", "metrics"):
            # In JSON a path stands between quotes; its own quotes and backslashes are escaped there.
            await connection.execute(
                text(
                    f"UPDATE rounds SET {column} = replace({column}::text, :before, :after)::jsonb "  # noqa: S608
                    f"WHERE position(:before IN {column}::text) > 0"
                ),
                {"before": json.dumps(before)[:-1], "after": json.dumps(after)[:-1]},
            )
