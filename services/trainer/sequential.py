"""Tests that are asked again while problems come in: where they may stop, so that all looks together keep the error rate.

A look is a number of problems. The bounds spend the error rate over the looks as Lan and DeMets (1983) do with Pocock's
function, by numerical integration (Armitage, McPherson and Rowe 1969): early looks can stop what is clear, and at the last
look nearly a test of fixed size is left.

Pure. Limits: means of differences are taken for normal, which a first look at some tens of problems allows.
"""

import math
from collections.abc import Sequence
from functools import lru_cache
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

GRID = 401
"""Points at which a density is kept: bounds are right to about 0.001."""
_LOWEST = -7.0
"""Standard deviations below which nothing is left of a density."""
_STEPS = 50

Values = NDArray[np.float64]


def standardised(differences: Sequence[float], shift: float) -> float:
    """The mean of paired differences, each in [-1, 1], plus `shift`, in standard errors of the mean.

    The variance is that of Bonett and Price (2012), with two problems more, of which each solver alone solves one: few
    problems that all agree are not taken for certainty.
    """
    n = len(differences)
    if n == 0:
        return 0.0
    mean = math.fsum(differences) / n
    variance = (math.fsum((each - mean) ** 2 for each in differences) + 2.0) / (n + 2)
    return (mean + shift) * math.sqrt(n / variance)


def spent(level: float, fraction: float) -> float:
    """What of the error rate may be used up by a look at this fraction of all problems: Pocock's spending function."""
    return level * math.log(1 + (math.e - 1) * min(1.0, fraction))


@lru_cache(maxsize=256)
def bounds(looks: tuple[int, ...], level: float) -> tuple[float, ...]:
    """For each look the standardised value from which on the null is refused; over all looks with probability `level`.

    `looks`: ascending numbers of problems, the last of which are all.
    """
    fractions = [look / looks[-1] for look in looks]
    found: list[float] = []
    # The sums so far, of those that no look has stopped: a Brownian motion at the looks' fractions.
    points, weights = np.zeros(1), np.ones(1)
    before = 0.0
    for fraction in fractions:
        deviation = math.sqrt(fraction - before)
        allowed = spent(level, fraction) - spent(level, before)
        edge = _edge(points, weights, deviation, allowed)
        found.append(edge / math.sqrt(fraction))
        grid = np.linspace(_LOWEST * math.sqrt(fraction), edge, GRID)
        steps = (grid[:, None] - points[None, :]) / deviation
        density = (np.exp(-0.5 * steps**2) * weights[None, :]).sum(axis=1) / (
            deviation * math.sqrt(2 * math.pi)
        )
        widths = np.full(GRID, grid[1] - grid[0])
        widths[[0, -1]] /= 2
        points, weights, before = grid, density * widths, fraction
    return tuple(found)


def _edge(points: Values, weights: Values, deviation: float, allowed: float) -> float:
    """The sum beyond which the next look lies with the probability `allowed`."""
    normal = NormalDist()
    low, high = -10.0, 10.0
    for _ in range(_STEPS):
        middle = (low + high) / 2
        beyond = sum(
            weight * normal.cdf((point - middle) / deviation)
            for point, weight in zip(points.tolist(), weights.tolist(), strict=True)
        )
        low, high = (middle, high) if beyond > allowed else (low, middle)
    return (low + high) / 2
