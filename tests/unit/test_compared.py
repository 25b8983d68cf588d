"""Two evaluations problem by problem: what is paired, and what is shown of it."""

import pytest

from ratchet.statistics import mcnemar
from ratchet.store.rounds import RoundProblem
from services.trainer.compared import Evaluated, TooLongTestError, compare, outcomes_of


def evaluated(name: str, outcomes: str, tries: int = 1) -> Evaluated:
    return Evaluated(name, tries, outcomes_of(outcomes, [f"p{place}" for place in range(len(outcomes))]))


def test_problems_that_both_tried_are_paired_and_the_others_counted() -> None:
    found = compare(evaluated("old", "1100-00"), evaluated("new", "10111"))
    assert found is not None
    # The fifth failed in the old one, the last two are not in the new one.
    assert (found.n, found.first.left_out, found.second.left_out) == (4, 2, 1)
    assert (found.first.accuracy, found.second.accuracy, found.difference) == (0.5, 0.75, 0.25)
    assert (found.better, found.worse, found.p) == (2, 1, mcnemar(2, 1))
    assert [each.id for each in found.differing] == ["p1", "p2", "p3"], "what was lost first"
    assert [(each.first, each.second) for each in found.differing] == [(1, 0), (0, 1), (0, 1)]


def test_evaluations_with_different_numbers_of_tries_are_compared_by_their_shares() -> None:
    found = compare(evaluated("one try", "101"), evaluated("four tries", "240", tries=4))
    assert found is not None
    assert found.difference == pytest.approx((0.5 - 1 + 1 - 0 + 0 - 1) / 3)
    assert (found.better, found.worse) == (1, 2)
    assert found.first.ci95[0] < found.first.accuracy < found.first.ci95[1]


def test_the_texts_and_searches_that_are_known_go_with_the_problems() -> None:
    text = RoundProblem(0, "How many?", "3", "", None, "file:1")
    known = Evaluated("a", 1, {"p0": 1}, {"p0": text})
    found = compare(Evaluated("b", 1, {"p0": 0}), known)
    assert found is not None
    [one] = found.differing
    assert (one.problem, one.source, one.first_search) == ("How many?", "file:1", None)


def test_nothing_in_common_is_no_comparison_and_too_much_is_refused() -> None:
    assert compare(evaluated("a", "1"), Evaluated("b", 1, {"q": 1})) is None
    many = "1" * 5000
    assert compare(evaluated("a", many), evaluated("b", many)) is not None
    with pytest.raises(TooLongTestError):
        compare(evaluated("a", many, tries=15), evaluated("b", many, tries=16))
