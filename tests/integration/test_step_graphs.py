"""Recorded steps on CUDA draw what plain ones draw. Most of it needs a GPU, and is skipped without one."""

from typing import Any

import numpy as np
import pytest
import torch
from transformers import Qwen2Config, Qwen2ForCausalLM

from services.policy.engines.decoders import order_without
from services.policy.engines.drawing import draw_rows
from services.policy.engines.sequence import ROW
from services.policy.engines.slot_decoder import SlotDecoder
from services.policy.engines.step_graphs import LEAST_ROWS, rows_for

SIZES: dict[str, Any] = {
    "vocab_size": 1000,
    "hidden_size": 48,
    "intermediate_size": 80,
    "num_hidden_layers": 3,
    "num_attention_heads": 6,
    "num_key_value_heads": 2,
    "max_position_embeddings": 1024,
    "initializer_range": 0.3,
}


def test_few_sizes_are_recorded_and_each_batch_fits_one() -> None:
    sizes = {rows_for(count, 512) for count in range(1, 513)}
    assert len(sizes) <= 12
    assert min(sizes) == LEAST_ROWS
    assert max(sizes) == 512
    assert all(count <= rows_for(count, 512) <= max(LEAST_ROWS, 1.5 * count) for count in range(1, 513))
    assert rows_for(20, 20) == 20, "no more rows than are allocated"


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_what_is_recorded_draws_what_the_plain_way_draws() -> None:
    """Sequences join and leave, are greedy and wild, and the cache grows, so that what was recorded is forgotten."""
    torch.manual_seed(1)
    model = Qwen2ForCausalLM(Qwen2Config(**SIZES)).float().eval().to("cuda")
    drawn = np.random.default_rng(0)
    prompts = [drawn.integers(0, 997, size).tolist() for size in (5, 30, 1, 17)]
    joining = {
        0: [prompts[1], prompts[0], prompts[1]],
        7: [prompts[2]],
        20: [prompts[3]] * 20,
        30: [prompts[1] * 17],
    }
    differing = total = 0
    with torch.inference_mode():
        recorded, plain = (SlotDecoder(model, 1024, 40, "cuda", recorded=how) for how in (True, False))
        rows, chosen = np.empty(0, ROW), torch.empty(0, dtype=torch.long)
        for turn in range(120):
            parts = []
            if len(rows):
                found, expected = recorded.next(chosen, rows), plain.next(chosen, rows)
                same = found[0] == expected[0]
                differing, total = differing + int((~same).sum()), total + len(rows)
                assert (found[1] - expected[1])[same].abs().max() < 1e-3
                parts.append(found)
            if joined := joining.get(turn):
                new = np.zeros(len(joined), ROW)
                new["seed"] = drawn.integers(0, 2**62, len(joined))
                new["temperature"] = drawn.choice([0, 0.5, 1.0, 3.0], len(joined))
                new["top_p"] = drawn.choice([0.5, 0.95, 1.0], len(joined))
                logits = recorded.add(joined)
                assert (logits - plain.add(joined)).abs().max() < 1e-3
                rows = np.concatenate([rows, new])
                parts.append(draw_rows(logits, new))
            chosen = torch.cat([part[0] for part in parts])
            rows["drawn"] += np.uint64(1)
            if turn in (11, 40):
                kept = order_without([0, 2], len(rows))
                recorded.keep(kept)
                plain.keep(kept)
                rows, chosen = rows[kept], chosen[kept]
    assert total > 2000
    # fp32 may put the border of two tokens at the two sides of a number.
    assert differing <= 2
