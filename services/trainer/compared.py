"""The paired test of two evaluations: what both tried, how many tries of each problem were right, and where they differ.

Pure. A problem whose search failed in one of them pairs out, as it does at the gate.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from math import lcm
from uuid import UUID

from ratchet.contracts.evaluations import MAX_SHOWN, DifferingProblem, EvaluationComparison, EvaluationSide
from ratchet.statistics import clustered_wilson, paired_test
from ratchet.store.rounds import RoundProblem

MOST_WORK = 200_000_000
"""Additions of the exact test where problems have several tries: some seconds."""


class TooLongTestError(ValueError):
    """The exact test would take minutes."""


@dataclass(frozen=True)
class Evaluated:
    """One evaluation."""

    name: str
    tries: int
    right: Mapping[str, int]
    """By the id of the problem, how many tries were right. A problem whose search failed is not there."""
    problems: Mapping[str, RoundProblem] = field(default_factory=dict)
    """Those whose text is known."""
    searches: Mapping[str, UUID] = field(default_factory=dict)
    """By the id of the problem, the search that was counted."""


def outcomes_of(outcomes: str, ids: list[str]) -> dict[str, int]:
    """Right tries by problem, from the digits of `Measured.outcomes`, which may be of fewer problems than there are."""
    return {each: int(right) for each, right in zip(ids, outcomes, strict=False) if right != "-"}


def compare(first: Evaluated, second: Evaluated) -> EvaluationComparison | None:
    """The test over the problems that both have; None where there is none. Raises TooLongTestError."""
    shared = [each for each in first.right if each in second.right]
    if not shared:
        return None
    most = lcm(first.tries, second.tries)
    if most > 1 and len(shared) ** 2 * most > MOST_WORK:
        raise TooLongTestError(
            f"The exact test of {len(shared)} problems with {first.tries} and {second.tries} tries each would take too long."
        )
    ours, theirs = [second.right[each] for each in shared], [first.right[each] for each in shared]
    test = paired_test(ours, second.tries, theirs, first.tries)
    return EvaluationComparison(
        first=_side(first, shared),
        second=_side(second, shared),
        n=len(shared),
        difference=test.difference,
        ci95=test.ci95,
        better=test.better,
        worse=test.worse,
        p=test.p,
        differing=_differing(first, second, shared),
    )


def _side(side: Evaluated, shared: list[str]) -> EvaluationSide:
    right = [side.right[each] for each in shared]
    return EvaluationSide(
        name=side.name,
        tries=side.tries,
        accuracy=sum(right) / (len(shared) * side.tries),
        ci95=clustered_wilson(right, side.tries),
        left_out=len(side.right) - len(shared),
    )


def _differing(first: Evaluated, second: Evaluated, shared: list[str]) -> list[DifferingProblem]:
    """The problems that the second solves less of, then those that it solves more of, in their order."""
    gained = {each: second.right[each] * first.tries - first.right[each] * second.tries for each in shared}
    lost = [each for each in shared if gained[each] < 0][:MAX_SHOWN]
    won = [each for each in shared if gained[each] > 0][:MAX_SHOWN]
    found = []
    for each in lost + won:
        known = first.problems.get(each) or second.problems.get(each)
        searches = [side.searches.get(each) for side in (first, second)]
        found.append(
            DifferingProblem(
                id=each,
                problem=known.text if known else None,
                source=known.source if known else None,
                first=first.right[each],
                second=second.right[each],
                first_search=str(searches[0]) if searches[0] else None,
                second_search=str(searches[1]) if searches[1] else None,
            )
        )
    return found
