"""Checkpoints with 8-bit weights, for CPUs that multiply bytes: half of the memory that each token has to read.

W8A8 in the form of compressed-tensors: of each linear layer of the network the weights as int8, with one scale for each
output (its largest magnitude is 127), while activations are rounded at run time, with one scale for each token. Embeddings,
norms and the output layer stay as they are. No data are needed: to write one takes seconds. What it gains, and what it does to
answers: docs/measurements/precision.md.

Source: LLM.int8() (arXiv 2208.07339) without its outliers; the form is that of vLLM's `compressed-tensors`.
"""

import json
import os
import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from ratchet.models.checkpoint import TOKENIZER_FILES, local_checkpoint
from ratchet.models.precision import computes_bf16

if TYPE_CHECKING:
    import torch

WEIGHTS = "model.safetensors"
LARGEST = 127
KEPT = 4
"""8-bit forms in the cache: of the base, and of the versions that a round holds beside it."""
_PROJECTION = "_proj.weight"
"""How the names of a decoder's linear layers end; that of the output layer does not."""
_MULTIPLIES_BYTES = ("amx_int8", "avx512_vnni")
_OTHER_FILES = ("generation_config.json",)
_NUMBER = {"num_bits": 8, "type": "int", "symmetric": True}
_QUANTISATION = {
    "quant_method": "compressed-tensors",
    "format": "int-quantized",
    "quantization_status": "compressed",
    "config_groups": {
        "group_0": {
            "targets": ["Linear"],
            "weights": {**_NUMBER, "strategy": "channel", "dynamic": False},
            "input_activations": {**_NUMBER, "strategy": "token", "dynamic": True},
        }
    },
    "ignore": ["lm_head"],
}


def computes_int8() -> bool:
    """Whether this CPU multiplies bytes itself, and bf16, in which all else is computed."""
    import torch

    able = torch.cpu.get_capabilities()
    return computes_bf16("cpu") and any(able.get(name) for name in _MULTIPLIES_BYTES)


def int8_checkpoint(checkpoint: Path, cache_dir: Path) -> Path:
    """The folder with the 8-bit form of a checkpoint, written where there is none; the last KEPT that were asked for stay.

    Raises ModelSourceError, OSError, and ValueError where the checkpoint has no linear layers by the names that decoders have,
    or is quantised already.
    """
    target = cache_dir / "int8" / local_checkpoint(checkpoint, cache_dir).sha256[:16]
    if target.is_dir():
        os.utime(target)
        return target
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=f".{target.name}-") as work_name:
        work = Path(work_name) / "checkpoint"
        work.mkdir()
        _write(checkpoint, work)
        try:
            work.rename(target)
        except OSError:
            # Another process was faster: what it wrote is the same.
            if not target.is_dir():
                raise
    older = sorted(target.parent.glob("[!.]*"), key=lambda folder: -folder.stat().st_mtime)[KEPT:]
    for folder in older:
        shutil.rmtree(folder, ignore_errors=True)
    return target


def _write(checkpoint: Path, target: Path) -> None:
    config = json.loads((checkpoint / "config.json").read_bytes())
    if config.get("quantization_config"):
        raise ValueError(f"{checkpoint} is quantised already")
    kept: dict[str, torch.Tensor] = {}
    from safetensors import safe_open
    from safetensors.torch import save_file

    for file in sorted(checkpoint.glob("*.safetensors")):
        with safe_open(file, framework="pt") as opened:
            for name in opened.keys():  # noqa: SIM118 - no mapping
                tensor = opened.get_tensor(name)
                if not name.endswith(_PROJECTION):
                    kept[name] = tensor
                else:
                    kept[name], kept[f"{name}_scale"] = quantised(tensor)
    if not any(name.endswith("_scale") for name in kept):
        raise ValueError(f"{checkpoint} has no linear layers whose names end in {_PROJECTION}")
    save_file(kept, target / WEIGHTS, metadata={"format": "pt"})
    config["quantization_config"] = _QUANTISATION
    (target / "config.json").write_text(json.dumps(config, indent=2) + "\n")
    for pattern in (*TOKENIZER_FILES, *_OTHER_FILES):
        for file in checkpoint.glob(pattern):
            shutil.copy2(file, target / file.name)
    for file in target.iterdir():
        with file.open("rb") as opened_file:
            os.fsync(opened_file.fileno())


def quantised(weight: "torch.Tensor") -> "tuple[torch.Tensor, torch.Tensor]":
    """int8 [out, in] and the scales, fp32 [out, 1], of a weight [out, in]: their product is the weight, rounded."""
    import torch

    wide = weight.float()
    scale = wide.abs().amax(1, keepdim=True).clamp_min(torch.finfo(torch.float32).tiny) / LARGEST
    return (wide / scale).round().to(torch.int8), scale
