"""A checkpoint on this machine: whether a folder holds one that may be loaded, and which version it is.

Versions are digests of the weights, so that the same weights have the same version wherever they came from. Safetensors
only: pickled weights can run code when they are loaded.
"""

import contextlib
import errno
import hashlib
import json
import math
import os
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

PICKLED = ("*.bin", "*.pt", "*.pth", "*.ckpt")
TOKENIZER_FILES = (
    "tokenizer*",
    "*.jinja",
    "*.model",
    "merges.txt",
    "vocab.*",
    "added_tokens.json",
    "special_tokens_map.json",
)
"""Patterns of the files that a tokenizer, with its chat template, may consist of."""
CHUNK = 2**20
"""Bytes that are read at once."""


class ModelSourceError(Exception):
    """The model cannot be had; the message says why, and what to do."""


class Source(StrEnum):
    """Where a checkpoint came from."""

    LOCAL = "local"
    PACKAGED = "packaged"
    HUB = "hub"
    MIRROR = "mirror"


@dataclass(frozen=True)
class ResolvedModel:
    """A checkpoint on this machine. `version` is `name@` and the first 8 digits of `sha256` (weights and config)."""

    path: Path
    version: str
    sha256: str
    source: Source


@dataclass(frozen=True)
class Progress:
    """How far one stage is; `total` is None where it is not known. The unit is bytes, or files while downloading."""

    stage: str
    done: int = 0
    total: int | None = None


ProgressCallback = Callable[[Progress], None]


def silent(_: Progress) -> None:
    """A progress callback for those who do not look."""


def local_checkpoint(
    folder: Path,
    cache_dir: Path,
    progress: ProgressCallback = silent,
    *,
    name: str | None = None,
    source: Source = Source.LOCAL,
) -> ResolvedModel:
    """Check that `folder` holds a checkpoint, and find its version. Raises ModelSourceError."""
    folder = folder.resolve()
    if not (folder / "config.json").is_file():
        raise ModelSourceError(f"{folder} is not a checkpoint: it has no config.json.")
    try:
        config = json.loads((folder / "config.json").read_text())
        if not isinstance(config, dict):
            raise ValueError("not an object")
    except (ValueError, OSError) as error:
        raise ModelSourceError(f"{folder}/config.json cannot be read: {error}.") from error
    weights = sorted(folder.glob("*.safetensors"))
    if not weights:
        if any(next(folder.glob(pattern), None) for pattern in PICKLED):
            raise ModelSourceError(
                f"{folder} has only pickled weights, which can run code when they are loaded, so they are refused. "
                "Save the model as safetensors: model.save_pretrained(folder, safe_serialization=True)."
            )
        raise ModelSourceError(f"{folder} is not a checkpoint: it has no *.safetensors files.")
    if not any((folder / file).is_file() for file in ("tokenizer.json", "tokenizer.model", "vocab.json")):
        raise ModelSourceError(
            f"{folder} has no tokenizer: save one there with tokenizer.save_pretrained(folder)."
        )
    for file in weights:
        _check_safetensors(file)
    _check_shards(folder)
    digest = _digest([folder / "config.json", *weights], cache_dir, progress)
    return ResolvedModel(folder, f"{name or folder.name}@{digest[:8]}", digest, source)


def _check_safetensors(file: Path) -> None:
    # Finds a file that was cut off, in microseconds: the header says how long the file is.
    size = file.stat().st_size
    try:
        with file.open("rb") as opened:
            length = int.from_bytes(opened.read(8), "little")
            if length > min(size, 2**27):
                raise ValueError("its header is longer than the file")
            header = json.loads(opened.read(length))
        end = max(
            (info["data_offsets"][1] for key, info in header.items() if key != "__metadata__"), default=0
        )
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ModelSourceError(f"{file} is no intact safetensors file: {error}.") from error
    if size != 8 + length + end:
        raise ModelSourceError(
            f"{file} is damaged: {size} bytes instead of {8 + length + end}. Fetch it again."
        )


def _check_shards(folder: Path) -> None:
    index = folder / "model.safetensors.index.json"
    if not index.is_file():
        return
    try:
        shards = set(json.loads(index.read_text())["weight_map"].values())
    except (ValueError, KeyError, AttributeError) as error:
        raise ModelSourceError(f"{index} cannot be read: {error}.") from error
    if missing := sorted(shard for shard in shards if not (folder / shard).is_file()):
        raise ModelSourceError(f"{folder} is not complete: {', '.join(missing[:3])} missing.")


def file_sha256(file: Path, tell: Callable[[int], None]) -> str:
    digest = hashlib.sha256()
    with file.open("rb") as opened:
        while chunk := opened.read(CHUNK):
            digest.update(chunk)
            tell(len(chunk))
    return digest.hexdigest()


def _digest(files: list[Path], cache_dir: Path, progress: ProgressCallback) -> str:
    """SHA-256 over names and contents. The content's digest is kept by size and time, to hash 1 GB only once."""
    folder = str(files[0].parent)
    record = cache_dir / "digests" / f"{hashlib.sha256(folder.encode()).hexdigest()[:32]}.json"
    known: dict[str, Any] = {}
    with contextlib.suppress(OSError, ValueError):
        read = json.loads(record.read_text())
        known = read if isinstance(read, dict) else {}
    total, done = sum(file.stat().st_size for file in files), 0

    def tell(count: int) -> None:
        nonlocal done
        done += count
        progress(Progress("hashing weights", done, total))

    found: dict[str, Any] = {}
    for file in files:
        stat = file.stat()
        stamp = [stat.st_size, stat.st_mtime_ns, stat.st_ino]
        old = known.get(file.name)
        if isinstance(old, dict) and old.get("stamp") == stamp:
            found[file.name] = old
        else:
            found[file.name] = {"stamp": stamp, "sha256": file_sha256(file, tell)}
    if found != known:
        # Only a convenience: a cache that cannot be written costs time, not correctness.
        with contextlib.suppress(OSError):
            record.parent.mkdir(parents=True, exist_ok=True)
            fresh = record.with_suffix(f".{os.getpid()}.tmp")
            fresh.write_text(json.dumps(found))
            fresh.replace(record)
    lines = "".join(f"{found[file.name]['sha256']}  {file.name}\n" for file in files)
    return hashlib.sha256(lines.encode()).hexdigest()


def gigabytes(count: int) -> float:
    return math.ceil(count / 1e8) / 10


def disk_error(error: OSError, where: Path, need: int | None) -> ModelSourceError:
    if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        amount = f"{gigabytes(need)} GB are needed" if need else "there is not enough space"
        return ModelSourceError(
            f"The disk is full: {amount} in {where}. Nothing half-made was kept. Free some space, or set "
            "RATCHET_CACHE_DIR (HF_HOME for the hub's cache) to a larger disk."
        )
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR):
        return ModelSourceError(
            f"{where} cannot be written ({error.strerror}). Set RATCHET_CACHE_DIR to a folder of yours."
        )
    return ModelSourceError(f"Reading or writing the model under {where} failed: {error}.")
