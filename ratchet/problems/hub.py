"""Data sets of the Hugging Face hub: the Parquet, JSON or CSV files of one split are fetched, and read as files.

Split and config are found by the names of the files, as the hub's own convention has them: `main/train-00000-of-00001.parquet`,
`data/train-….parquet`, `test.jsonl`, `default/train/0000.parquet`. Nothing of a data set is ever run or unpickled.

Limits: other layouts are not guessed; a data set of another kind has its Parquet files at the revision
`refs/convert/parquet`. Without the hub, what its cache holds is taken.
"""

import os
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from ratchet.problems.files import KINDS, is_problem_file, read_file, without_suffix
from ratchet.problems.problem import Problem, ProblemFileError, Refused
from ratchet.problems.records import USUAL, Naming

HUB_SECONDS = 10.0
MAX_BYTES = 2 * 2**30
"""Files of one split; a set of problems is a few MB, and more than this is a typing error or another kind of data."""
ALL = "all"
ABOUT = frozenset(["dataset_info.json", "dataset_infos.json", "dataset_dict.json", "state.json"])
"""Files about a data set, which lie beside its data."""

SHORTHANDS = {
    "gsm8k": ("openai/gsm8k", "main"),
    "math": ("EleutherAI/hendrycks_math", ALL),
    "math500": ("HuggingFaceH4/MATH-500", None),
}
"""Data set and config that a name stands for."""


@dataclass(frozen=True)
class HubSplit:
    """Which files of which data set."""

    dataset: str
    split: str = "train"
    config: str | None = None
    """A folder of the data set; `all` takes every folder, None the only one there is."""
    revision: str | None = None
    """Branch, tag or commit; None is `main`."""


def read_hub(
    wanted: HubSplit,
    cache_dir: Path | None = None,
    hub: str | None = None,
    naming: Naming = USUAL,
    records: str | None = None,
) -> Iterator[Problem | Refused]:
    """The problems of a split. Raises ProblemFileError.

    `cache_dir` is the hub library's cache, None its usual place; `hub` its address, None HF_ENDPOINT or the public one.
    """
    folder, names = _fetch(wanted, cache_dir, hub)
    for name in names:
        yield from read_file(folder / name, f"{wanted.dataset}/{name}", naming, records)


def choose(names: Iterable[str], wanted: HubSplit) -> list[str]:
    """The files of a data set that hold the split. Raises ProblemFileError that names what there is."""
    files = sorted(PurePosixPath(name) for name in names if _holds_data(name))
    what = f"The data set {wanted.dataset}"
    if not files:
        raise ProblemFileError(
            f"{what} has no Parquet, JSON or CSV files. Try revision=refs/convert/parquet, where the hub keeps "
            "Parquet copies of most data sets."
        )
    by_config: dict[str, list[PurePosixPath]] = {}
    for file in files:
        in_folder = wanted.split in file.parts[:-1]
        if in_folder or re.fullmatch(rf"{re.escape(wanted.split)}([-_.]\d.*)?", without_suffix(file.name)):
            folders = [part for part in file.parts[:-1] if part not in (wanted.split, "data")]
            by_config.setdefault("/".join(folders) or "default", []).append(file)
    if not by_config:
        shown = ", ".join(map(str, files[:8])) + (", …" if len(files) > 8 else "")
        raise ProblemFileError(f"{what} has no files of the split {wanted.split!r}; its files: {shown}.")
    config = wanted.config or ("default" if "default" in by_config else None)
    if config is None and len(by_config) == 1:
        config = next(iter(by_config))
    if config != ALL:
        if config not in by_config:
            wrong = f"no config {config!r}" if config else "several configs"
            raise ProblemFileError(
                f"{what} has {wrong}: add config= with one of {', '.join(sorted(by_config))}, or {ALL}."
            )
        by_config = {config: by_config[config]}
    found = [file for group in by_config.values() for file in group]
    # A data set may hold the same rows in several formats.
    of_kind = ([str(file) for file in found if kind in file.suffixes] for kind in KINDS)
    return next(filter(None, of_kind))


def _holds_data(name: str) -> bool:
    return is_problem_file(name) and PurePosixPath(name).name not in ABOUT


