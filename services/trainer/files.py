"""Where a round keeps its files, and how files and folders come to be whole or not there.

Limit: one writer a target at a time.
"""

import os
import shutil
from collections.abc import Callable
from pathlib import Path

from ratchet.settings import TrainerSettings


def run_folder(settings: TrainerSettings, run: str) -> Path:
    """Where a run of rounds keeps its files."""
    return settings.rounds_dir.expanduser().resolve() / run


def write_atomically(target: Path, fill: Callable[[Path], None]) -> None:
    """Make the folder `target` from what `fill` writes into an empty one. An older `target` is replaced.

    Everything is on the disk before the rename. If `fill` raises, `target` is as it was before.
    """
    partial, old = target.with_name(f".{target.name}.partial"), target.with_name(f".{target.name}.old")
    target.parent.mkdir(parents=True, exist_ok=True)
    if old.exists() and not target.exists():
        # There was a kill between the two renames below.
        old.rename(target)
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir()
    try:
        fill(partial)
        for path in (*partial.rglob("*"), partial):
            sync(path)
        shutil.rmtree(old, ignore_errors=True)
        if target.exists():
            target.rename(old)
        partial.rename(target)
        sync(target.parent)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise
    shutil.rmtree(old, ignore_errors=True)


def write_file_atomically(target: Path, text: str) -> None:
    """Replace the content of one file."""
    partial = target.with_name(f".{target.name}.partial")
    partial.write_text(text, encoding="utf-8")
    sync(partial)
    partial.replace(target)
    sync(target.parent)


def sync(path: Path) -> None:
    """Return when the file or the folder's list of names is on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
