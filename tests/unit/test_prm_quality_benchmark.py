"""The benchmark of PRM quality: it reads a stored PRM again, to the figures of its training, and knows rounds of before."""

import json
import shutil
from pathlib import Path

import pytest

from benchmarks.prm_quality import NoRunError, measure, rounded, rounds_of, run_folder_in
from ratchet.contracts.training import PrmTraining
from services.trainer.training.jobs import PrmJob, PrmResult
from services.trainer.training.prm import train
from tests.known_trees import known_trees, write_trees
from tests.models import make_checkpoint

CONFIG = PrmTraining(
    epochs=1, lr=3e-3, batch_tokens=4096, edit_distance=1, value_weight=1.0, dtype="fp32", threads=1
)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, PrmResult]:
    """The data folder of a run with one round, as a stack leaves it, and what its training said."""
    data = tmp_path_factory.mktemp("data")
    base = make_checkpoint(tmp_path_factory.mktemp("models") / "policy", step_format="markers")
    folder = data / "rounds" / "run" / "round-1"
    (folder / "prm").mkdir(parents=True)
    job = PrmJob(
        base=base,
        data=[write_trees(folder / "trees.jsonl", known_trees(30))],
        held_out=[f"p{number}" for number in range(8)],
        without=["p8"],
        out=folder / "prm",
        config=CONFIG,
    )
    (folder / "prm" / "job.json").write_text(job.model_dump_json())
    return data, train(job)


def test_a_stored_prm_has_the_figures_of_its_training(trained: tuple[Path, PrmResult]) -> None:
    data, result = trained
    run = run_folder_in(data)
    assert run_folder_in(run) == run
    found = measure(run, 1, "cpu")
    assert (found["sha256"], found["policy_had_seen"]) == (result.sha256, False)
    assert (found["trees"], found["problems"], found["held_out_problems"]) == (29, 29, 8)
    expected = rounded(result.quality.model_dump(mode="json"))
    assert expected["within_step_auc"]["value"] is not None
    for name in ("within_step_auc", "sibling_accuracy", "first_error_f1", "inner_calibration_error"):
        assert found[name]["n"] == expected[name]["n"]
        assert found[name]["value"] == pytest.approx(expected[name]["value"], abs=2e-3), name
    json.dumps(found)


def test_of_a_round_of_before_it_says_that_the_policy_had_seen_the_problems(
    trained: tuple[Path, PrmResult], tmp_path: Path
) -> None:
    run = tmp_path / "run"
    shutil.copytree(run_folder_in(trained[0]), run)
    file = run / "round-1" / "prm" / "job.json"
    job = json.loads(file.read_text())
    old = {name: value for name, value in job.items() if name not in ("held_out", "without")}
    # A field that a later version has added is not in an old job either.
    del old["config"]["batch_problems"]
    file.write_text(json.dumps(old))
    found = measure(run, 1, "cpu")
    assert found["policy_had_seen"] is True
    # Never more than half.
    assert (found["problems"], found["held_out_problems"]) == (30, 15)


def test_a_folder_without_a_run_and_a_damaged_job_are_failures_that_say_so(
    trained: tuple[Path, PrmResult], tmp_path: Path
) -> None:
    with pytest.raises(NoRunError, match=r"must hold one run .* \(found: none\)"):
        run_folder_in(tmp_path)
    run = tmp_path / "rounds" / "run"
    shutil.copytree(run_folder_in(trained[0]), run)
    shutil.copytree(run, tmp_path / "rounds" / "run2")
    with pytest.raises(NoRunError, match=r"\(found: run, run2\)"):
        run_folder_in(tmp_path)
    assert list(rounds_of(run)) == [1]
    (run / "round-1" / "prm" / "job.json").write_text("{")
    with pytest.raises(NoRunError, match=r"job\.json cannot be read"):
        measure(run, 1, "cpu")
