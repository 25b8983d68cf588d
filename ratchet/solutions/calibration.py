"""Fitting the probability of answers: a regularised multinomial logistic model, and what it is worth out of fold.

One problem is one observation: which of its answers is right, or that none is. Newton's method in numpy; the strength of the
regularisation is the one with the highest likelihood in a cross-validation over problems, and the reliability is that of the
same folds. Nothing is drawn at random but the folds, which are always the same for as many problems.

Limits: the folds choose the regularisation too, so the reliability flatters a little. Of few problems it says little: its
intervals say how little.
"""

import random
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from ratchet.contracts.calibration import AnswerCalibration, Feature, Reliability, ReliabilityBin
from ratchet.solutions.aggregator import FEATURES, features, softmax_with_none
from ratchet.solutions.votes import AnswerGroup
from ratchet.statistics import wilson

Floats: TypeAlias = NDArray[np.float64]

LEAST_PROBLEMS = 30
"""With fewer that got an answer nothing is fitted."""
PRECISION = 0.9
"""Share of right ones that is aimed at among answers that count as solved."""
FOLDS = 10
BINS = 10
LEAST_IN_BIN = 10
STRENGTHS = (0.3, 1.0, 3.0, 10.0, 30.0)
_STEPS = 50
_SMALL_STEP = 1e-6


class CalibrationError(ValueError):
    """There is too little to learn from; the message says what is missing."""


@dataclass(frozen=True, slots=True)
class LabelledVote:
    """The answers of one search, the leading one first, and which of them are right."""

    groups: Sequence[AnswerGroup]
    right: Sequence[bool]


@dataclass(frozen=True, slots=True)
class _Problem:
    """Features by answer, shape (groups, features), and a 1 for the right answer, shape (groups)."""

    features: Floats
    right: Floats


@dataclass(frozen=True, slots=True)
class _Model:
    mean: Floats
    scale: Floats
    weights: Floats
    """Of the features, and of the constant last."""

    def probabilities(self, features_: Floats) -> list[float]:
        """Of each answer of one problem."""
        scores = ((features_ - self.mean) / self.scale) @ self.weights[:-1] + self.weights[-1]
        return softmax_with_none([float(score) for score in scores])


def calibrate(policy: str, prm: str, votes: Sequence[LabelledVote], source: str) -> AnswerCalibration:
    """The model of a policy with its PRM, from searches with both. Raises CalibrationError."""
    answered = [
        _Problem(np.array(features(vote.groups)), _first_right(vote.right)) for vote in votes if vote.groups
    ]
    right = sum(bool(problem.right[0]) for problem in answered)
    if len(answered) < LEAST_PROBLEMS or right in (0, len(answered)):
        raise CalibrationError(
            f"{len(answered)} problems got an answer, {right} the right one: it takes {LEAST_PROBLEMS}, and right "
            "and wrong ones among them."
        )
    folds = _folds(len(answered))
    strength = max(STRENGTHS, key=lambda each: _likelihood(answered, _out_of_fold(answered, folds, each)))
    out_of_fold = [found[0] for found in _out_of_fold(answered, folds, strength)]
    truths = [bool(problem.right[0]) for problem in answered]
    model = _fit(answered, strength)
    return AnswerCalibration(
        policy=policy,
        prm=prm,
        features=[
            Feature(name=name, mean=mean, scale=scale, coefficient=weight)
            for name, mean, scale, weight in zip(
                FEATURES,
                model.mean.tolist(),
                model.scale.tolist(),
                model.weights[:-1].tolist(),
                strict=True,
            )
        ],
        intercept=float(model.weights[-1]),
        l2=strength,
        problems=len(votes),
        source=source,
        min_confidence=least_confidence(out_of_fold, truths),
        reliability=reliability(out_of_fold, truths),
        created_at=datetime.now(UTC),
    )


