"""What is a number, and when are two the same."""

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.sandbox.grader import quantity, same_quantity


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("72", 72),
        ("72.", 72),
        (" -3.50 ", Fraction(-7, 2)),
        ("−3", -3),
        (".5", Fraction(1, 2)),
        ("1e-7", Fraction(1, 10**7)),
        ("2E3", 2000),
        ("1,234,567.5", Fraction(2469135, 2)),
        ("$1,200", 1200),
        ("-$5", -5),
        ("$-5", -5),
        ("\\$18", 18),
        ("$18$", 18),
        ("€5.50", Fraction(11, 2)),
        ("3 / 4", Fraction(3, 4)),
        ("1 1/2", Fraction(3, 2)),
        ("-1 1/2", Fraction(-3, 2)),
        ("\\frac{1}{2}", Fraction(1, 2)),
        ("-\\dfrac{3}{4}", Fraction(-3, 4)),
        ("12 apples.", 12),
        ("12\\text{ cm}", 12),
        ("2 million", 2_000_000),
        ("50 percent", 50),
    ],
)
def test_a_number_is_read_as_written(text: str, value: Fraction) -> None:
    found = quantity(text)
    assert found is not None
    assert found.value == value


@pytest.mark.parametrize(
    "text",
    [
        "",
        "x",
        "2x",
        "2 x",
        "3 i",
        "1,2",
        "12,34",
        "5 or 6",
        "1/0",
        "2 times 3",
        "3 pi",
        "1e9999",
        "--3",
        "2 dozen",
        "1 2",
    ],
)
def test_what_is_not_one_number_is_not_read_as_one(text: str) -> None:
    assert quantity(text) is None


def _same(left: str, right: str) -> bool:
    ours, theirs = quantity(left), quantity(right)
    assert ours is not None
    assert theirs is not None
    return same_quantity(ours, theirs)


def test_a_percentage_is_the_number_as_written_or_a_hundredth_of_it() -> None:
    assert _same("50%", "50")
    assert _same("50%", "0.5")
    assert not _same("50%", "5")
    # Both are percentages: only what is written counts.
    assert not _same("50%", "0.5%")
    assert not _same("100%", "1%")


def test_units_that_differ_are_not_the_same() -> None:
    assert _same("12 apples", "12 Apple")
    assert _same("$5", "5 dollars")
    assert not _same("12 cm", "12 m")
    assert not _same("$5", "5 euros")


def test_whole_numbers_are_compared_exactly_and_others_within_the_tolerance() -> None:
    assert not _same("123456789", "123456788")
    assert _same("0.333333333", "1/3")
    assert not _same("0.3333", "1/3")
    assert not _same("1e-7", "0")
    assert _same("1e-13", "0")


@given(st.fractions())
def test_every_fraction_equals_itself_and_not_its_successor(value: Fraction) -> None:
    text = f"{value.numerator}/{value.denominator}"
    assert _same(text, text)
    assert _same(text, f"{2 * value.numerator}/{2 * value.denominator}")
    if abs(value) < 1000:
        assert not _same(text, f"{value.numerator + value.denominator}/{value.denominator}")


@given(st.text(max_size=60))
def test_any_text_is_read_or_refused(text: str) -> None:
    found = quantity(text)
    assert found is None or isinstance(found.value, Fraction)
