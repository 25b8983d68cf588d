"""Figures of a PRM: AUC, calibration, intervals over problems, on data whose truth is known."""

import math

import numpy as np
import pytest

from services.trainer.training.prm_quality import (
    LEAST_SLOPE,
    Readings,
    auc,
    calibration_error,
    platt,
    quality,
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


def test_a_good_prm_has_good_figures_and_calibration_mends_its_scale() -> None:
    problems, each = 40, 20
    problem = np.repeat(np.arange(problems), each)
    truth = RNG.normal(0, 2, problems * each)
    value = 1 / (1 + np.exp(-truth))
    logits = 4 * truth + 2
    found = quality(
        Readings(
            logits=logits,
            targets=value,
            weights=np.ones_like(value),
            step_problem=problem,
            better=np.maximum(logits[::2], logits[1::2]),
            worse=np.minimum(logits[::2], logits[1::2]),
            pair_problem=problem[::2],
            end_logits=RNG.normal(0, 1, 200),
            end_right=RNG.random(200) < 0.5,
            end_problem=np.repeat(np.arange(problems), 5),
        )
    )
    assert found.problems == problems
    assert found.step_auc.value == found.pair_accuracy.value == 1.0
    assert found.trajectory_auc.low is not None
    assert found.trajectory_auc.high is not None
    assert found.trajectory_auc.low < 0.5 < found.trajectory_auc.high
    assert found.calibration_error_raw.value is not None
    assert found.calibration_error.value is not None
    assert found.calibration_error_raw.value > 0.1
    assert found.calibration_error.value < 0.02


def test_what_cannot_be_had_is_none() -> None:
    none, numbers = np.zeros(0), np.zeros(0, dtype=int)
    empty = quality(
        Readings(none, none, none, numbers, none, none, numbers, none, none.astype(bool), numbers)
    )
    assert empty.step_auc.value is None
    assert empty.calibration_error.value is None