def reliability(stated: Sequence[float], right: Sequence[bool]) -> Reliability:
    """How stated probabilities compare with truth, in bins of as many answers each."""
    ordered = sorted(zip(stated, right, strict=True))
    n = len(ordered)
    count = max(1, min(BINS, n // LEAST_IN_BIN))
    edges = [n * number // count for number in range(count + 1)]
    bins = [_bin(ordered[low:high]) for low, high in zip(edges, edges[1:], strict=False) if high > low]
    return Reliability(
        n=n,
        right=sum(right),
        bins=bins,
        ece=round(sum(each.n * abs(each.predicted - each.share) for each in bins) / max(1, n), 4),
        brier=round(sum((p - truth) ** 2 for p, truth in ordered) / max(1, n), 4),
    )


def least_confidence(stated: Sequence[float], right: Sequence[bool]) -> float:
    """The lowest probability from which on a share of PRECISION of the answers is right; PRECISION itself where there is none.

    The share is estimated with one right and one wrong answer more than there were, so that a few lucky ones are not enough, and
    the mean of the stated probabilities must reach it as well.
    """
    found = PRECISION
    hits, total = 0, 0.0
    ordered = sorted(zip(stated, right, strict=True), reverse=True)
    for number, (probability, truth) in enumerate(ordered, 1):
        hits, total = hits + truth, total + probability
        last_of_equals = number == len(ordered) or ordered[number][0] < probability
        if last_of_equals and (hits + 1) / (number + 2) >= PRECISION and total / number >= PRECISION:
            # Rounded down, so that the answer itself still passes.
            found = min(found, int(probability * 1e4) / 1e4)
    return found


def _first_right(right: Sequence[bool]) -> Floats:
    """A 1 for the right answer. Two groups that both equal the reference (an odd spelling) are one truth: the first."""
    truth = np.zeros(len(right))
    if any(right):
        truth[list(right).index(True)] = 1.0
    return truth


def _bin(some: Sequence[tuple[float, bool]]) -> ReliabilityBin:
    n, hits = len(some), sum(truth for _, truth in some)
    low, high = wilson(hits, n)
    return ReliabilityBin(
        n=n,
        right=hits,
        predicted=round(sum(probability for probability, _ in some) / n, 4),
        share=round(hits / n, 4),
        ci95=(round(low, 4), round(high, 4)),
    )


def _folds(n: int) -> list[list[int]]:
    places = list(range(n))
    random.Random(0).shuffle(places)  # noqa: S311 - not for secrets
    return [places[fold::FOLDS] for fold in range(FOLDS)]


def _out_of_fold(
    problems: Sequence[_Problem], folds: Sequence[Sequence[int]], strength: float
) -> list[list[float]]:
    """The probabilities of each problem's answers, from a model of the problems in other folds."""
    found: dict[int, list[float]] = {}
    for fold in folds:
        left_out = set(fold)
        model = _fit([each for place, each in enumerate(problems) if place not in left_out], strength)
        found |= {place: model.probabilities(problems[place].features) for place in fold}
    return [found[place] for place in range(len(problems))]


def _likelihood(problems: Sequence[_Problem], probabilities: Sequence[Sequence[float]]) -> float:
    """Logarithm of the likelihood of what is true."""
    total = 0.0
    for problem, found in zip(problems, probabilities, strict=True):
        right = float(problem.right @ np.array(found))
        total += float(np.log(max(1e-12, right if problem.right.any() else 1.0 - sum(found))))
    return total


def _fit(problems: Sequence[_Problem], strength: float) -> _Model:
    """Newton's method on the penalised likelihood; the constant is not penalised."""
    every = np.vstack([problem.features for problem in problems])
    mean, scale = every.mean(axis=0), every.std(axis=0)
    scale = np.where(scale < 1e-9, 1.0, scale)
    designs = [
        np.column_stack([(each.features - mean) / scale, np.ones(len(each.right))]) for each in problems
    ]
    penalty = np.diag([strength] * (len(FEATURES)) + [1e-6])
    weights = np.zeros(len(FEATURES) + 1)
    for _ in range(_STEPS):
        gradient, curvature = -penalty @ weights, penalty.copy()
        for design, problem in zip(designs, problems, strict=True):
            p = np.array(softmax_with_none([float(score) for score in design @ weights]))
            gradient += design.T @ (problem.right - p)
            curvature += design.T @ (np.diag(p) - np.outer(p, p)) @ design
        step = np.linalg.solve(curvature, gradient)
        # A full step can overshoot where the classes are nearly separable.
        weights = weights + step * min(1.0, 5.0 / max(1e-12, float(np.abs(step).max())))
        if np.abs(step).max() < _SMALL_STEP:
            break
    return _Model(mean, scale, weights)
