"""Checkpoints with 8-bit weights: near to what they were made of, written once, few of them kept."""

import json
import os
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file

from ratchet.models.checkpoint import local_checkpoint
from ratchet.models.int8 import KEPT, LARGEST, int8_checkpoint, quantised
from tests.models import make_checkpoint


@given(st.integers(0, 10_000), st.sampled_from([1e-6, 1.0, 1e6]))
def test_a_weight_is_rounded_by_half_a_step_at_most(seed: int, size: float) -> None:
    weight = size * torch.randn(5, 7, generator=torch.Generator().manual_seed(seed))
    weight[3] = 0
    numbers, scale = quantised(weight)
    assert numbers.dtype == torch.int8
    assert scale.shape == (5, 1)
    assert (numbers * scale - weight).abs().le(scale * 0.501).all()
    assert numbers[:3].abs().amax(1).eq(LARGEST).all(), "each output uses the whole range"
    assert numbers[3].eq(0).all()


def test_a_checkpoint_keeps_all_but_the_weights_of_its_layers(tmp_path: Path) -> None:
    stored = make_checkpoint(tmp_path / "tiny")
    folder = int8_checkpoint(stored, tmp_path / "cache")
    before, after = load_file(stored / "model.safetensors"), load_file(folder / "model.safetensors")
    layers = {name for name in before if name.endswith("_proj.weight")}
    assert layers
    assert set(after) == {*before, *(f"{name}_scale" for name in layers)}
    for name, weight in before.items():
        if name in layers:
            assert after[name].dtype == torch.int8
            assert torch.allclose(after[name] * after[f"{name}_scale"], weight.float(), atol=0.01)
        else:
            assert torch.equal(after[name], weight)
    config = json.loads((folder / "config.json").read_bytes())
    assert config.pop("quantization_config")["quant_method"] == "compressed-tensors"
    assert config == json.loads((stored / "config.json").read_bytes())
    assert {file.name for file in stored.glob("tokenizer*")} <= {file.name for file in folder.iterdir()}


def test_it_is_written_once_and_few_are_kept(tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    folders = []
    for seed in range(KEPT + 1):
        stored = make_checkpoint(tmp_path / f"tiny{seed}", seed=seed)
        folders.append(int8_checkpoint(stored, cache))
        written = (folders[-1] / "model.safetensors").stat().st_mtime_ns
        os.utime(folders[-1], (seed, seed))
        if seed == 0:
            assert int8_checkpoint(stored, cache) == folders[0], "asked for again, it is the newest"
            assert (folders[0] / "model.safetensors").stat().st_mtime_ns == written
    assert [folder.is_dir() for folder in folders] == [True, False, *[True] * (KEPT - 1)]


def test_what_is_quantised_already_or_no_decoder_is_refused(tmp_path: Path) -> None:
    stored = make_checkpoint(tmp_path / "tiny")
    again = int8_checkpoint(stored, tmp_path / "cache")
    assert (
        local_checkpoint(again, tmp_path / "cache").sha256
        != local_checkpoint(stored, tmp_path / "cache").sha256
    )
    with pytest.raises(ValueError, match="quantised already"):
        int8_checkpoint(again, tmp_path / "cache")
