"""The same policy in fp32, bf16 and int8 on this CPU: seconds to the first token of a cold prompt, and tokens a second.

Each format has a vLLM engine in a process of its own, one after the other. First it reads one cold prompt of the few-shot
format, about 650 tokens, and writes one token. Then it writes 48 tokens for each of 4, 16 and 64 problems at once: once to
warm up, and three times of which the median counts.

`python -m benchmarks.policy_precision [--model small] [--formats bfloat16,int8]`; the last line is JSON. `chosen` is what the
policy service takes here by itself (`ratchet.models.precision`).

Limits: a prompt is read once; what else runs on the machine shows. Some minutes on two cores.
"""

import argparse
import asyncio
import json
import multiprocessing
import statistics
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, cast

import torch

from ratchet.contracts.policy import Prefix
from ratchet.models.precision import computes_bf16, serving_dtype
from ratchet.models.sources import resolve
from ratchet.settings import PolicySettings
from ratchet.solutions.step_formats import few_shot
from services.policy.engines.base import Sampling, Tokens

if TYPE_CHECKING:
    from services.policy.engines.vllm import VllmEngine

Dtype = Literal["float32", "bfloat16"]

FORMATS = ("float32", "bfloat16", "int8")
BATCH, NEW, TIMES = 16, 48, 3
BATCHES = (4, BATCH, 64)


def measure(checkpoint: Path, number_format: str) -> dict[str, Any]:
    """Figures of one format; runs in a process of its own."""
    return asyncio.run(_measure(checkpoint, number_format))


async def _measure(checkpoint: Path, number_format: str) -> dict[str, Any]:
    from services.policy.engines.vllm import VllmEngine

    began = time.monotonic()
    if number_format == "int8":
        engine = VllmEngine(checkpoint, "measured@1", int8_cache=PolicySettings().cache_dir)
    else:
        engine = VllmEngine(checkpoint, "measured@1", dtype=cast("Dtype", number_format))
    await engine.start()
    started = time.monotonic() - began
    form = few_shot()
    texts = [f"A box holds {n + 2} pens. How many pens do {n + 3} boxes hold?" for n in range(max(BATCHES))]
    prompts = engine.encode([form.render(Prefix(problem=text)) for text in texts])
    began = time.monotonic()
    await engine.generate(prompts[:1], Sampling(max_tokens=1, temperature=0.0))
    first = time.monotonic() - began
    speed: dict[int, float] = {}
    for batch in BATCHES:
        speeds = [await _tokens_per_second(engine, prompts[:batch]) for _ in range(1 + TIMES)]
        speed[batch] = statistics.median(speeds[1:])
    await engine.stop()
    return {
        "prompt_tokens": len(prompts[0]),
        "start_seconds": round(started, 1),
        "first_token_seconds": round(first, 2),
        "tokens_per_second": round(speed[BATCH], 1),
        "by_batch": {str(batch): round(each, 1) for batch, each in speed.items()},
    }


async def _tokens_per_second(engine: "VllmEngine", prompts: list[Tokens]) -> float:
    began = time.monotonic()
    written = await engine.generate(prompts, Sampling(max_tokens=NEW, temperature=1.0, seed=1))
    return sum(len(one.logprobs) for row in written for one in row) / (time.monotonic() - began)


def main() -> None:
    """Print the comparison as JSON."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", default="small", help="Local folder, hub id, or a name (default: small).")
    parser.add_argument(
        "--formats",
        default=",".join(FORMATS),
        help="Of these, the first is what the others are compared with.",
    )
    options = parser.parse_args()
    model, formats = options.model, options.formats.split(",")
    if unknown := set(formats) - set(FORMATS):
        parser.error(f"no format: {', '.join(sorted(unknown))}; there are {', '.join(FORMATS)}")
    checkpoint = resolve(model, PolicySettings().cache_dir, lambda _: None).path
    found: dict[str, dict[str, Any]] = {}
    for each in formats:
        with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as process:
            found[each] = process.submit(measure, checkpoint, each).result()
        print(each, found[each], flush=True)
    first = found[formats[0]]
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
                "faster_than_the_first": {
                    each: {
                        "first_token": round(
                            first["first_token_seconds"] / found[each]["first_token_seconds"], 2
                        ),
                        "by_batch": {
                            batch: round(found[each]["by_batch"][batch] / first["by_batch"][batch], 2)
                            for batch in first["by_batch"]
                        },
                    }
                    for each in formats[1:]
                },
            }
        )
    )


if __name__ == "__main__":
    main()
