"""PRM1, the training-free scorer that the method starts from: how surely the policy writes its own steps.

The score of a step is a logistic function of the mean log-probability of the steps up to and including it (each step counts
once, whatever its length). It was chosen by measurement over the other training-free signals: docs/measurements/prm1.md has the
step- and trajectory-level AUC of each.

Limits: it knows how sure the policy is, not whether the step is right; the coefficients belong to `small`, for which they
were fitted. For another policy the order of scores holds, their calibration may not.
"""

import math
from collections.abc import Sequence

INTERCEPT = 0.2
"""Log-odds of a step that the policy was certain of."""
SLOPE = 12.0
"""Log-odds per nat of mean log-probability. Both were fitted on solutions of 32 GSM8K training problems, six of each."""


def step_scores(logprobs: Sequence[float]) -> list[float]:
    """A score in [0, 1] for each step, from the mean log-probability of each (nats, at most 0)."""
    scores: list[float] = []
    total = 0.0
    for count, logprob in enumerate(logprobs, 1):
        total += min(0.0, logprob)
        scores.append(1.0 / (1.0 + math.exp(-max(-50.0, INTERCEPT + SLOPE * total / count))))
    return scores
