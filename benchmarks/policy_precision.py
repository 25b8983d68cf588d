"""The same policy in fp32 and in bf16 on this CPU: seconds to the first token of a cold prompt, and tokens a second.

Each format has a vLLM engine in a process of its own, one after the other. First it reads one cold prompt of the few-shot
format, about 650 tokens, and writes one token. Then it writes 24 tokens for each of 16 problems at once, twice; the second
time counts.

`python -m benchmarks.policy_precision [--model small]`; the last line is JSON. `chosen` is what the policy service takes here
by itself (`ratchet.models.precision`).

Limits: one run of each; what else runs on the machine shows. Three minutes on two cores without bf16 arithmetic.
"""

import argparse
import asyncio
import json
import multiprocessing
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Literal

import torch

from ratchet.contracts.policy import Prefix
from ratchet.models.precision import computes_bf16, serving_dtype
from ratchet.models.sources import resolve
from ratchet.settings import PolicySettings
from ratchet.solutions.step_formats import few_shot
from services.policy.engines.base import Sampling

Dtype = Literal["float32", "bfloat16"]
DTYPES: tuple[Dtype, Dtype] = ("float32", "bfloat16")
BATCH, NEW = 16, 24


def measure(checkpoint: Path, dtype: Dtype) -> dict[str, float]:
    """Figures of one format; runs in a process of its own."""
    return asyncio.run(_measure(checkpoint, dtype))


async def _measure(checkpoint: Path, dtype: Dtype) -> dict[str, float]:
    from services.policy.engines.vllm import VllmEngine

    engine = VllmEngine(checkpoint, "measured@1", dtype=dtype)
    await engine.start()
    form = few_shot()
    texts = [f"A box holds {n + 2} pens. How many pens do {n + 3} boxes hold?" for n in range(BATCH)]
    prompts = engine.encode([form.render(Prefix(problem=text)) for text in texts])
    began = time.monotonic()
    await engine.generate(prompts[:1], Sampling(max_tokens=1, temperature=0.0))
    first = time.monotonic() - began
    speed = 0.0
    for _ in range(2):
        began = time.monotonic()
        written = await engine.generate(prompts, Sampling(max_tokens=NEW, temperature=1.0, seed=1))
        tokens = sum(len(one.logprobs) for row in written for one in row)
        speed = tokens / (time.monotonic() - began)
    await engine.stop()
    return {
        "prompt_tokens": len(prompts[0]),
        "first_token_seconds": round(first, 2),
        "tokens_per_second": round(speed, 1),
    }


def main() -> None:
    """Print the comparison as JSON."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", default="small", help="Local folder, hub id, or a name (default: small).")
    model: str = parser.parse_args().model
    checkpoint = resolve(model, PolicySettings().cache_dir, lambda _: None).path
    found: dict[str, dict[str, float]] = {}
    for dtype in DTYPES:
        with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as process:
            found[dtype] = process.submit(measure, checkpoint, dtype).result()
        print(dtype, found[dtype], flush=True)
    fp32, bf16 = (found[dtype] for dtype in DTYPES)
    print(
        json.dumps(
            {
                "benchmark": "policy_precision",
                "model": model,
                "batch": BATCH,
                "cpu": torch.cpu.get_capabilities().get("cpu_name"),
                "computes_bf16": computes_bf16("cpu"),
                "chosen": str(serving_dtype(checkpoint, torch.bfloat16, "cpu")).removeprefix("torch."),
                **found,
                "fp32_over_bf16": {
                    "first_token": round(bf16["first_token_seconds"] / fp32["first_token_seconds"], 2),
                    "tokens_per_second": round(fp32["tokens_per_second"] / bf16["tokens_per_second"], 2),
                },
            }
        )
    )


if __name__ == "__main__":
    main()
