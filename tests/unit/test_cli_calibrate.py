"""What `ratchet calibrate` shows of a calibration, and what it refuses before it starts anything."""

from datetime import UTC, datetime
from pathlib import Path

import pytest
from rich.console import Console
from typer.testing import CliRunner

from ratchet.cli.calibrate import reliability_table, words
from ratchet.cli.evaluation.reliability_plot import draw_reliability
from ratchet.cli.main import app
from ratchet.contracts.calibration import AnswerCalibration, Feature
from ratchet.solutions.calibration import reliability

STATED = [0.1] * 20 + [0.9] * 20
RIGHT = [True] * 4 + [False] * 16 + [True] * 17 + [False] * 3


@pytest.fixture
def made() -> AnswerCalibration:
    return AnswerCalibration(
        policy="small@1",
        prm="prm1-likelihood@small@1",
        features=[Feature(name="log_votes", mean=0, scale=1, coefficient=1)],
        intercept=0,
        l2=1,
        problems=40,
        source="a test",
        min_confidence=0.85,
        reliability=reliability(STATED, RIGHT),
        created_at=datetime.now(UTC),
    )


def test_the_reliability_diagram_sets_what_is_stated_beside_what_is_right(made: AnswerCalibration) -> None:
    console = Console(width=120, record=True, file=None)
    with console.capture() as captured:
        console.print(reliability_table(made))
    lines = [line for line in captured.get().splitlines() if "to" in line]
    assert len(lines) == 4, "ten answers in each bin, the least probable first"
    first, *_, last = lines
    assert "10%" in first
    assert "40%" not in last
    assert last.count("█") > first.count("█")
    assert all(line.count("●") == 1 for line in lines)
    assert "21 of 40 answers are right" in words(made)
    assert "From a probability of 0.85 on" in words(made)


@pytest.mark.parametrize(("name", "begins"), [("a.png", b"\x89PNG"), ("b/c.svg", b"<?xml")])
def test_the_diagram_is_drawn_as_its_suffix_says(
    made: AnswerCalibration, tmp_path: Path, name: str, begins: bytes
) -> None:
    draw_reliability(made, tmp_path / name)
    assert (tmp_path / name).read_bytes().startswith(begins)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["nano:development", "--plot", "a.pdf"], "--plot"),
        (["nano:development", "--offset", "100000"], "--offset"),
        (["nowhere.jsonl"], "DATA"),
        (["nano:development", "--tokens", "0"], "--tokens"),
        (["nano:development", "--limit", "0"], "--limit"),
    ],
)
def test_wrong_use_names_the_option(arguments: list[str], says: str) -> None:
    result = CliRunner().invoke(app, ["calibrate", *arguments])
    assert result.exit_code == 2
    assert says in result.output
