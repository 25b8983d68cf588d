"""Result files compared by the benchmark."""

from pathlib import Path

import pytest

from benchmarks.result_files import measure, read_arm
from ratchet.cli.outcomes import GradedProblem
from ratchet.contracts.search import VerificationLevel
from ratchet.states import SearchState


def lines(outcomes: str, first: int = 0) -> list[GradedProblem]:
    return [
        GradedProblem(
            id=f"{number:016x}", source=f"p.jsonl:{number}", reference="7", answer="7", correct=each == "1", rule=None,
            state=SearchState.ANSWERED_UNVERIFIED, level=VerificationLevel.NONE, confidence=None, votes=1, total_votes=1,
            trajectories=2, right_trajectories=1, tokens=100, seconds=2.0, models={"policy": "nano@1"}, search=None,
            reason=None,
        )
        for number, each in enumerate(outcomes, first)
    ]  # fmt: skip


def test_arms_are_compared_on_the_problems_that_both_have() -> None:
    # Three problems are in one arm alone.
    found = measure({"greedy": lines("0001111110"), "mcts": lines("1111111", first=3)})
    assert found["arms"]["greedy"]["right"] == 6
    assert (found["arms"]["mcts"]["n"], found["arms"]["mcts"]["accuracy"]) == (7, 1.0)
    assert found["arms"]["mcts"]["tokens_per_problem"] == 100
    [(name, pair)] = found["paired"].items()
    assert name == "mcts against greedy"
    assert (pair["n"], pair["better"], pair["worse"]) == (7, 1, 0)
    assert pair["difference"] == pytest.approx(1 / 7, abs=1e-3)
    assert pair["p"] == 1.0


def test_an_arm_of_several_files_has_no_problem_twice(tmp_path: Path) -> None:
    for name, first in (("a", 0), ("b", 3), ("c", 2)):
        content = "".join(line.model_dump_json() + "\n" for line in lines("101", first))
        (tmp_path / name).write_text(content)
    name, read = read_arm(f"mcts={tmp_path / 'a'},{tmp_path / 'b'}")
    assert (name, len(read)) == ("mcts", 6)
    with pytest.raises(ValueError, match="mcts has a problem twice"):
        read_arm(f"mcts={tmp_path / 'a'},{tmp_path / 'c'}")
    with pytest.raises(ValueError, match="no ARM=FILE"):
        read_arm("mcts")
