"""The data folder of a local stack: held by a lock, and a file in it that says where the running stack answers."""

import asyncio
import contextlib
import fcntl
import json
import os
import time
from collections.abc import AsyncIterator, Iterator
from dataclasses import asdict
from pathlib import Path

from ratchet import secret_files
from ratchet.stack.config import StackUrls, default_data
from ratchet.stack.errors import StackError
from ratchet.stack.private_files import said_in_words, write_private

SECRETS = "secrets"
"""Folder in the data folder: the operator's key, the header that sends it, and the services' token."""
_MODEL_FILE = "model"
# What a killed stack's children may take to end before the folder is free again.
ORPHAN_SECONDS = 20.0


def _start_ticks(pid: int) -> int | None:
    """When the process began, in clock ticks after boot; None if there is none. Tells a reused pid."""
    try:
        return int(Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(")")[2].split()[19])
    except (OSError, IndexError, ValueError):
        return None


def running_stack(data: Path | None = None) -> StackUrls | None:
    """The URLs of the stack that is up in the data folder, or None."""
    file = (data or default_data()).expanduser() / "stack.json"
    try:
        entry = json.loads(file.read_text())
        if _start_ticks(entry["pid"]) != entry["start_ticks"]:
            return None
        return StackUrls(**entry["urls"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


@contextlib.contextmanager
def announced(data: Path, urls: StackUrls) -> Iterator[None]:
    """While the block runs, `running_stack` finds these URLs in the data folder."""
    file = data / "stack.json"
    entry = {"pid": os.getpid(), "start_ticks": _start_ticks(os.getpid()), "urls": asdict(urls)}
    write_private(file, json.dumps(entry, indent=2) + "\n")
    try:
        yield
    finally:
        file.unlink(missing_ok=True)


def open_data(data: Path) -> Path:
    """Make the data folder, for us alone; raises StackError."""
    try:
        data = data.expanduser().resolve()
        if not data.exists():
            data.mkdir(mode=0o700, parents=True)
        # What root writes into another user's stack, that user could no longer use.
        for folder in (data / "postgres", data / "valkey"):
            if folder.exists() and folder.stat().st_uid != os.geteuid():
                raise StackError(
                    f"The data folder {data} belongs to uid {folder.stat().st_uid}, and this is uid "
                    f"{os.geteuid()}: run as its owner, or choose another folder with --data or RATCHET_DATA."
                )
        (data / "logs").mkdir(exist_ok=True)
        (data / "run").mkdir(exist_ok=True)
    except (OSError, RuntimeError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise StackError(
            f"The data folder {data} cannot be used: {reason}. Choose another with --data or RATCHET_DATA."
        ) from error
    return data


def last_model(data: Path) -> str | None:
    """The model that was named when the folder's policy was last started, None if none ever was."""
    try:
        return (data / _MODEL_FILE).read_text().strip() or None
    except (OSError, UnicodeDecodeError):
        return None


def remember_model(data: Path, model: str) -> None:
    """Keep what `last_model` gives; of a folder, its whole path. Raises StackError."""
    folder = Path(model).expanduser()
    write_private(data / _MODEL_FILE, f"{folder.resolve() if folder.is_dir() else model}\n")


def problems_folder(data: Path) -> Path:
    """Where the problem files lie that a round of the stack may name; the command line copies them there."""
    return data / "problems"


def make_secrets(data: Path) -> None:
    """Make the stack's key and token, for us alone, where there are none. Raises StackError."""
    folder = data / SECRETS
    with said_in_words(folder):
        folder.mkdir(mode=0o700, exist_ok=True)
        secret_files.make(folder, (secret_files.ADMIN_KEY, secret_files.SERVICE_TOKEN), secret_files.OF_OWNER)


def _holder(lock: Path) -> int | None:
    """The pid in the lock if the process that wrote it lives."""
    try:
        pid, ticks = (int(part) for part in lock.read_text().split())
    except (OSError, ValueError):
        return None
    return pid if _start_ticks(pid) == ticks else None


@contextlib.asynccontextmanager
async def held(data: Path) -> AsyncIterator[int]:
    """Hold the data folder's lock; gives its descriptor, which the shims share, so that it outlasts a killed stack."""
    path = data / "lock"
    with said_in_words(path):
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        deadline = time.monotonic() + ORPHAN_SECONDS
        while True:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                holder = _holder(path)
                if holder is not None or time.monotonic() > deadline:
                    who = f"process {holder}" if holder is not None else "another process"
                    urls = running_stack(data)
                    where = f" (search API at {urls.search})" if urls else ""
                    raise StackError(
                        f"The data folder {data} is in use by the stack of {who}{where}. Stop that one first, "
                        "or choose another folder with --data or RATCHET_DATA."
                    ) from None
                # Its stack was killed; what that had started is just being stopped.
                await asyncio.sleep(0.2)
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, f"{os.getpid()} {_start_ticks(os.getpid())}\n".encode(), 0)
        yield descriptor
    finally:
        os.close(descriptor)
