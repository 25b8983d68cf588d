"""The slot decoder against transformers' own forward, and what the engine does around it."""

import asyncio
import time
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tokenizers.decoders import DecodeStream
from transformers import (
    LlamaConfig,
    LlamaForCausalLM,
    Qwen2Config,
    Qwen2ForCausalLM,
    Qwen3Config,
    Qwen3ForCausalLM,
)

from services.policy.engines.base import Ended, Sampling, uniforms
from services.policy.engines.decoders import CachedDecoder, order_without
from services.policy.engines.sequence import Sequence, TokenTexts
from services.policy.engines.slot_decoder import SlotDecoder
from services.policy.engines.transformers import TransformersEngine
from tests.models import make_checkpoint

SIZES: dict[str, Any] = {
    "vocab_size": 97,
    "hidden_size": 48,
    "intermediate_size": 80,
    "num_hidden_layers": 3,
    "num_attention_heads": 6,
    "num_key_value_heads": 2,
    "max_position_embeddings": 256,
    "initializer_range": 0.2,
}
LLAMA3_ROPE = {
    "rope_type": "llama3",
    "rope_theta": 10000.0,
    "factor": 4.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 64,
}


def qwen2(**more: Any) -> Any:
    torch.manual_seed(1)
    return Qwen2ForCausalLM(Qwen2Config(**SIZES | more)).float().eval()


def llama(**more: Any) -> Any:
    torch.manual_seed(2)
    return LlamaForCausalLM(LlamaConfig(**SIZES | more)).float().eval()


@pytest.mark.parametrize(
    "model",
    [
        qwen2(),
        qwen2(tie_word_embeddings=True, head_dim=16),
        llama(rope_parameters=LLAMA3_ROPE, attention_bias=True, mlp_bias=True),
    ],
    ids=["qwen2", "tied, wide heads", "llama3"],
)
def test_the_slot_decoder_computes_what_transformers_does(model: Any) -> None:
    """Sequences of different lengths, some with the same prompt, join and leave midway."""
    torch.manual_seed(3)
    # Biases are born zero; here they must count.
    for name, weight in model.named_parameters():
        if name.endswith("bias"):
            torch.nn.init.normal_(weight, std=0.3)
    assert SlotDecoder.fits(model, "cpu")
    drawn = np.random.default_rng(0)
    prompts = [drawn.integers(0, 97, size).tolist() for size in (5, 30, 1, 17)]
    with torch.inference_mode():
        decoder = SlotDecoder(model, 256, 8)
        rows: list[list[int]] = []
        logits = torch.empty(0, 97)
        for turn in range(90):
            joined = {
                0: [prompts[1], prompts[0], prompts[1]],
                7: [prompts[2]],
                20: [prompts[3], prompts[3]],
            }.get(turn, [])
            if joined:
                rows += [list(prompt) for prompt in joined]
                logits = torch.cat([logits, decoder.add(joined)])
            for row, found in zip(rows, logits, strict=True):
                expected = model(torch.tensor([row])).logits[0, -1]
                assert (found - expected).abs().max() < 1e-4
            if turn in (11, 40):
                kept = order_without([0, 2], len(rows))
                decoder.keep(kept)
                rows = [rows[at] for at in kept]
            tokens = drawn.integers(0, 97, len(rows))
            for row, token in zip(rows, tokens.tolist(), strict=True):
                row.append(token)
            logits = decoder.step(torch.from_numpy(tokens))


def test_the_slot_decoder_leaves_what_it_does_not_know_to_transformers() -> None:
    assert not SlotDecoder.fits(qwen2(hidden_act="gelu"), "cpu")
    assert not SlotDecoder.fits(qwen2(use_sliding_window=True, sliding_window=8, max_window_layers=1), "cpu")
    assert not SlotDecoder.fits(
        llama(rope_parameters={"rope_type": "dynamic", "rope_theta": 1e4, "factor": 2.0}), "cpu"
    )
    assert not SlotDecoder.fits(Qwen3ForCausalLM(Qwen3Config(**SIZES)), "cpu")
    with torch.device("meta"):
        assert not SlotDecoder.fits(Qwen2ForCausalLM(Qwen2Config()), "cpu"), "7 B parameters are not small"
        assert SlotDecoder.fits(Qwen2ForCausalLM(Qwen2Config()), "cuda")


@pytest.mark.parametrize(
    ("count", "gone"), [(1, [0]), (5, [4]), (5, [0, 3]), (6, [1, 4, 5]), (4, [0, 1, 2, 3]), (3, [])]
)
def test_rows_that_stay_keep_their_place_where_they_can(count: int, gone: list[int]) -> None:
    order = order_without(gone, count)
    assert sorted(order) == [row for row in range(count) if row not in gone]
    assert sum(to != row for to, row in enumerate(order)) <= len(gone)


