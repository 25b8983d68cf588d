"""Files of the data folder that only its owner may read."""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

from ratchet.stack.errors import StackError


def write_private(path: Path, text: str) -> None:
    """Replace a file at once; only we may read it. Raises StackError."""
    fresh = path.with_name(path.name + ".new")
    with said_in_words(path):
        fresh.unlink(missing_ok=True)
        with os.fdopen(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
            file.write(text)
        fresh.replace(path)


@contextlib.contextmanager
def said_in_words(path: Path) -> Iterator[None]:
    """Around work on a file or folder of the data folder: a full disk or another owner is a StackError that says so."""
    try:
        yield
    except OSError as error:
        raise StackError(
            f"{path} cannot be used: {error.strerror}. Run as its owner, free some space on the disk, or choose another data "
            "folder with --data or RATCHET_DATA."
        ) from error
