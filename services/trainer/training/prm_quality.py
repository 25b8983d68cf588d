"""How good a PRM is on problems that it was not trained on, and what its logits are worth as probabilities.

Every figure has a 95 % interval by bootstrap over problems, as the steps of one problem go right or wrong together. Pooled
AUCs compare steps of different problems, too, and so count it as skill to know which problems are hard; the others compare
steps of one problem alone. What has to be fitted first is cross-fitted: the problems are halved, and each half is judged by a
calibration and a threshold from the other.

Pure. Limits: a step's truth is the share of right results after it, an estimate from a few rollouts, so a PRM that knew the
true values would not reach 1. A first error is known as well as the search has looked: a good step from which only one rollout
went on, to a wrong end, counts as the error.
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
    """What a PRM says of held-out trees, beside what these know. N steps, P pairs of siblings, T finished trajectories.

    Of the steps: logits, fp64, targets in [0, 1] with their weights, whether a step ends a trajectory, its depth from 1, and
    the number of its problem from 0. `siblings` [P, 2] are a better and a worse step. `paths` [T, longest] are the steps of a
    trajectory, -1 after its last; `first_errors` [T] are places in them, -1 where the trajectory is right.
    """

    logits: Array
    targets: Array
    weights: Array
    is_end: Array
    depths: Array
    problems: Array
    siblings: Array
    paths: Array
    first_errors: Array


def quality(readings: Readings) -> PrmQuality:
    """All figures."""
    problem, targets = readings.problems, readings.targets
    over = _Bootstrap(1 + int(problem.max(initial=-1)))
    decided, ends = targets != 0.5, readings.is_end
    right = targets > 0.5
    better, worse = readings.siblings.T
    wins = _wins(readings.logits[better], readings.logits[worse])
    raw, calibrated = _sigmoid(readings.logits), _cross_fitted(readings)

    def pooled(some: Array) -> Figure:
        scores, good, of = readings.logits[some], right[some], problem[some]
        return over.figure(lambda drawn: auc(scores, good, drawn[of]), int(some.sum()))

    def within(some: Array) -> Figure:
        return over.mean_of_problems(readings.logits[some], right[some], problem[some])

    def gaps(probabilities: Array, some: Array) -> Figure:
        return over.calibration_error(
            probabilities[some], targets[some], readings.weights[some], problem[some]
        )

    everything = np.ones_like(ends)
    return PrmQuality(
        problems=over.problems,
        within_step_auc=within(decided),
        within_end_auc=within(ends),
        sibling_accuracy=over.share(wins, problem[better]),
        sibling_accuracy_by_depth={
            str(depth): over.share(wins[here], problem[better][here])
            for depth in np.unique(readings.depths[better]).tolist()
            for here in [readings.depths[better] == depth]
        },
        first_error_f1=_first_error_f1(readings, over),
        pooled_step_auc=pooled(decided),
        pooled_end_auc=pooled(ends),
        calibration_error_raw=gaps(raw, everything),
        calibration_error=gaps(calibrated, everything),
        end_calibration_error=gaps(calibrated, ends),
        inner_calibration_error=gaps(calibrated, ~ends),
    )


# --- intervals -------------------------------------------------------------------------------------------------------


class _Bootstrap:
    """Draws of the problems, with replacement: how often each was drawn, [resamples, problems]."""

    def __init__(self, problems: int) -> None:
        self.problems = problems
        even = np.full(problems, 1 / max(1, problems))
        self._draws: Array = (
            np.random.default_rng(0).multinomial(problems, even, size=RESAMPLES).astype(float)
            if problems
            else np.zeros((RESAMPLES, 0))
        )

    def figure(self, of: Callable[[Array], float], n: int) -> Figure:
        """`of` takes how often each problem was drawn, float [problems]."""
        if not n:
            return _interval(math.nan, np.zeros(0), n)
        return _interval(of(np.ones(self.problems)), np.array([of(drawn) for drawn in self._draws]), n)

    def share(self, values: Array, problem: Array) -> Figure:
        """Mean of values, each of which counts alike."""
        whole, drawn = self._ratio(self._sums(values, problem), self._sums(np.ones_like(values), problem))
        return _interval(whole, drawn, len(values))

    def mean_of_problems(self, scores: Array, right: Array, problem: Array) -> Figure:
        """Mean AUC of the problems that have both kinds; each of these counts alike, and `n` is their number."""
        areas = np.full(self.problems, math.nan)
        for number in np.unique(problem):
            here = problem == number
            areas[number] = auc(scores[here], right[here], np.ones(int(here.sum())))
        known = ~np.isnan(areas)
        whole, drawn = self._ratio(np.where(known, areas, 0.0), known.astype(float))
        return _interval(whole, drawn, int(known.sum()))

    def harmonic_mean(self, values: Array, kind: Array, problem: Array) -> Figure:
        """Of the mean over one kind and the mean over the other."""
        parts = [
            self._ratio(
                self._sums(values[some], problem[some]), self._sums(np.ones(int(some.sum())), problem[some])
            )
            for some in (kind, ~kind)
        ]
        (one, ones), (other, others) = parts
        return _interval(float(_harmonic(one, other)), _harmonic(ones, others), len(values))

    def calibration_error(
        self, probabilities: Array, targets: Array, weights: Array, problem: Array
    ) -> Figure:
        """Expected calibration error, which is larger in draws than in what they are drawn from: the interval is moved."""
        value = calibration_error(probabilities, targets, weights)
        if math.isnan(value):
            return _interval(value, np.zeros(0), len(targets))
        bins = np.minimum((probabilities * BINS).astype(int), BINS - 1)
        cells = np.bincount(
            problem * BINS + bins, weights * (probabilities - targets), minlength=self.problems * BINS
        ).reshape(self.problems, BINS)
        total = self._draws @ self._sums(weights, problem)
        with np.errstate(divide="ignore", invalid="ignore"):
            drawn = np.abs(self._draws @ cells).sum(axis=1) / total
        drawn = drawn[~np.isnan(drawn)]
        return _interval(value, np.maximum(0.0, drawn - (drawn.mean() - value)), len(targets))

    def _sums(self, values: Array, problem: Array) -> Array:
        return np.asarray(np.bincount(problem, values, minlength=self.problems))

    def _ratio(self, above: Array, below: Array) -> tuple[float, Array]:
        """Sum over sum, of all problems and of each draw; nan where there is nothing."""
        with np.errstate(divide="ignore", invalid="ignore"):
            return float(np.divide(above.sum(), below.sum())), (self._draws @ above) / (self._draws @ below)


def _interval(value: float, drawn: Array, n: int) -> Figure:
    drawn = drawn[~np.isnan(drawn)]
    if math.isnan(value) or not len(drawn):
        return Figure(value=None, low=None, high=None, n=n)
    low, high = np.percentile(drawn, [2.5, 97.5])
    return Figure(value=value, low=float(low), high=float(high), n=n)


# --- order -----------------------------------------------------------------------------------------------------------


def auc(scores: Array, right: Array, weights: Array) -> float:
    """Chance that a right one scores above a wrong one (ties count half); nan when all are of one kind."""
    if not len(scores):
        return math.nan
    _, level = np.unique(scores, return_inverse=True)
    good, bad = np.bincount(level, weights * right), np.bincount(level, weights * ~right)
    both = good.sum() * bad.sum()
    return float((good * (bad.cumsum() - bad / 2)).sum() / both) if both else math.nan


def _wins(better: Array, worse: Array) -> Array:
    return np.asarray((better > worse) + 0.5 * (better == worse))


# --- first errors ----------------------------------------------------------------------------------------------------


def _first_error_f1(readings: Readings, over: _Bootstrap) -> Figure:
    """F1 in the manner of ProcessBench (arXiv 2412.06559, section 3.3).

    The first step whose score is under a threshold is said to be the first error. F1 is the harmonic mean of how often that
    is true of wrong trajectories, and of how often nothing is found in right ones. The threshold is what is best on the other
    half of the problems.
    """
    if not len(readings.paths):
        return _interval(math.nan, np.zeros(0), 0)
    wrong, problem = readings.first_errors >= 0, readings.problems[readings.paths[:, 0]]
    low, high = threshold_ranges(readings.logits, readings.paths, readings.first_errors)
    thresholds = np.zeros(len(wrong))
    for part in (0, 1):
        here = problem % 2 == part
        thresholds[here] = best_threshold(low[~here], high[~here], wrong[~here])
    judged = ~np.isnan(thresholds)
    found = (low < thresholds) & (thresholds <= high)
    return over.harmonic_mean(found[judged].astype(float), wrong[judged], problem[judged])


def threshold_ranges(logits: Array, paths: Array, first_errors: Array) -> tuple[Array, Array]:
    """With which thresholds a trajectory is judged truly: those above the one and not above the other, [T] each."""
    scores = np.where(paths >= 0, logits[paths], math.inf)
    lowest = np.concatenate(
        [np.full((len(paths), 1), math.inf), np.minimum.accumulate(scores, axis=1)], axis=1
    )
    rows, wrong = np.arange(len(paths)), first_errors >= 0
    # The error is the first step under the threshold as long as that is above its own score and not above those before it.
    low = np.where(wrong, lowest[rows, first_errors + 1], -math.inf)
    high = np.where(wrong, lowest[rows, np.maximum(first_errors, 0)], lowest[:, -1])
    return low, high


def best_threshold(low: Array, high: Array, wrong: Array) -> float:
    """The threshold of the best F1; nan where one kind is missing."""
    if wrong.all() or not wrong.any():
        return math.nan
    edges = np.unique(np.append(low, high))
    edges = edges[np.isfinite(edges)]
    # In the middle between two edges, as those of other problems are not quite the same.
    at = np.append((edges[1:] + edges[:-1]) / 2, edges[-1] + 1.0)

    def accuracy(some: Array) -> Array:
        # A range that is empty would be counted as -1.
        inside = some & (low < high)
        begun = np.searchsorted(np.sort(low[inside]), at, side="left")
        over = np.searchsorted(np.sort(high[inside]), at, side="left")
        return np.asarray((begun - over) / some.sum())

    return float(at[np.argmax(_harmonic(accuracy(wrong), accuracy(~wrong)))])


def _harmonic(one: Any, other: Any) -> Any:
    """2ab / (a + b); 0 where both are 0."""
    total = np.asarray(one) + np.asarray(other)
    return np.divide(2 * np.asarray(one) * other, total, out=np.zeros_like(total), where=total != 0)


# --- probabilities ---------------------------------------------------------------------------------------------------


def calibration_error(probabilities: Array, targets: Array, weights: Array) -> float:
    """Mean distance of probability and truth, over bins of equal width (expected calibration error)."""
    bins = np.minimum((probabilities * BINS).astype(int), BINS - 1)
    gaps = np.bincount(bins, weights * (probabilities - targets), minlength=BINS)
    total = weights.sum()
    return float(np.abs(gaps).sum() / total) if total else math.nan


def _cross_fitted(readings: Readings) -> Array:
    """Each half of the problems with the calibration of the other half."""
    half = readings.problems % 2
    found = np.zeros_like(readings.logits)
    for part in (0, 1):
        other, here = half != part, half == part
        fit = platt(readings.logits[other], readings.targets[other], readings.weights[other])
        found[here] = _sigmoid(fit.a * readings.logits[here] + fit.b)
    return found


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


def _sigmoid(x: Array) -> Array:
    return np.asarray(0.5 * (1 + np.tanh(x / 2)))
