"""The gate: whether the new pair is promoted, and whether its PRM is taken, by outcomes on the same development problems.

Pure. Outcomes are digits by problem, "1" where it was solved.
"""

from collections.abc import Mapping

from ratchet.contracts.round_metrics import Comparison, Measured, Verdict
from ratchet.contracts.rounds import Gate
from ratchet.contracts.search import StrategyName
from ratchet.statistics import binomial_tail

POLICY = f"development.{StrategyName.GREEDY}"
SYSTEM = f"development.{StrategyName.MCTS}"


def gate(
    incumbent: Mapping[str, Measured],
    candidate: Mapping[str, Measured],
    rules: Gate,
    prm: Comparison | None = None,
) -> Verdict:
    """Whether the candidate is promoted: it must not lose on development problems, neither alone nor as a system.

    `prm` is what the comparison of the PRMs has said already.
    """
    comparisons = {
        name: compare(incumbent[name].outcomes, candidate[name].outcomes, rules)
        for name in (POLICY, SYSTEM)
        if name in incumbent and name in candidate
    }
    lost = [name for name, each in comparisons.items() if each.loses]
    return Verdict(
        promoted=not lost,
        lost=lost,
        comparisons=comparisons,
        alpha=rules.alpha,
        tolerance=rules.tolerance,
        prm=prm,
    )


def accepted(verdict: Verdict) -> tuple[bool, bool]:
    """Whether the new policy is to serve, and whether the new PRM is: one that loses alone is rejected alone."""
    prm_loses = verdict.prm is not None and verdict.prm.loses
    return verdict.promoted, verdict.promoted and not prm_loses


def compare(old: str, new: str, rules: Gate) -> Comparison:
    """Paired outcomes of the same problems: an exact one-sided McNemar test of "the new one is worse"."""
    worse = sum(before == "1" and after == "0" for before, after in zip(old, new, strict=True))
    better = sum(before == "0" and after == "1" for before, after in zip(old, new, strict=True))
    p = binomial_tail(worse, worse + better)
    difference = (better - worse) / max(1, len(old))
    return Comparison(
        n=len(old),
        better=better,
        worse=worse,
        difference=round(difference, 4),
        p_worse=round(p, 4),
        loses=(worse > better and p < rules.alpha) or difference < -rules.tolerance,
    )
