"""A tiny GGUF file of the qwen2 architecture."""

from pathlib import Path

import gguf
import numpy as np
import pytest
from tokenizers.pre_tokenizers import ByteLevel


@pytest.fixture(scope="module")
def gguf_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny qwen2 with every kind of tensor that the real file has."""
    path = tmp_path_factory.mktemp("gguf") / "tiny.gguf"
    random = np.random.default_rng(0)
    writer = gguf.GGUFWriter(path, "qwen2")
    hidden, inner, words = 256, 512, 272
    writer.add_block_count(1)
    writer.add_context_length(512)
    writer.add_embedding_length(hidden)
    writer.add_feed_forward_length(inner)
    writer.add_head_count(4)
    writer.add_head_count_kv(2)
    writer.add_rope_freq_base(10_000.0)
    writer.add_layer_norm_rms_eps(1e-6)
    alphabet = sorted(ByteLevel.alphabet())
    special = ["<|endoftext|>", "<|im_end|>"]
    merged = ["Ġ1", "ab"]
    tokens = alphabet + merged + special
    tokens += [f"<|unused_{number}|>" for number in range(words - len(tokens))]
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("qwen2")
    writer.add_token_list(tokens)
    plain = len(alphabet) + len(merged)
    writer.add_token_types([1] * plain + [3] * (words - plain))
    writer.add_token_merges(["Ġ 1", "a b"])
    writer.add_eos_token_id(tokens.index("<|im_end|>"))
    writer.add_bos_token_id(tokens.index("<|endoftext|>"))
    writer.add_pad_token_id(tokens.index("<|endoftext|>"))
    writer.add_chat_template("{{ messages }}")
    kinds = gguf.GGMLQuantizationType

    def add(name: str, shape: tuple[int, ...], kind: gguf.GGMLQuantizationType) -> None:
        values = random.normal(size=shape).astype(np.float32)
        if kind in (kinds.F32, kinds.F16):
            writer.add_tensor(name, values.astype(np.float16 if kind is kinds.F16 else np.float32))
        elif kind in (kinds.Q4_K, kinds.Q6_K):
            # There is no Python quantiser for these: random bits are blocks as good as any, with tame scales.
            block, size = gguf.GGML_QUANT_SIZES[kind]
            raw = random.integers(0, 256, (shape[0], shape[1] // block, size), dtype=np.uint8)
            scales = np.full((*raw.shape[:2], 1), 0.01, np.float16).view(np.uint8)
            raw[..., -2:] = scales
            if kind is kinds.Q4_K:
                raw[..., 0:2] = raw[..., 2:4] = scales
            writer.add_tensor(name, raw.reshape(shape[0], -1), raw_dtype=kind)
        else:
            writer.add_tensor(name, gguf.quants.quantize(values, kind), raw_dtype=kind)

    add("token_embd.weight", (words, hidden), kinds.Q5_0)
    add("output.weight", (words, hidden), kinds.Q8_0)
    add("output_norm.weight", (hidden,), kinds.F32)
    for name, shape, kind in [
        ("attn_norm.weight", (hidden,), kinds.F32),
        ("ffn_norm.weight", (hidden,), kinds.F32),
        ("attn_q.weight", (hidden, hidden), kinds.Q5_0),
        ("attn_q.bias", (hidden,), kinds.F32),
        ("attn_k.weight", (hidden // 2, hidden), kinds.F16),
        ("attn_k.bias", (hidden // 2,), kinds.F32),
        ("attn_v.weight", (hidden // 2, hidden), kinds.Q8_0),
        ("attn_v.bias", (hidden // 2,), kinds.F32),
        ("attn_output.weight", (hidden, hidden), kinds.Q5_0),
        ("ffn_gate.weight", (inner, hidden), kinds.Q4_K),
        ("ffn_up.weight", (inner, hidden), kinds.Q5_0),
        ("ffn_down.weight", (hidden, inner), kinds.Q6_K),
    ]:
        add(f"blk.0.{name}", shape, kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path
