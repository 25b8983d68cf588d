"""Models are computed in bf16 where the machine can, in fp32 where it would only convert and has the memory."""

from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest
import torch

from ratchet.contracts.training import PrmTraining, SftConfig
from ratchet.models.precision import computes_bf16, serving_dtype
from services.trainer.training.loop import with_dtype

WEIGHTS = 1000


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    (tmp_path / "model.safetensors").write_bytes(bytes(WEIGHTS))
    return tmp_path


def machine(monkeypatch: pytest.MonkeyPatch, *, bf16: bool, free: int = 100 * WEIGHTS) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx2": True, "avx512_bf16": bf16})
    monkeypatch.setattr(psutil, "virtual_memory", lambda: SimpleNamespace(available=free))


@pytest.mark.parametrize(
    ("bf16", "free", "stored", "expected"),
    [
        (True, 100 * WEIGHTS, torch.bfloat16, torch.bfloat16),
        (False, 100 * WEIGHTS, torch.bfloat16, torch.float32),
        (False, 100 * WEIGHTS, None, torch.float32),
        (False, 4 * WEIGHTS - 1, torch.bfloat16, torch.bfloat16),
        (False, 4 * WEIGHTS, torch.bfloat16, torch.float32),
        (True, 100 * WEIGHTS, torch.float32, torch.float32),
    ],
)
def test_what_a_cpu_serves_in(
    checkpoint: Path,
    monkeypatch: pytest.MonkeyPatch,
    *,
    bf16: bool,
    free: int,
    stored: torch.dtype | None,
    expected: torch.dtype,
) -> None:
    machine(monkeypatch, bf16=bf16, free=free)
    assert computes_bf16("cpu") is bf16
    assert serving_dtype(checkpoint, stored, "cpu") == expected


@pytest.mark.parametrize("config", [SftConfig(), PrmTraining()])
def test_training_computes_in_what_the_machine_multiplies(
    config: SftConfig | PrmTraining, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine(monkeypatch, bf16=False)
    assert with_dtype(config, "cpu").dtype == "fp32"
    machine(monkeypatch, bf16=True)
    assert with_dtype(config, "cpu").dtype == "bf16"
    for asked in ("fp32", "bf16"):
        assert with_dtype(config.model_copy(update={"dtype": asked}), "cpu").dtype == asked
