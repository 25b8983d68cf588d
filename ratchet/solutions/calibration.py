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
from itertools import pairwise
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from ratchet.contracts.calibration import AnswerCalibration, Feature, Reliability, ReliabilityBin
from ratchet.solutions.aggregator import FEATURES, features
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
class _Problems:
    """Of each problem its answers: those of one with fewer than others are padded."""

    features: Floats
    """Shape (problems, answers, features)."""
    there: NDArray[np.bool_]
    """Shape (problems, answers): no padding."""
    right: Floats
    """Shape (problems, answers): 1 for the right answer."""

    def __len__(self) -> int:
        return len(self.right)

    def some(self, places: Sequence[int]) -> "_Problems":
        """Those at these places."""
        return _Problems(self.features[places], self.there[places], self.right[places])


@dataclass(frozen=True, slots=True)
class _Model:
    mean: Floats
    scale: Floats
    weights: Floats
    """Of the features, and of the constant last."""

    def probabilities(self, problems: _Problems) -> Floats:
        """Shape (problems, answers)."""
        design = _design(problems, self.mean, self.scale)
        return _softmax_with_none(design @ self.weights, problems.there)


def calibrate(
    policy: str, prm: str, votes: Sequence[LabelledVote], source: str, *, early_stop: bool = False
) -> AnswerCalibration:
    """The model of a policy with its PRM, from searches with both.

    `early_stop`: these might end early. Raises CalibrationError.
    """
    answered = _problems([vote for vote in votes if vote.groups])
    right = int(answered.right[:, :1].sum())
    if len(answered) < LEAST_PROBLEMS or right in (0, len(answered)):
        raise CalibrationError(
            f"{len(answered)} problems got an answer, {right} the right one: it takes {LEAST_PROBLEMS}, and right "
            "and wrong ones among them."
        )
    strength = max(STRENGTHS, key=lambda each: _likelihood(answered, _out_of_fold(answered, each)))
    out_of_fold = _out_of_fold(answered, strength)[:, 0].tolist()
    truths = [bool(each) for each in answered.right[:, 0]]
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
        early_stop=early_stop,
        reliability=reliability(out_of_fold, truths),
        created_at=datetime.now(UTC),
    )


def reliability(stated: Sequence[float], right: Sequence[bool]) -> Reliability:
    """How stated probabilities compare with truth, in bins of as many answers each."""
    ordered = sorted(zip(stated, right, strict=True))
    n = len(ordered)
    count = max(1, min(BINS, n // LEAST_IN_BIN))
    edges = [n * number // count for number in range(count + 1)]
    bins = [_bin(ordered[low:high]) for low, high in pairwise(edges) if high > low]
    return Reliability(
        n=n,
        right=sum(right),
        bins=bins,
        ece=round(sum(each.n * abs(each.predicted - each.share) for each in bins) / max(1, n), 4),
        brier=round(sum((p - truth) ** 2 for p, truth in ordered) / max(1, n), 4),
    )


def least_confidence(stated: Sequence[float], right: Sequence[bool]) -> float:
    """The lowest probability from which on a share of PRECISION of the answers is right; PRECISION itself where there is none.

    The share is estimated with one right and one wrong answer more than there were, so that a few lucky ones are not enough;
    and the mean of the stated probabilities must reach it as well. It is never under one half, however often a pair is right:
    no answer that is more probably wrong counts as solved.
    """
    found: float | None = None
    hits, total = 0, 0.0
    ordered = sorted(zip(stated, right, strict=True), reverse=True)
    for number, (probability, truth) in enumerate(ordered, 1):
        hits, total = hits + truth, total + probability
        last_of_equals = number == len(ordered) or ordered[number][0] < probability
        if last_of_equals and (hits + 1) / (number + 2) >= PRECISION and total / number >= PRECISION:
            # Rounded down, so that the answer itself still passes.
            found = int(probability * 1e4) / 1e4
    return PRECISION if found is None else max(0.5, found)


def _problems(votes: Sequence[LabelledVote]) -> _Problems:
    most = max((len(vote.groups) for vote in votes), default=1)
    found = _Problems(
        np.zeros((len(votes), most, len(FEATURES))),
        np.zeros((len(votes), most), dtype=np.bool_),
        np.zeros((len(votes), most)),
    )
    for place, vote in enumerate(votes):
        count = len(vote.groups)
        found.features[place, :count] = features(vote.groups)
        found.there[place, :count] = True
        if any(vote.right):
            # Two groups that equal the reference (an odd spelling) are one truth: the first.
            found.right[place, list(vote.right).index(True)] = 1.0
    return found


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


def _out_of_fold(problems: _Problems, strength: float) -> Floats:
    """The probabilities of each problem's answers, from a model of the problems in other folds."""
    found = np.zeros(problems.right.shape)
    for fold in _folds(len(problems)):
        others = np.setdiff1d(np.arange(len(problems)), fold).tolist()
        found[fold] = _fit(problems.some(others), strength).probabilities(problems.some(fold))
    return found


def _likelihood(problems: _Problems, probabilities: Floats) -> float:
    """Logarithm of the likelihood of what is true."""
    known = problems.right.any(axis=1)
    of_right = (problems.right * probabilities).sum(axis=1)
    of_none = 1.0 - probabilities.sum(axis=1)
    return float(np.log(np.maximum(1e-12, np.where(known, of_right, of_none))).sum())


def _fit(problems: _Problems, strength: float) -> _Model:
    """Newton's method on the penalised likelihood; the constant is not penalised."""
    every = problems.features[problems.there]
    mean, scale = every.mean(axis=0), every.std(axis=0)
    scale = np.where(scale < 1e-9, 1.0, scale)
    design = _design(problems, mean, scale)
    penalty = np.diag([strength] * len(FEATURES) + [1e-6])
    weights = np.zeros(len(FEATURES) + 1)
    for _ in range(_STEPS):
        p = _softmax_with_none(design @ weights, problems.there)
        gradient = np.einsum("pgf,pg->f", design, problems.right - p) - penalty @ weights
        expected = np.einsum("pgf,pg->pf", design, p)
        curvature = np.einsum("pgf,pg,pgh->fh", design, p, design) - expected.T @ expected + penalty
        step = np.linalg.solve(curvature, gradient)
        # A full step can overshoot where right and wrong answers are nearly separable.
        weights = weights + step * min(1.0, 5.0 / max(1e-12, float(np.abs(step).max())))
        if np.abs(step).max() < _SMALL_STEP:
            break
    return _Model(mean, scale, weights)


def _design(problems: _Problems, mean: Floats, scale: Floats) -> Floats:
    """Standardised features and the constant, 0 in the padding: shape (problems, answers, features + 1)."""
    scaled = (problems.features - mean) / scale
    whole = np.concatenate([scaled, np.ones((*problems.there.shape, 1))], axis=2)
    design: Floats = whole * problems.there[:, :, None]
    return design


def _softmax_with_none(scores: Floats, there: NDArray[np.bool_]) -> Floats:
    """As `aggregator.softmax_with_none`, for all problems at once; 0 in the padding."""
    scores = np.where(there, scores, -np.inf)
    largest = np.maximum(0.0, scores.max(axis=1, keepdims=True))
    weights = np.exp(scores - largest)
    found: Floats = weights / (weights.sum(axis=1, keepdims=True) + np.exp(-largest))
    return found
