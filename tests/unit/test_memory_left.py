"""How much memory is left: the machine's, or the control group's where that is less."""

from pathlib import Path

import psutil
import pytest

from services.sandbox import cgroups

TOTAL = psutil.virtual_memory().total


def _group(monkeypatch: pytest.MonkeyPatch, folder: Path, kind: str, **files: object) -> None:
    for name, text in files.items():
        (folder / name.replace("__", ".")).write_text(f"{text}\n")
    monkeypatch.setattr(cgroups, "_hierarchies", lambda: {kind: folder})


def _machine() -> float:
    memory = psutil.virtual_memory()
    return float(memory.available / memory.total)


def test_version_2_counts_what_is_not_cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    files = {
        "memory__max": TOTAL // 10,
        "memory__current": TOTAL // 10,
        "memory__stat": f"inactive_file {TOTAL // 100}",
    }
    _group(monkeypatch, tmp_path, "v2", **files)
    assert cgroups.memory_left() == pytest.approx(0.1, abs=0.01)


def test_version_1_counts_what_is_not_cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    files = {
        "memory__limit_in_bytes": TOTAL // 10,
        "memory__usage_in_bytes": TOTAL // 20,
        "memory__stat": "inactive_file 0\ntotal_inactive_file 0",
    }
    _group(monkeypatch, tmp_path, "memory", **files)
    assert cgroups.memory_left() == pytest.approx(min(0.5, _machine()), abs=0.05)


@pytest.mark.parametrize("limit", ["max", str(2**63 - 4096)])
def test_without_a_limit_the_machine_counts(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, limit: str
) -> None:
    files = {"memory__max": limit, "memory__current": TOTAL, "memory__stat": "inactive_file 0"}
    _group(monkeypatch, tmp_path, "v2", **files)
    assert cgroups.memory_left() == pytest.approx(_machine(), abs=0.05)
