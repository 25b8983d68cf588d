"""Figures of a PRM: AUC, calibration, intervals over problems, on data whose truth is known."""

import math
from typing import Any

import numpy as np
import pytest

from ratchet.contracts.round_metrics import Figure, PrmQuality
from services.trainer.training.prm_quality import (
    LEAST_SLOPE,
    Array,
    Readings,
    auc,
    best_threshold,
    calibration_error,
    platt,
    quality,
    threshold_ranges,
)

RNG = np.random.default_rng(0)


def test_auc_counts_pairs_and_halves_ties() -> None:
    scores, right = np.array([0.1, 0.4, 0.4, 0.9]), np.array([False, True, False, True])
    assert auc(scores, right, np.ones(4)) == (1 + 0.5 + 1 + 1) / 4
    # Weight 2 is the same as being there twice.
    twice = auc(np.append(scores, 0.9), np.append(right, True), np.ones(5))
    assert auc(scores, right, np.array([1.0, 1, 1, 2])) == twice
    assert math.isnan(auc(scores, np.ones(4, dtype=bool), np.ones(4)))


def test_platt_finds_the_slope_and_intercept_that_made_the_truth() -> None:
    logits = RNG.normal(0, 3, 20_000)
    truth = (RNG.random(20_000) < 1 / (1 + np.exp(-(0.5 * logits - 1)))).astype(float)
    fit = platt(logits, truth, np.ones(20_000))
    assert fit.a == pytest.approx(0.5, abs=0.03)
    assert fit.b == pytest.approx(-1, abs=0.06)


@pytest.mark.parametrize("scale", [1e-3, 1.0, 1e3])
def test_platt_stays_finite_and_keeps_the_order(scale: float) -> None:
    logits = np.array([-2.0, -1.0, 1.0, 2.0]) * scale
    separable = platt(logits, np.array([0.0, 0, 1, 1]), np.ones(4))
    assert math.isfinite(separable.a)
    assert separable.a > 0
    assert platt(logits, np.array([1.0, 1, 0, 0]), np.full(4, 100.0)).a >= LEAST_SLOPE


def test_calibration_error_is_the_gap_between_probability_and_truth() -> None:
    probabilities = np.array([0.91, 0.93, 0.21, 0.23])
    targets = np.array([1.0, 0.0, 0.22, 0.22])
    assert calibration_error(probabilities, targets, np.ones(4)) == pytest.approx(0.42 * 2 / 4)
    assert calibration_error(targets, targets, np.ones(4)) == 0


def steps(problem: Array, logits: Array, targets: Array, **others: Any) -> Readings:
    """Readings of first steps, in no pairs and no trajectories unless told so."""
    count = len(logits)
    return Readings(
        **{
            "logits": logits,
            "targets": targets,
            "weights": np.ones(count),
            "is_end": np.zeros(count, dtype=bool),
            "depths": np.ones(count, dtype=int),
            "problems": problem,
            "siblings": np.zeros((0, 2), dtype=int),
            "paths": np.zeros((0, 0), dtype=int),
            "first_errors": np.zeros(0, dtype=int),
            **others,
        }
    )


def known(figure: Figure | None) -> float:
    assert figure is not None
    assert figure.value is not None
    assert figure.low is not None
    assert figure.high is not None
    assert figure.low <= figure.value <= figure.high
    return figure.value


def test_a_good_prm_has_good_figures_and_calibration_mends_its_scale() -> None:
    problems, each = 40, 20
    problem = np.repeat(np.arange(problems), each)
    truth = RNG.normal(0, 2, problems * each)
    value = 1 / (1 + np.exp(-truth))
    ends = np.arange(len(truth)) % 2 == 0
    both = np.arange(len(truth)).reshape(-1, 2)
    order = np.argsort(truth[both], axis=1)[:, ::-1]
    found = quality(
        steps(problem, 4 * truth + 2, value, is_end=ends, siblings=np.take_along_axis(both, order, axis=1))
    )
    assert found.problems == problems
    assert known(found.pooled_step_auc) == known(found.pooled_end_auc) == 1.0
    assert known(found.within_step_auc) == known(found.within_end_auc) == 1.0
    assert known(found.sibling_accuracy) == known(found.sibling_accuracy_by_depth["1"]) == 1.0
    assert known(found.calibration_error_raw) > 0.1
    assert known(found.calibration_error) < 0.02
    assert known(found.end_calibration_error) < 0.02
    assert known(found.inner_calibration_error) < 0.02


def test_knowing_which_problems_are_hard_is_skill_only_where_problems_are_pooled() -> None:
    problems, each = 60, 20
    problem = np.repeat(np.arange(problems), each)
    difficulty = RNG.normal(0, 3, problems)
    right = RNG.random(problems * each) < 1 / (1 + np.exp(difficulty[problem]))
    found = quality(
        steps(problem, -difficulty[problem] + RNG.normal(0, 0.1, len(right)), right.astype(float))
    )
    assert known(found.pooled_step_auc) > 0.85
    assert known(found.within_step_auc) == pytest.approx(0.5, abs=0.05)
    assert found.within_step_auc is not None
    # Problems of one kind have no such pairs.
    mixed = sum(0 < right[problem == one].mean() < 1 for one in range(problems))
    assert 10 < found.within_step_auc.n == mixed < problems


