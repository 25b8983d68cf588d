"""What does it cost to draw the next tokens from a vocabulary of 152k, beside the computing of their logits? On this CPU.

`python -m benchmarks.draws [--repeats 5]`: milliseconds of one draw for 4, 16 and 64 sequences at temperature 0.8, with top-p
0.95 and 1, median of the repeats: `vllm` is what vLLM's own sampler does (its top-p, which sorts, and its draw by exponential
random numbers), `ours` what the policy service does in its place. The last line is a JSON object.

The logits are random, with as few likely tokens as those of a model: thirty stand out by twelve.
"""

import argparse
import json
import statistics
import time
from collections.abc import Callable
from typing import Any

import torch

from services.policy.engines.nucleus import draw

VOCABULARY = 151_936
SEQUENCES = (4, 16, 64)
TOP_P = (0.95, 1.0)
TEMPERATURE = 0.8


def milliseconds(work: Callable[[], object], repeats: int) -> float:
    """The median; once before, it is not counted."""
    taken = []
    for _ in range(1 + repeats):
        began = time.monotonic()
        work()
        taken.append(1000 * (time.monotonic() - began))
    return round(statistics.median(taken[1:]), 2)


def measure(rows: int, top_p: float, repeats: int) -> dict[str, Any]:
    """Both ways on the same logits."""
    from vllm.v1.sample.ops.topk_topp_sampler import apply_top_k_top_p, random_sample

    logits = torch.randn(rows, VOCABULARY, generator=torch.Generator().manual_seed(0))
    logits[:, torch.randperm(VOCABULARY, generator=torch.Generator().manual_seed(1))[:30]] += 12
    p, temperature = torch.full((rows,), top_p), torch.full((rows,), TEMPERATURE)
    numbers = torch.rand(rows, dtype=torch.float64, generator=torch.Generator().manual_seed(2))

    def vllm() -> torch.Tensor:
        tempered = logits.clone().div_(temperature.unsqueeze(1))
        kept = apply_top_k_top_p(tempered, None, p if top_p < 1 else None)
        return random_sample(kept.softmax(dim=-1, dtype=torch.float32), {})

    def ours() -> torch.Tensor:
        changed = logits.clone()
        changed[torch.arange(rows), draw(changed, p, numbers, temperature)] = torch.inf
        return changed.argmax(-1)

    theirs, mine = milliseconds(vllm, repeats), milliseconds(ours, repeats)
    return {
        "sequences": rows,
        "top_p": top_p,
        "vllm_ms": theirs,
        "ours_ms": mine,
        "ratio": round(theirs / mine, 1),
    }


def main() -> None:
    """Print the comparison as JSON."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--repeats", type=int, default=5)
    repeats: int = parser.parse_args().repeats
    found = []
    for top_p in TOP_P:
        for rows in SEQUENCES:
            found.append(measure(rows, top_p, repeats))
            print(found[-1], flush=True)
    print(
        json.dumps(
            {
                "benchmark": "draws",
                "vocabulary": VOCABULARY,
                "threads": torch.get_num_threads(),
                "draws": found,
            }
        )
    )


if __name__ == "__main__":
    main()
