"""In which number format models compute here: bf16 where the machine multiplies it, fp32 where it would only convert.

A CPU without bf16 arithmetic (most laptops; servers before AVX-512 BF16) converts its numbers for every product: a policy of
0.5 B parameters wrote four times as many tokens a second in fp32 there (`python -m benchmarks.policy_precision`).
"""

from pathlib import Path
from typing import TYPE_CHECKING

import structlog

if TYPE_CHECKING:
    import torch

log = structlog.get_logger()

MEMORY_SHARE = 0.5
"""Of the memory that is free, for weights in fp32: beyond it they stay in bf16, slow as they are."""
_MULTIPLIES_BF16 = ("avx512_bf16", "amx_bf16", "arm_bf16", "bf16")


def computes_bf16(device: str) -> bool:
    """Whether `device`, as torch names it, multiplies bf16 itself."""
    import torch

    if torch.device(device).type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    able = torch.cpu.get_capabilities()
    return any(able.get(name) for name in _MULTIPLIES_BF16)


def serving_dtype(checkpoint: Path, stored: "torch.dtype | None", device: str) -> "torch.dtype":
    """In which the weights in `checkpoint`, kept there in `stored`, are served on `device`.

    What is kept in fp32 is served in fp32, all else in bf16; on a CPU that does not multiply bf16 in fp32 too, if the
    memory is there.
    """
    import psutil
    import torch

    if stored == torch.float32:
        return torch.float32
    if torch.device(device).type != "cpu" or computes_bf16(device):
        return torch.bfloat16
    size = 2 * sum(file.stat().st_size for file in checkpoint.glob("*.safetensors"))
    free = psutil.virtual_memory().available
    if size > MEMORY_SHARE * free:
        log.warning(
            "served in bf16, which this CPU computes slowly: too little memory for fp32",
            fp32_bytes=size,
            free_bytes=free,
        )
        return torch.bfloat16
    return torch.float32
