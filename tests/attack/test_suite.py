"""The programs behind the sandbox's claims run, at a smaller size: `make attack` and `make bench-sandbox`."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]


def _run(module: str, *arguments: str, seconds: float) -> dict[str, Any]:
    done = subprocess.run(
        [sys.executable, "-m", module, *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=seconds,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    answer: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return answer


def test_attacks_are_contained_and_their_controls_trip() -> None:
    found = _run("benchmarks.attack", "--only", "harness/", seconds=200)
    assert found["attacks"] >= 15
    assert found["contained"] == found["attacks"]
    assert found["controls_tripped"] == found["controls"] > 0
    assert found["service_alive"]


def test_the_speed_of_the_sandbox_is_measured() -> None:
    found = _run("benchmarks.sandbox_speed", "--quick", seconds=200)
    for name in (
        "run_over_fork",
        "trivial_per_second_per_core",
        "snapshot_speedup_depth16",
        "snapshots_in_4gb",
    ):
        assert found[name] > 0
    assert found["tree_one_by_one"]["outputs_equal"]
