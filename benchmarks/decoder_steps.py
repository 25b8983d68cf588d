"""How long does the transformers engine's decoder take for a token of a batch, recorded and not?

`python -m benchmarks.decoder_steps CHECKPOINT [--rows 64,256,512] [--prompt 200] [--tokens 40]` fills batches with random
prompts on the GPU and decodes some tokens. The last line is a JSON object: milliseconds for each token of the whole batch,
drawing included, `recorded` (step and draw replayed as one CUDA graph) and `plain` (each operation launched by itself), and
in how many sequences the two differ. On a CPU nothing is recorded, and only `plain` is told.

Limit: what requests cost (HTTP, tokenizer, stop strings) is not in it.
"""

import argparse
import statistics
import time
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import torch

from ratchet.models.precision import serving_dtype
from services.policy.engines.drawing import draw_rows
from services.policy.engines.sequence import ROW
from services.policy.engines.slot_decoder import SlotDecoder

WARM_UP = 5
"""Tokens that do not count: the first one of a size is recorded."""


def batch_of(vocabulary: int, count: int, length: int) -> tuple[list[list[int]], Any]:
    """Prompts, and how their sequences are drawn."""
    drawn = np.random.default_rng(count)
    rows = np.zeros(count, ROW)
    rows["seed"], rows["temperature"], rows["top_p"] = drawn.integers(0, 2**62, count), 0.8, 0.95
    return drawn.integers(0, vocabulary, (count, length)).tolist(), rows


def decode(
    decoder: SlotDecoder, vocabulary: int, count: int, length: int, tokens: int
) -> tuple[float, torch.Tensor]:
    """The median milliseconds of a token, and all that was drawn [tokens, count]."""
    prompts, rows = batch_of(vocabulary, count, length)
    chosen, _ = draw_rows(decoder.add(prompts), rows)
    found, milliseconds = [chosen], []
    for _ in range(tokens + WARM_UP):
        rows["drawn"] += np.uint64(1)
        began = time.perf_counter()
        # The tokens come to the CPU, so the device has finished.
        chosen, _ = decoder.next(chosen, rows)
        milliseconds.append(1e3 * (time.perf_counter() - began))
        found.append(chosen)
    return statistics.median(milliseconds[WARM_UP:]), torch.stack(found)


def measure(checkpoint: Path, counts: list[int], length: int, tokens: int) -> dict[str, Any]:
    """All figures."""
    from transformers import AutoConfig, AutoModelForCausalLM

    device = "cuda" if torch.cuda.is_available() else "cpu"
    stored = AutoConfig.from_pretrained(checkpoint, local_files_only=True).dtype
    model: Any = AutoModelForCausalLM.from_pretrained(
        checkpoint,
        dtype=serving_dtype(checkpoint, stored, device),
        local_files_only=True,
        use_safetensors=True,
    )
    model = model.to(device).eval()
    vocabulary = int(model.config.vocab_size)
    ways = {"recorded": True, "plain": False} if device == "cuda" else {"plain": False}
    cells: list[dict[str, Any]] = []
    for count in counts:
        cell: dict[str, Any] = {"rows": count}
        drawn = []
        for way, recorded in ways.items():
            decoder = SlotDecoder(model, 4096, max(counts), device, recorded=recorded)
            cell[way], tokens_of = decode(decoder, vocabulary, count, length, tokens)
            cell[way] = round(cell[way], 2)
            drawn.append(tokens_of)
        # After a first difference the texts go apart: only whether a sequence differs at all is told.
        cell["sequences_that_differ"] = int((drawn[0] != drawn[-1]).any(0).sum())
        cells.append(cell)
    return {
        "benchmark": "decoder_steps",
        "device": torch.cuda.get_device_name(0) if device == "cuda" else "cpu",
        "torch": torch.__version__,
        "prompt": length,
        "tokens": tokens,
        "milliseconds_a_token": cells,
    }


def main() -> None:
    """Measure, and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("--rows", default="64,256,512", help="sizes of the batch")
    parser.add_argument("--prompt", type=int, default=200, help="tokens of each prompt")
    parser.add_argument("--tokens", type=int, default=40, help="that are decoded")
    asked = parser.parse_args()
    with torch.inference_mode():
        found = measure(
            asked.checkpoint, [int(each) for each in asked.rows.split(",")], asked.prompt, asked.tokens
        )
    print(orjson.dumps(found).decode())


if __name__ == "__main__":
    main()
