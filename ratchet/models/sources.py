"""What the word after `--model` means: a folder, a hub id, or a name; it becomes a folder with a checkpoint.

`nano` comes with the code. Any other name is one row of `MIRRORS`: first the cache, then the hub, then the mirror. `auto` is
that which this machine serves well (docs/measurements/prompts.md).
"""

import re
from collections.abc import Sequence
from pathlib import Path

from ratchet.models.checkpoint import (
    ModelSourceError,
    ProgressCallback,
    ResolvedModel,
    Source,
    disk_error,
    file_sha256,
    local_checkpoint,
    silent,
)
from ratchet.models.hub import from_hub
from ratchet.models.mirror import MIRRORS, Mirror, from_mirror, locked
from ratchet.models.precision import computes_bf16
from ratchet.settings import BEST_HERE

NANO = "nano"
ROOMY_BYTES = 15 * 2**30
"""Memory of a machine on which `medium` is served: it takes 8 GB, the system around it 2, and programs some."""
# In a checkout the weights lie beside the recipe that makes them; a wheel carries them inside the package.
NANO_FOLDERS = (
    Path(__file__).parents[2] / "models" / "nano" / "policy",
    Path(__file__).parent / "nano",
)
DIGESTS_FILE = "SHA256SUMS"


def resolve(
    model: str,
    cache_dir: Path,
    progress: ProgressCallback = silent,
    mirrors: dict[str, Mirror] = MIRRORS,
    hub: str | None = None,
) -> ResolvedModel:
    """A checkpoint folder for `model`: a name, `auto`, a hub id (`org/name`), or a local folder.

    `hub` is the hub's address; None takes HF_ENDPOINT or the public one. Raises ModelSourceError.
    """
    cache_dir = cache_dir.expanduser()
    if model == BEST_HERE:
        model = best_here()
    if model == NANO:
        return _packaged_checkpoint(NANO, NANO_FOLDERS, cache_dir, progress)
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
        path = from_hub(model, progress, hub)
        return local_checkpoint(path, cache_dir, progress, name=model.split("/")[1], source=Source.HUB)
    raise ModelSourceError(
        f"There is no model {model!r}: it is not a folder, not a hub id like org/name, and not one of the names "
        f"{', '.join(sorted([BEST_HERE, NANO, *mirrors]))}."
    )


def best_here() -> str:
    """`medium` where it finds memory and a processor that multiplies bf16, or a GPU; otherwise `small`."""
    import psutil
    import torch

    if torch.cuda.is_available():
        return "medium"
    return "medium" if computes_bf16("cpu") and psutil.virtual_memory().total >= ROOMY_BYTES else "small"


def _packaged_checkpoint(
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
        if not (folder / file).is_file() or file_sha256(folder / file, lambda _: None) != digest:
            raise ModelSourceError(
                f"{folder / file} is not the published file: its SHA-256 differs from {DIGESTS_FILE}. Restore it, or make "
                f"the weights again: make {name}."
            )
    return local_checkpoint(folder, cache_dir, progress, name=name, source=Source.PACKAGED)


def _resolve_name(
    name: str, mirror: Mirror, cache_dir: Path, progress: ProgressCallback, hub: str | None
) -> ResolvedModel:
    target = cache_dir / "models" / name
    # A folder appears here by one rename, so it is complete when it is there.
    if not target.is_dir():
        try:
            with locked(cache_dir / "locks" / f"{name}.lock", progress):
                if not target.is_dir():
                    try:
                        path = from_hub(mirror.hub_id, progress, hub)
                        return local_checkpoint(path, cache_dir, progress, name=name, source=Source.HUB)
                    except ModelSourceError as no_hub:
                        from_mirror(name, mirror, target, progress, str(no_hub))
        except OSError as error:
            raise disk_error(error, cache_dir, mirror.size + mirror.converted_size) from error
    return local_checkpoint(target, cache_dir, progress, name=name, source=Source.MIRROR)
