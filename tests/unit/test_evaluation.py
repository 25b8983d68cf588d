"""Figures of an evaluation."""

from typing import Any

import pytest

from ratchet.cli.outcomes import GradedProblem, summarise


def line(**changes: Any) -> GradedProblem:
    fields: dict[str, Any] = {
        "id": "a",
        "source": "f:1",
        "reference": "1",
        "answer": "1",
        "correct": True,
        "rule": "exact",
        "state": "solved_verified",
        "level": "agreement",
        "confidence": 0.9,
        "votes": 3,
        "total_votes": 4,
        "trajectories": 4,
        "right_trajectories": 3,
        "tokens": 100,
        "seconds": 2.0,
        "models": {"policy": "m@1"},
        "search": "s",
        "reason": None,
    }
    return GradedProblem.model_validate(fields | changes)


def test_a_summary_counts_failures_as_wrong_and_levels_apart() -> None:
    summary = summarise(
        [
            line(),
            line(answer="2", correct=False, level="execution", confidence=0.4, tokens=300, seconds=4.0),
            line(
                answer=None,
                correct=False,
                state="failed",
                level="none",
                confidence=None,
                tokens=0,
                models={},
                trajectories=0,
                right_trajectories=0,
            ),
            line(
                answer=None,
                correct=False,
                state="budget_exhausted",
                level="none",
                confidence=None,
                tokens=0,
                trajectories=0,
                right_trajectories=0,
            ),
        ]
    )
    assert (summary.coverage, summary.lost_by_vote, summary.right_trajectories) == (0.5, 0.25, 0.75)
    assert (summary.n, summary.right, summary.accuracy, summary.answered, summary.failed) == (
        4,
        1,
        0.25,
        2,
        1,
    )
    levels = {level.value: (count.n, count.right) for level, count in summary.solved_by_level.items()}
    assert levels == {"reference": (0, 0), "agreement": (1, 1), "execution": (1, 0), "none": (2, 0)}
    assert (summary.tokens_per_problem, summary.seconds_per_problem) == (100.0, 2.5)
    assert summary.calibration.n == 2
    assert summary.calibration.mean_confidence == pytest.approx(0.65)
    assert summary.calibration.accuracy == 0.5
    assert summary.calibration.brier == pytest.approx((0.01 + 0.16) / 2)
    assert summary.models == [{"policy": "m@1"}]


def test_a_summary_of_nothing_is_no_error() -> None:
    summary = summarise([])
    assert (summary.coverage, summary.coverage_ci95, summary.right_trajectories) == (0.0, (0.0, 1.0), None)
    assert (summary.n, summary.accuracy, summary.ci95, summary.calibration.brier) == (
        0,
        0.0,
        (0.0, 1.0),
        None,
    )
