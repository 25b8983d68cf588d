"""The gate: an exact paired test, and what it promotes and rejects."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ratchet.contracts.round_metrics import Measured, Verdict
from ratchet.contracts.rounds import Gate
from services.trainer.gate import accepted, compare, gate

GREEDY, SYSTEM = "development.greedy", "development.mcts"
OUTCOMES = st.lists(st.sampled_from(["00", "01", "10", "11"]), max_size=60)


def outcomes(both: int = 0, better: int = 0, worse: int = 0, neither: int = 0) -> tuple[str, str]:
    """Old and new outcomes of the same problems, with so many of each kind."""
    return (
        "1" * both + "0" * better + "1" * worse + "0" * neither,
        "1" * both + "1" * better + "0" * worse + "0" * neither,
    )


def figures(digits: str) -> Measured:
    right, n = digits.count("1"), len(digits)
    return Measured(
        n=n, right=right, accuracy=right / max(1, n), ci95=(0.0, 1.0), tokens=50.0, outcomes=digits
    )


def measured(**outcomes: str) -> dict[str, Measured]:
    return {f"development.{name}": figures(digits) for name, digits in outcomes.items()}


@pytest.mark.parametrize(
    ("better", "worse", "p"),
    [
        (0, 0, 1.0),
        (0, 1, 1 / 2),
        (1, 0, 1.0),
        (0, 5, 1 / 32),
        # C(4,3) + C(4,4) of 16.
        (1, 3, 5 / 16),
        # C(10,8) + C(10,9) + C(10,10) = 45 + 10 + 1 of 1024.
        (2, 8, 56 / 1024),
        (5, 5, 638 / 1024),
    ],
)
def test_the_probability_is_that_of_an_exact_one_sided_test(better: int, worse: int, p: float) -> None:
    found = compare(*outcomes(both=7, better=better, worse=worse, neither=3), Gate())
    assert (found.better, found.worse, found.n) == (better, worse, 10 + better + worse)
    assert found.p_worse == round(p, 4)


@given(OUTCOMES)
def test_only_problems_on_which_they_differ_count(pairs: list[str]) -> None:
    old, new = "".join(pair[0] for pair in pairs), "".join(pair[1] for pair in pairs)
    found = compare(old, new, Gate())
    alike = compare(old + "1" * 9 + "0" * 4, new + "1" * 9 + "0" * 4, Gate())
    assert found.p_worse == alike.p_worse
    assert (found.better, found.worse) == (alike.better, alike.worse)
    assert round(found.difference * len(pairs)) == new.count("1") - old.count("1")


@given(OUTCOMES, st.floats(0.01, 0.99), st.floats(0, 1))
def test_one_that_is_not_worse_never_loses_and_the_two_cannot_both_lose(
    pairs: list[str], alpha: float, tolerance: float
) -> None:
    old, new = "".join(pair[0] for pair in pairs), "".join(pair[1] for pair in pairs)
    rules = Gate(alpha=alpha, tolerance=tolerance)
    if new.count("1") >= old.count("1"):
        assert not compare(old, new, rules).loses
    assert not (compare(old, new, rules).loses and compare(new, old, rules).loses)


def test_within_the_tolerance_chance_is_forgiven_and_beyond_it_nothing_is() -> None:
    rules = Gate(alpha=0.05, tolerance=0.02)
    assert not compare(*outcomes(both=98, better=0, worse=2), rules).loses, "2 of 100, p = 1/4"
    assert compare(*outcomes(both=97, better=0, worse=3), rules).loses, "3 of 100, though p = 1/8"


def test_a_loss_that_is_no_chance_counts_however_small_it_is() -> None:
    rules = Gate(alpha=0.1, tolerance=0.01)
    found = compare(*outcomes(both=996, better=0, worse=4), rules)
    assert found.difference == -0.004
    assert found.p_worse == 1 / 16
    assert found.loses


def test_outcomes_of_other_problems_cannot_be_compared() -> None:
    with pytest.raises(ValueError, match="zip"):
        compare("101", "10", Gate())


def test_an_equal_pair_is_promoted() -> None:
    same = measured(greedy="1101", mcts="1100")
    assert gate(same, same, Gate()) == Verdict(
        promoted=True,
        lost=[],
        comparisons={name: compare(each.outcomes, each.outcomes, Gate()) for name, each in same.items()},
        alpha=0.1,
        tolerance=0.01,
    )


@pytest.mark.parametrize("name", ["greedy", "mcts"])
def test_a_pair_that_loses_alone_or_as_a_system_is_rejected(name: str) -> None:
    old, new = outcomes(both=20, worse=10)
    good = {"greedy": old, "mcts": old}
    verdict = gate(measured(**good), measured(**good | {name: new}), Gate())
    assert not verdict.promoted
    assert verdict.lost == [f"development.{name}"]


def test_held_out_problems_are_not_the_gates() -> None:
    old, new = outcomes(worse=30)
    incumbent = measured(greedy="11") | {"held_out.greedy": figures(old)}
    candidate = measured(greedy="11") | {"held_out.greedy": figures(new)}
    assert gate(incumbent, candidate, Gate()).promoted


@pytest.mark.parametrize(
    ("promoted", "prm_loses", "serve"),
    [
        (True, None, (True, True)),
        (True, False, (True, True)),
        (True, True, (True, False)),
        (False, False, (False, False)),
        (False, True, (False, False)),
    ],
)
def test_a_prm_that_loses_is_rejected_alone(
    promoted: bool, prm_loses: bool | None, serve: tuple[bool, bool]
) -> None:
    old, new = outcomes(both=20, worse=0 if promoted else 10)
    compared = None
    if prm_loses is not None:
        compared = compare(*outcomes(both=20, worse=10 if prm_loses else 0), Gate())
    assert accepted(gate(measured(greedy=old), measured(greedy=new), Gate(), compared)) == serve
