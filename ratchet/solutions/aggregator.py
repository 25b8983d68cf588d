"""How probable is each answer of a search? A multinomial logistic model over its groups of trajectories.

Exactly one of these is true: one of the answers is right, or none is. So the answers share one softmax with "none of them", and
the more another answer has behind it, the less probable each is. Features say what is behind an answer; which ones, and how
they were chosen, is in docs/measurements/trust.md.

Pure, and without numpy: the search worker asks it. It is fitted by `ratchet.solutions.calibration`.
"""

import math
from collections.abc import Sequence

from ratchet.contracts.calibration import AnswerCalibration
from ratchet.solutions.votes import AnswerGroup, End, log_odds

FEATURES = ("log_share", "log_votes", "log_prm_share", "best_score", "best_path")
"""Their names, in the order of `features`."""
_LEAST = 1e-4
"""Shares below have no smaller logarithm."""


def features(groups: Sequence[AnswerGroup]) -> list[list[float]]:
    """For each answer a value for each of FEATURES: shape (groups, features).

    - log_share: logarithm of its share of the trajectories
    - log_votes: logarithm of their number
    - log_prm_share: logarithm of its share of the expected trajectories, each weighed by all its PRM scores
    - best_score: log-odds of the best score at one of its ends
    - best_path: logarithm of the largest product of the scores along one of its paths
    """
    votes = sum(group.votes for group in groups)
    paths = [sum(end.mass * math.exp(_path(end)) for end in group.ends) for group in groups]
    whole = sum(paths)
    return [
        [
            math.log(group.votes / votes),
            math.log(group.votes),
            math.log(max(_LEAST, path / whole if whole else 0.0)),
            log_odds(max(end.score for end in group.ends)),
            max(_path(end) for end in group.ends),
        ]
        for group, path in zip(groups, paths, strict=True)
    ]


def probabilities(groups: Sequence[AnswerGroup], calibration: AnswerCalibration) -> list[float] | None:
    """The probability of each answer that it is right. None where the calibration speaks of other features than these.

    Their sum is at most 1.
    """
    if tuple(feature.name for feature in calibration.features) != FEATURES:
        return None
    return softmax_with_none(
        [
            calibration.intercept
            + sum(
                feature.coefficient * (value - feature.mean) / feature.scale
                for feature, value in zip(calibration.features, values, strict=True)
            )
            for values in features(groups)
        ]
    )


def softmax_with_none(scores: Sequence[float]) -> list[float]:
    """Softmax of the scores and of a score of 0 for "none of these", which is left out."""
    largest = max(0.0, *scores) if scores else 0.0
    weights = [math.exp(score - largest) for score in scores]
    whole = sum(weights) + math.exp(-largest)
    return [weight / whole for weight in weights]


def _path(end: End) -> float:
    """Logarithm of the product of the scores along the path."""
    return sum(math.log(max(1e-3, score)) for score in end.scores or (end.score,))
