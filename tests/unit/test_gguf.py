"""A GGUF file becomes the checkpoint that transformers makes of it."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from ratchet.models.gguf import GgufError, convert
from tests.tiny_gguf import gguf_file

__all__ = ["gguf_file"]


def test_conversion_equals_that_of_transformers(gguf_file: Path, tmp_path: Path) -> None:
    convert(gguf_file, tmp_path)
    ours = load_file(tmp_path / "model.safetensors")
    model = AutoModelForCausalLM.from_pretrained(
        gguf_file.parent, gguf_file=gguf_file.name, dtype=torch.bfloat16
    )
    theirs = model.state_dict()
    assert ours.keys() == theirs.keys()
    for name, tensor in ours.items():
        assert tensor.dtype == torch.bfloat16
        assert torch.equal(tensor, theirs[name].to(torch.bfloat16)), name
    assert not torch.equal(ours["model.embed_tokens.weight"], ours["lm_head.weight"])

    config = json.loads((tmp_path / "config.json").read_text())
    assert "quantization_config" not in config
    assert config["tie_word_embeddings"] is False
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path)
    for key in ("hidden_size", "num_key_value_heads", "rope_parameters", "vocab_size", "rms_norm_eps"):
        assert getattr(loaded.config, key) == getattr(model.config, key), key
    assert loaded.generation_config.eos_token_id == [259, 258]

    tokenizer = AutoTokenizer.from_pretrained(tmp_path)
    other = AutoTokenizer.from_pretrained(gguf_file.parent, gguf_file=gguf_file.name)
    for text in ("ab 12 äöü 你\n\n  x<|im_end|>", "", "<|endoftext|>a b"):
        assert tokenizer(text)["input_ids"] == other(text)["input_ids"]
        assert tokenizer.decode(tokenizer(text)["input_ids"]) == text
    assert (tokenizer.eos_token, tokenizer.pad_token) == (other.eos_token, other.pad_token)


@pytest.mark.parametrize(
    "spoil", [lambda data: b"XXXX" + data[4:], lambda data: data[:300], lambda data: data[:4]]
)
def test_a_file_that_is_no_gguf_is_refused(gguf_file: Path, tmp_path: Path, spoil: Any) -> None:
    (tmp_path / "bad.gguf").write_bytes(spoil(gguf_file.read_bytes()))
    with pytest.raises(GgufError):
        convert(tmp_path / "bad.gguf", tmp_path)
