"""How good a PRM is on problems that it was not trained on, and what its logits are worth as probabilities.

Every figure has a 95 % interval by bootstrap over problems, as the steps of one problem go right or wrong together. The
calibration error that counts is cross-fitted: the problems are halved, and each half is judged by a calibration from the
other.

Pure. Shapes: N steps, P pairs, E ends of trajectories. A step's truth is the share of right results after it, which is
itself an estimate from a few rollouts; a PRM that knew the true values would not reach an AUC of 1.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from ratchet.contracts.prm import Calibration
from ratchet.contracts.round_metrics import Figure, PrmQuality

Array = np.ndarray[Any, np.dtype[Any]]

RESAMPLES = 500
BINS = 10
PRIOR = 1.0
"""Strength of the belief that logits are calibrated as they are, in steps: keeps few data from an extreme slope."""
LEAST_SLOPE = 0.01
"""A falling calibration would turn the order of the scores round."""


@dataclass(frozen=True)
class Readings:
    """Logits of held-out problems, fp64, and what the trees say of the same. `*_problem` number the problems from 0."""

    logits: Array
    targets: Array
    weights: Array
    step_problem: Array
    better: Array
    worse: Array
    pair_problem: Array
    end_logits: Array
    end_right: Array
    end_problem: Array


def quality(readings: Readings) -> PrmQuality:
    """All figures."""
    ones, decided = np.ones_like(readings.targets), readings.targets != 0.5
    problems = 1 + max((int(numbers.max(initial=-1)) for numbers in _problem_numbers(readings)), default=-1)
    wins = (readings.better > readings.worse) + 0.5 * (readings.better == readings.worse)
    half = readings.step_problem % 2
    fits = [
        platt(readings.logits[half != part], readings.targets[half != part], readings.weights[half != part])
        for part in (0, 1)
    ]
    slopes, intercepts = (np.array([getattr(fit, name) for fit in fits])[half] for name in ("a", "b"))

    def error(probabilities: Array) -> Figure:
        return _figure(
            lambda weights: calibration_error(
                probabilities, readings.targets, readings.weights * weights[readings.step_problem]
            ),
            problems,
            len(ones),
        )

    def area(scores: Array, right: Array, problem: Array) -> Figure:
        return _figure(lambda weights: auc(scores, right, weights[problem]), problems, len(scores))

    return PrmQuality(
        problems=problems,
        step_auc=area(
            readings.logits[decided], readings.targets[decided] > 0.5, readings.step_problem[decided]
        ),
        pair_accuracy=_figure(
            lambda weights: _mean(wins, weights[readings.pair_problem]), problems, len(wins)
        ),
        trajectory_auc=area(readings.end_logits, readings.end_right, readings.end_problem),
        calibration_error_raw=error(_sigmoid(readings.logits)),
        calibration_error=error(_sigmoid(slopes * readings.logits + intercepts)),
    )


def auc(scores: Array, right: Array, weights: Array) -> float:
    """Chance that a right one scores above a wrong one (ties count half); nan when all are of one kind."""
    if not len(scores):
        return math.nan
    _, level = np.unique(scores, return_inverse=True)
    good, bad = np.bincount(level, weights * right), np.bincount(level, weights * ~right)
    both = good.sum() * bad.sum()
    return float((good * (bad.cumsum() - bad / 2)).sum() / both) if both else math.nan


def calibration_error(probabilities: Array, targets: Array, weights: Array) -> float:
    """Mean distance of probability and truth, over bins of equal width (expected calibration error)."""
    bins = np.minimum((probabilities * BINS).astype(int), BINS - 1)
    gaps = np.bincount(bins, weights * (probabilities - targets), minlength=BINS)
    total = weights.sum()
    return float(np.abs(gaps).sum() / total) if total else math.nan


def platt(logits: Array, targets: Array, weights: Array) -> Calibration:
    """The calibration with the least weighted cross-entropy, by Newton's method (Platt 1999, with soft targets)."""
    inputs = np.stack([logits, np.ones_like(logits)])
    prior = np.array([1.0, 0.0])
    fitted = prior.copy()

    def loss(at: Array) -> float:
        z = at @ inputs
        return float(
            (weights * (np.logaddexp(0.0, z) - targets * z)).sum() + PRIOR / 2 * ((at - prior) ** 2).sum()
        )

    for _ in range(100):
        p = _sigmoid(fitted @ inputs)
        gradient = inputs @ (weights * (p - targets)) + PRIOR * (fitted - prior)
        curvature = (inputs * (weights * p * (1 - p))) @ inputs.T + PRIOR * np.eye(2)
        step = np.linalg.solve(curvature, gradient)
        # Far from the minimum a full step may overshoot.
        scale = 1.0
        while loss(fitted - scale * step) > loss(fitted) and scale > 1e-6:
            scale /= 2
        fitted = fitted - scale * step
        if np.abs(step).max() < 1e-9:
            break
    return Calibration(max(LEAST_SLOPE, float(fitted[0])), float(fitted[1]))


def _figure(of: Callable[[Array], float], problems: int, n: int) -> Figure:
    """`of` takes how often each problem was drawn, float [problems]."""
    value = of(np.ones(problems)) if problems else math.nan
    if math.isnan(value):
        return Figure(value=None, low=None, high=None, n=n)
    even = np.full(problems, 1 / problems)
    drawn: Array = np.random.default_rng(0).multinomial(problems, even, size=RESAMPLES)
    found = [one for weights in drawn if not math.isnan(one := of(weights.astype(float)))]
    low, high = np.percentile(found, [2.5, 97.5])
    return Figure(value=value, low=float(low), high=float(high), n=n)


def _problem_numbers(readings: Readings) -> tuple[Array, ...]:
    return readings.step_problem, readings.pair_problem, readings.end_problem


def _mean(values: Array, weights: Array) -> float:
    total = weights.sum()
    return float((values * weights).sum() / total) if total else math.nan


def _sigmoid(x: Array) -> Array:
    return np.asarray(0.5 * (1 + np.tanh(x / 2)))