def test_uniforms_are_splitmix64_at_a_given_place() -> None:
    # The published values for this seed.
    known = [6457827717110365317, 3203168211198807973, 9817491932198370423, 4593380528125082431]
    places = np.arange(4, dtype=np.uint64)
    assert uniforms(np.full(4, 1234567, np.uint64), places).tolist() == [
        (value >> 11) / 2**53 for value in known
    ]
    assert uniforms(np.array([9, 1234567], np.uint64), places[2:])[1] == (known[3] >> 11) / 2**53


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_checkpoint(tmp_path_factory.mktemp("models") / "tiny")


@pytest.fixture(scope="module")
def tokenizer(checkpoint: Path) -> Any:
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(checkpoint).backend_tokenizer


@pytest.mark.parametrize("alphabet", ["ascii", "all"])
def test_text_written_late_is_what_writing_token_by_token_gives(tokenizer: Any, alphabet: str) -> None:
    texts = TokenTexts(tokenizer)
    drawn = np.random.default_rng(5)
    tokens = [token for token in range(1, tokenizer.get_vocab_size()) if alphabet == "all" or texts[token]]
    stops = ("# S", "o", "ä", "\ufffd\ufffd\ufffd", "<end_of_step>")
    met = set()
    for trial in range(300):
        stop = stops[: 1 + trial % len(stops)][-2:]
        limit = int(drawn.integers(1, 40))
        sequence = Sequence([], Sampling(max_tokens=limit, stop=stop), 0, None)  # type: ignore[arg-type]
        stream, text, ends, ids = DecodeStream(skip_special_tokens=False), "", [], []
        while True:
            token = 0 if drawn.random() < 0.02 else int(drawn.choice(tokens))
            ids.append(token)
            done = sequence.take(token, -1.0, {0}, texts)
            if token:
                text += stream.step(tokenizer, token) or ""
            ends.append(len(text))
            hit = min(((text.find(each), each) for each in stop if each in text), default=None)
            if token == 0 or hit or len(ids) == limit:
                break
            assert done is None
        assert done is not None
        assert list(done.ends) == ends
        if token == 0:
            assert (done.ended, done.text) == (
                Ended.EOS,
                tokenizer.decode(ids[:-1], skip_special_tokens=False),
            )
        elif hit:
            assert (done.ended, done.stopped_by, done.text) == (Ended.STOP, hit[1], text[: hit[0]])
        else:
            assert (done.ended, done.text) == (Ended.LENGTH, tokenizer.decode(ids, skip_special_tokens=False))
        met.add(done.ended)
    assert met == set(Ended)


async def test_late_comers_join_the_batch_that_runs(checkpoint: Path) -> None:
    engine = TransformersEngine(checkpoint, "tiny@1", max_num_seqs=4, device="cpu")
    await engine.start()
    try:
        engine._ends = set()
        [prompt] = engine.encode(["x"])
        begun = asyncio.create_task(
            engine.generate([prompt], Sampling(n=2, max_tokens=4000, temperature=2.0, seed=1))
        )
        await asyncio.sleep(0.2)
        began = time.perf_counter()
        await engine.generate([prompt], Sampling(n=2, max_tokens=3, seed=1))
        assert time.perf_counter() - began < 1
        assert not begun.done(), "the long batch ended too early to show anything"
        begun.cancel()
    finally:
        await engine.stop()


async def test_both_decoders_draw_the_same(checkpoint: Path) -> None:
    engine = TransformersEngine(checkpoint, "tiny@1", max_num_seqs=8, dtype=torch.float32, device="cpu")
    await engine.start()
    try:
        prompts = engine.encode(["x", "# Step 1: Count", "cups"])
        sampling = Sampling(n=5, max_tokens=30, temperature=0.9, top_p=0.9, seed=4, stop=("e",))
        assert isinstance(engine._decoder, SlotDecoder)
        small = await engine.generate(prompts, sampling)
        engine._decoder = CachedDecoder(engine._model, "cpu")
        plain = await engine.generate(prompts, sampling)
        for mine, theirs in zip(chain(*small), chain(*plain), strict=True):
            assert (mine.text, mine.ends, mine.ended) == (theirs.text, theirs.ends, theirs.ended)
            assert mine.logprobs == pytest.approx(theirs.logprobs, abs=1e-4)
    finally:
        await engine.stop()
