"""A folder that appears whole or not at all."""

import contextlib
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from ratchet.exports.gathering import ExportError


@contextlib.contextmanager
def made_whole(target: Path) -> Iterator[Path]:
    """A folder beside `target` that takes its place at the end of the block, unless that raises. Raises ExportError."""
    target = target.expanduser().absolute()
    try:
        if target.exists() and (not target.is_dir() or any(target.iterdir())):
            raise ExportError(f"{target} is there already. Name a new folder.")
        target.parent.mkdir(parents=True, exist_ok=True)
        partial = Path(tempfile.mkdtemp(prefix=f".{target.name}.", dir=target.parent))
        try:
            yield partial
            partial.chmod(0o755)
            # On an empty folder a rename succeeds.
            partial.rename(target)
        finally:
            shutil.rmtree(partial, ignore_errors=True)
    except OSError as error:
        raise ExportError(f"{target} cannot be written: {error.strerror or error}.") from error
