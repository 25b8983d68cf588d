"""Two exact answers about counted successes: how sure a share is, and whether one of two is better on the same problems.

Pure; counts are of whole problems.
"""

import math

Z_95 = 1.959963984540054
"""Standard deviations of a normal distribution on either side that hold 95 % of it."""


def wilson(successes: int, n: int, z: float = Z_95) -> tuple[float, float]:
    """Wilson score interval for a proportion; (0, 1) when nothing was tried."""
    if n == 0:
        return 0.0, 1.0
    share = successes / n
    centre = share + z * z / (2 * n)
    spread = z * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n))
    scale = 1 + z * z / n
    return max(0.0, (centre - spread) / scale), min(1.0, (centre + spread) / scale)


def binomial_tail(successes: int, n: int) -> float:
    """P(X >= successes) for X ~ Binomial(n, 1/2)."""
    return sum(math.comb(n, k) for k in range(max(0, successes), n + 1)) / (1 << n)


def mcnemar(first: int, second: int) -> float:
    """p of the exact two-sided McNemar test: so many problems only the first solved, so many only the second."""
    return min(1.0, 2 * binomial_tail(max(first, second), first + second))