def test_every_problem_counts_alike_within_problems_and_every_pair_among_siblings() -> None:
    # The first problem has one pair, in the wrong order; the second four, in the right one.
    logits = np.array([0.0, 1.0, 4.0, 3.0, 2.0, 1.0])
    targets = np.array([1.0, 0.0, 1.0, 1.0, 0.0, 0.0])
    pairs = np.array([[0, 1], [2, 4], [2, 5], [3, 4], [3, 5]])
    depths = np.array([1, 1, 2, 2, 2, 2])
    problem = np.array([0, 0, 1, 1, 1, 1])
    found = quality(steps(problem, logits, targets, siblings=pairs, depths=depths))
    assert known(found.within_step_auc) == 0.5
    assert known(found.sibling_accuracy) == 0.8
    by_depth = found.sibling_accuracy_by_depth
    assert [(depth, known(each), each.n) for depth, each in by_depth.items()] == [
        ("1", 0.0, 1),
        ("2", 1.0, 4),
    ]


def judged(threshold: float, logits: Array, paths: Array, first_errors: Array) -> list[bool]:
    """By the definition: the first step under the threshold, compared with the truth."""
    said = [
        next((place for place, step in enumerate(way) if step >= 0 and logits[step] < threshold), -1)
        for way in paths
    ]
    return [one == error for one, error in zip(said, first_errors, strict=True)]


def test_thresholds_and_their_f1_are_those_of_the_definition() -> None:
    count, longest = 80, 5
    lengths = RNG.integers(1, longest + 1, count)
    paths = np.where(
        np.arange(longest) < lengths[:, None], np.arange(count * longest).reshape(count, longest), -1
    )
    logits = RNG.normal(0, 1, count * longest).round(1)
    errors = np.where(RNG.random(count) < 0.5, RNG.integers(0, lengths), -1)
    low, high = threshold_ranges(logits, paths, errors)
    tried = np.unique(np.concatenate([logits, logits + 0.05, [logits.min() - 1, logits.max() + 1]]))
    scores = []
    for threshold in tried:
        truly = np.array(judged(threshold, logits, paths, errors))
        assert ((low < threshold) & (threshold <= high)).tolist() == truly.tolist()
        accuracies = truly[errors >= 0].mean(), truly[errors < 0].mean()
        scores.append(2 * accuracies[0] * accuracies[1] / max(sum(accuracies), 1e-9))
    best = np.array(judged(best_threshold(low, high, errors >= 0), logits, paths, errors))
    assert 2 / (1 / best[errors >= 0].mean() + 1 / best[errors < 0].mean()) == pytest.approx(max(scores))


def test_first_errors_are_found_by_a_prm_that_knows_them_and_not_by_one_that_guesses() -> None:
    problems, longest = 60, 4
    errors = RNG.integers(-1, longest, problems)
    paths = np.arange(problems * longest).reshape(problems, longest)
    wrong = (errors[:, None] >= 0) & (np.arange(longest) >= errors[:, None])
    problem = np.repeat(np.arange(problems), longest)
    targets = (~wrong).astype(float).ravel()

    def f1(logits: Array) -> float:
        return known(
            quality(steps(problem, logits, targets, paths=paths, first_errors=errors)).first_error_f1
        )

    assert f1(np.where(wrong, -1.0, 1.0).ravel() + RNG.normal(0, 0.1, wrong.size)) == 1.0
    assert f1(RNG.normal(0, 1, wrong.size)) < 0.6


def test_what_cannot_be_had_is_none() -> None:
    none = np.zeros(0)
    empty = quality(steps(none.astype(int), none, none))
    assert empty.problems == 0
    figures = [value for value in dict(empty).values() if isinstance(value, Figure)]
    assert len(figures) == 10
    assert {(each.value, each.low, each.high, each.n) for each in figures} == {(None, None, None, 0)}
    # One problem has no other half, and ends of one kind.
    alone = quality(
        steps(
            np.zeros(2, dtype=int),
            np.array([1.0, 0.0]),
            np.ones(2),
            paths=np.array([[0, 1]]),
            first_errors=np.array([-1]),
        )
    )
    assert alone.first_error_f1 is not None
    assert alone.first_error_f1.value is None
    assert alone.within_step_auc is not None
    assert alone.within_step_auc.value is None


def test_figures_of_a_round_that_is_over_are_still_read() -> None:
    old = {"value": 0.8, "low": 0.7, "high": 0.9, "n": 20}
    names = ("step_auc", "pair_accuracy", "trajectory_auc", "calibration_error_raw", "calibration_error")
    found = PrmQuality.model_validate({"problems": 20, **dict.fromkeys(names, old)})
    assert (found.pooled_step_auc.value, found.pooled_end_auc.n) == (0.8, 20)
    assert found.within_step_auc is found.first_error_f1 is None
