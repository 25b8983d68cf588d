"""The programs behind the sandbox's claims run, at a smaller size: `make attack` and `make bench-sandbox`."""

import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import pytest

from benchmarks.attack.attack import HOST_ROOT, Program
from benchmarks.attack.service import running_service

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


# A few against the whole service, one of them with a control against a weakened one; or all of a kind.
@pytest.mark.parametrize(
    ("only", "least"), [("harness/*own*", 2), pytest.param("harness/", 15, marks=pytest.mark.slow)]
)
def test_attacks_are_contained_and_their_controls_trip(only: str, least: int) -> None:
    found = _run("benchmarks.attack", "--only", only, seconds=200)
    assert found["attacks"] >= least
    assert found["contained"] == found["attacks"]
    assert found["controls_tripped"] == found["controls"] > 0
    assert found["service_alive"]


@pytest.mark.slow
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


def test_a_control_without_a_root_of_its_own_sees_the_whole_host() -> None:
    # Wherever the clone, the environment and the home lie, below /tmp too: else a control could not trip there.
    with (
        tempfile.TemporaryDirectory(dir="/tmp") as below_tmp,
        tempfile.TemporaryDirectory(dir="/var/tmp") as below_var_tmp,
        running_service(HOST_ROOT) as service,
    ):
        places = [below_tmp, below_var_tmp, str(ROOT), sys.prefix, str(Path.home())]
        found = Program(
            "print([place for place in PLACES if os.path.isdir(place)])", given={"PLACES": places}
        )
        assert found.answer(service)["run_result"]["stdout"] == f"{places}\n"
