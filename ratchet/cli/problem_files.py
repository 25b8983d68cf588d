"""Problem files of the user's for a trainer of the local stack: copied into the folder from which alone that one reads."""

import contextlib
import hashlib
import os
import tempfile
from pathlib import Path

import typer

from ratchet.cli.display import clean
from ratchet.contracts.rounds import ProblemSource, RoundConfig
from ratchet.problems import ProblemFileError, names_file
from ratchet.problems.files import opened, split_options
from ratchet.stack.config import default_data
from ratchet.stack.data_folder import problems_folder

SPLITS = ("train", "development", "held_out")
_PIECE = 2**20


def with_copied_files(config: RoundConfig, data: Path | None) -> RoundConfig:
    """The configuration, naming copies of its files below the data folder. Raises typer.BadParameter."""
    folder = problems_folder((data or default_data()).expanduser().resolve())
    copied: dict[str, ProblemSource] = {}
    for split in SPLITS:
        source: ProblemSource = getattr(config, split)
        path, options = split_options(source.spec)
        if names_file(source.spec) and not Path(path).is_relative_to(folder):
            try:
                copy = _copy(Path(path), folder)
            except ProblemFileError as error:
                raise typer.BadParameter(clean(str(error)), param_hint=f"{split}.spec") from None
            except OSError as error:
                raise typer.BadParameter(
                    f"{path} cannot be copied into {folder}: {error.strerror}.",
                    param_hint=f"{split}.spec",
                ) from None
            copied[split] = source.model_copy(update={"spec": f"{copy}?{options}" if options else str(copy)})
    return config.model_copy(update=copied)


def _copy(file: Path, folder: Path) -> Path:
    """The copy; named by its content, so that the same file is there once, and a changed one is another."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    digest = hashlib.sha256()
    with opened(file) as content:
        descriptor, partial = tempfile.mkstemp(dir=folder, prefix=".partial-")
        try:
            with os.fdopen(descriptor, "wb") as copy:
                while piece := content.read(_PIECE):
                    digest.update(piece)
                    copy.write(piece)
            target = folder / f"{digest.hexdigest()[:12]}-{file.name}"
            Path(partial).replace(target)
        finally:
            with contextlib.suppress(FileNotFoundError):
                Path(partial).unlink()
    return target