def _fetch(wanted: HubSplit, cache_dir: Path | None, hub: str | None) -> tuple[Path, list[str]]:
    """A folder, and the names of the split's files in it: from the hub, or without it from its library's cache."""
    from huggingface_hub import HfApi, snapshot_download
    from huggingface_hub.errors import (  # type: ignore[attr-defined]
        GatedRepoError,
        HFValidationError,
        # Of the HTTP client that this version of the library uses: httpx, or since 2.0 httpx2.
        HTTPError,
        LocalEntryNotFoundError,
        OfflineModeIsEnabled,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    address = (hub or os.environ.get("HF_ENDPOINT") or "https://huggingface.co").rstrip("/")
    dataset = wanted.dataset
    try:
        info = HfApi(endpoint=address).dataset_info(
            dataset, revision=wanted.revision, timeout=HUB_SECONDS, files_metadata=True
        )
        sizes = {file.rfilename: file.size or 0 for file in info.siblings or []}
        chosen = choose(sizes, wanted)
        if (total := sum(sizes[name] for name in chosen)) > MAX_BYTES:
            raise ProblemFileError(
                f"The split {wanted.split} of {dataset} has {total / 1e9:.1f} GB, more than {MAX_BYTES / 1e9:.1f}: "
                "name a smaller config or split."
            )
        folder = snapshot_download(
            dataset,
            repo_type="dataset",
            revision=wanted.revision,
            allow_patterns=chosen,
            endpoint=address,
            cache_dir=cache_dir,
            etag_timeout=HUB_SECONDS,
        )
        return Path(folder), chosen
    except (RepositoryNotFoundError, GatedRepoError) as error:
        # The hub says 401 for a name that does not exist as well as for a private one.
        raise ProblemFileError(
            f"The hub has no data set {dataset} for you: check the spelling; for a gated or private one set HF_TOKEN."
        ) from error
    except RevisionNotFoundError as error:
        raise ProblemFileError(f"The data set {dataset} has no revision {wanted.revision!r}.") from error
    except HFValidationError as error:
        raise ProblemFileError(f"{dataset!r} is no data set id like org/name.") from error
    except (HTTPError, OfflineModeIsEnabled, LocalEntryNotFoundError) as error:
        return _from_cache(wanted, cache_dir, error)
    except OSError as error:
        raise ProblemFileError(
            f"The files of {dataset} cannot be kept: {error.strerror or error}."
        ) from error


def _from_cache(wanted: HubSplit, cache_dir: Path | None, unreachable: Exception) -> tuple[Path, list[str]]:
    """As `_fetch`, of what the cache holds. Raises ProblemFileError that says why the hub was not asked."""
    from huggingface_hub.errors import LocalEntryNotFoundError

    try:
        # What the cache's folder holds is seen first, by asking for nothing of it; then all of the split must be there.
        chosen = choose(_file_names(_cache_folder(wanted, cache_dir, [])), wanted)
        patterns = (
            [f"*{wanted.split}*"] if wanted.config == ALL else [re.sub(r"\d+", "*", name) for name in chosen]
        )
        cached = _cache_folder(wanted, cache_dir, patterns)
        return cached, choose(_file_names(cached), wanted)
    except (LocalEntryNotFoundError, ProblemFileError) as error:
        raise ProblemFileError(
            f"The hub cannot be reached for {wanted.dataset} ({type(unreachable).__name__}: {unreachable}), and its cache does "
            "not hold these files. Give a local Parquet or JSON Lines file instead."
        ) from error


def _cache_folder(wanted: HubSplit, cache_dir: Path | None, patterns: list[str]) -> Path:
    """The cache's folder of the data set. Raises LocalEntryNotFoundError unless all files of the patterns are there."""
    from huggingface_hub import snapshot_download

    return Path(
        snapshot_download(
            wanted.dataset,
            repo_type="dataset",
            revision=wanted.revision,
            allow_patterns=patterns,
            cache_dir=cache_dir,
            local_files_only=True,
        )
    )


def _file_names(folder: Path) -> list[str]:
    return [file.relative_to(folder).as_posix() for file in folder.rglob("*") if file.is_file()]
