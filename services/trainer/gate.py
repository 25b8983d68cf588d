"""The gate: whether a new pair is promoted, by what it and the best pair so far solve of the same development problems.

A pair is promoted when it is shown to be *not worse* by `margin` or more, both alone (the policy's own samples) and as a
system. Each of the two is looked at again and again while problems come in, until it is decided: of pairs that are worse by
the margin at most `false_promotion` pass, of pairs that are as good at most `false_rejection` are found worse. Where all
problems do not decide it nothing is shown, and the pair that serves stays.

Pure. What the rule's errors are in fact is simulated by benchmarks/gate_errors.py.
"""

from collections.abc import Mapping, Sequence

from ratchet.contracts.round_metrics import Comparison, Decision, Verdict
from ratchet.contracts.rounds import Gate
from ratchet.statistics import paired_interval
from services.trainer.sequential import bounds, standardised

POLICY, SYSTEM = "development.samples", "development.mcts"
"""What is compared: the policy's own samples, and search with the PRM."""
CLOSE = 1.0
"""Standard errors by which a preferred pair may seem worse than the best one."""
GROWTH = 0.5
"""A later block is so much of the problems before it: many looks at nearly the same problems would say little."""


def looks(problems: int, block: int) -> tuple[int, ...]:
    """After how many problems the comparisons are looked at; all of them at the last look."""
    found = [min(block, problems)]
    while found[-1] < problems:
        found.append(min(problems, found[-1] + max(block, round(GROWTH * found[-1]))))
    return tuple(found)


def compare(
    differences: Sequence[float], rules: Gate, comparisons: int, planned: tuple[int, ...], look: int
) -> Comparison:
    """The new pair's share of right tries less the old one's, problem by problem, at one of the planned looks.

    `comparisons`: how many there are. A promotion needs all of them, so the false rejections of each add up, and each may
    have its part (Bonferroni); the false promotions do not.
    """
    not_worse = bounds(planned, rules.false_promotion)[look]
    worse = bounds(planned, rules.false_rejection / comparisons)[look]
    decision = Decision.UNDECIDED
    if standardised(differences, rules.margin) >= not_worse:
        decision = Decision.NOT_WORSE
    elif standardised(differences, 0.0) <= -worse:
        decision = Decision.WORSE
    n = len(differences)
    low, high = paired_interval(differences)
    return Comparison(
        n=n,
        difference=round(sum(differences) / n, 4) if n else 0.0,
        ci95=(round(low, 4), round(high, 4)),
        decision=decision,
    )


def paired(old: str, new: str, samples: int) -> list[float]:
    """Differences of the shares of right tries, from outcomes of the same problems; a search that failed pairs out.

    A digit says how many of a problem's `samples` tries were right; "-": its search failed. One list may be longer.
    """
    return [
        (int(after) - int(before)) / samples
        for before, after in zip(old, new, strict=False)
        if "-" not in (before, after)
    ]


def preferred(outcomes: Mapping[str, str]) -> str:
    """Of pairs, the preferred one first, the first that is within one standard error of the best; outcomes as in `paired`.

    Few problems choose, and two PRMs mostly differ on one or two of them: the newer PRM has learnt from more trees.
    """
    best = max(outcomes, key=lambda pair: sum(map(int, outcomes[pair].replace("-", ""))))
    return next(
        pair for pair in outcomes if standardised(paired(outcomes[best], outcomes[pair], 1), 0.0) >= -CLOSE
    )


def is_open(comparison: Comparison) -> bool:
    """Whether more problems may still decide it."""
    return comparison.decision is Decision.UNDECIDED


def is_decided(comparisons: Mapping[str, Comparison]) -> bool:
    """Whether more problems can change nothing: one comparison is lost, or all are won."""
    decisions = [each.decision for each in comparisons.values()]
    return Decision.WORSE in decisions or Decision.UNDECIDED not in decisions


def is_promoted(comparisons: Mapping[str, Comparison]) -> bool:
    """Whether every comparison shows that the new pair is not worse. No comparison shows nothing."""
    return bool(comparisons) and all(each.decision is Decision.NOT_WORSE for each in comparisons.values())


def is_best(comparisons: Mapping[str, Comparison]) -> bool:
    """Whether a promoted pair takes the place of the best one so far: only one that does not seem to be worse.

    The next pair is compared with the best one. So pairs that each lose a little, too little to be refused, cannot
    follow one another downwards.
    """
    return is_promoted(comparisons) and all(each.difference >= 0 for each in comparisons.values())


def why_rejected(verdict: Verdict) -> str:
    """The reason of a round whose pair is not promoted."""
    worse = [name for name, each in verdict.comparisons.items() if each.decision is Decision.WORSE]
    if worse:
        return f"worse than the best pair so far: {', '.join(worse)}"
    n = max((each.n for each in verdict.comparisons.values()), default=0)
    return (
        f"not shown to be as good as the best pair so far after {n} development problems: {', '.join(verdict.lost)}. "
        "More problems (development.count) would decide it."
    )
