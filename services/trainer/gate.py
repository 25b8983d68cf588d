"""The gate: whether the new pair is promoted, judged by paired outcomes on the same development problems.

Pure. Outcomes are digits by problem, "1" where it was solved.
"""

from collections.abc import Mapping
from typing import Any

from ratchet.contracts.rounds import Gate
from ratchet.contracts.search import StrategyName
from ratchet.statistics import binomial_tail

SYSTEM = f"development.{StrategyName.MCTS}"


def gate(incumbent: Mapping[str, Any], candidate: Mapping[str, Any], rules: Gate) -> dict[str, Any]:
    """Whether the candidate is promoted: it must not lose on development problems, neither alone nor as a system."""
    comparisons = {}
    for name in (f"development.{StrategyName.GREEDY}", SYSTEM):
        if name in incumbent and name in candidate:
            comparisons[name] = compare(incumbent[name]["outcomes"], candidate[name]["outcomes"], rules)
    lost = [name for name, each in comparisons.items() if each["loses"]]
    return {"promoted": not lost, "lost": lost, "comparisons": comparisons, **rules.model_dump()}


def accepted(verdicts: Mapping[str, Any]) -> tuple[bool, bool]:
    """Whether the new policy is to serve, and whether the new PRM is: one that loses alone is rejected alone."""
    promoted = bool(verdicts["promoted"])
    return promoted, promoted and not (verdicts["prm"] or {}).get("loses", False)


def compare(old: str, new: str, rules: Gate) -> dict[str, Any]:
    """Paired outcomes of the same problems: an exact one-sided McNemar test of "the new one is worse"."""
    worse = sum(before == "1" and after == "0" for before, after in zip(old, new, strict=True))
    better = sum(before == "0" and after == "1" for before, after in zip(old, new, strict=True))
    p = binomial_tail(worse, worse + better)
    difference = (better - worse) / max(1, len(old))
    loses = (worse > better and p < rules.alpha) or difference < -rules.tolerance
    return {
        "n": len(old),
        "better": better,
        "worse": worse,
        "difference": round(difference, 4),
        "p_worse": round(p, 4),
        "loses": loses,
    }
