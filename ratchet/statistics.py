"""How sure a share of solved problems is, and whether one of two solvers is better on the same problems.

A problem may be tried with several seeds. Its tries are not independent, so problems are what is counted: intervals and tests
take each problem's successes together. With one try a problem they are the textbook's.

Pure.
"""

import math
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

Z_95 = 1.959963984540054
"""Standard deviations of a normal distribution on either side that hold 95 % of it."""


def wilson(successes: int, n: int, z: float = Z_95) -> tuple[float, float]:
    """Wilson score interval for a proportion; (0, 1) when nothing was tried."""
    if n == 0:
        return 0.0, 1.0
    return _wilson(successes / n, n, z)


def _wilson(share: float, n: float, z: float) -> tuple[float, float]:
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


def clustered_wilson(successes: Sequence[int], tries: int) -> tuple[float, float]:
    """95 % interval of the share of successes, of problems with `tries` tries each.

    Wilson's, with the effective sample size: as many independent tries as would be just as sure (Korn and Graubard 1998).
    One try a problem gives `wilson`; tries that always agree count once.
    """
    n = len(successes)
    if n == 0:
        return 0.0, 1.0
    share = sum(successes) / (n * tries)
    variance = sum((each / tries - share) ** 2 for each in successes) / n**2
    effective = share * (1 - share) / variance if variance > 0 else n
    # More sure than all tries, or less than the problems, it is only by chance.
    effective = min(max(effective, n), n * tries)
    return _wilson(share, effective, Z_95)


def paired_interval(differences: Sequence[float]) -> tuple[float, float]:
    """95 % interval of the mean difference of two solvers' shares of solved tries, problem by problem, each in [-1, 1].

    Bonett and Price (2012): the normal interval once two problems are added, of which each solver alone solves one. With one
    try a problem it is theirs; with several it is clustered by problem.
    """
    adjusted = [*differences, 1.0, -1.0]
    mean = sum(adjusted) / len(adjusted)
    variance = sum((each - mean) ** 2 for each in adjusted) / len(adjusted) ** 2
    spread = Z_95 * math.sqrt(variance)
    return max(-1.0, mean - spread), min(1.0, mean + spread)


def sign_flip(differences: Sequence[int]) -> float:
    """p of the exact two-sided sign-flip test (Fisher's randomisation test) of "no solver is better on any problem".

    `differences` are of counted successes, problem by problem: under the null each is as likely with the other sign. With one
    try a problem it is the exact McNemar test.
    """
    sizes = Counter(abs(each) for each in differences if each)
    total, observed = sum(size * n for size, n in sizes.items()), abs(sum(differences))
    # chances[k]: that the differences with a positive sign sum to k.
    chances = [1.0]
    for size, n in sizes.items():
        of_size = [ways / (1 << n) for ways in _binomials(n)]
        sums = [0.0] * (len(chances) + size * n)
        for place, chance in enumerate(chances):
            for k, share in enumerate(of_size):
                sums[place + size * k] += chance * share
        chances = sums
    # With k positive, the sum of all is 2 k - total.
    return min(1.0, sum(chance for k, chance in enumerate(chances) if abs(2 * k - total) >= observed))


@dataclass(frozen=True, slots=True)
class PairedTest:
    """Two solvers on the same problems."""

    difference: float
    """Share of solved tries: of the one less that of the other."""
    ci95: tuple[float, float]
    """Of the difference: Bonett and Price's (2012), clustered by problem."""
    better: int
    """Problems of which the one solves the larger share of its tries."""
    worse: int
    p: float
    """Exact two-sided sign-flip test; with one try of each it is McNemar's."""


def paired_test(ours: Sequence[int], our_tries: int, theirs: Sequence[int], their_tries: int) -> PairedTest:
    """Counted successes of two solvers on the same problems, one at the least; they may have different numbers of tries."""
    # Whole numbers: successes of both, had each been tried so often.
    tries = math.lcm(our_tries, their_tries)
    differences = [
        one * (tries // our_tries) - other * (tries // their_tries)
        for one, other in zip(ours, theirs, strict=True)
    ]
    shares = [each / tries for each in differences]
    return PairedTest(
        difference=sum(shares) / len(shares),
        ci95=paired_interval(shares),
        better=sum(each > 0 for each in differences),
        worse=sum(each < 0 for each in differences),
        p=sign_flip(differences),
    )


def _binomials(n: int) -> Iterator[int]:
    """C(n, 0) to C(n, n), each from the one before: anew, those of thousands of problems would take seconds."""
    ways = 1
    for k in range(n + 1):
        yield ways
        ways = ways * (n - k) // (k + 1)
