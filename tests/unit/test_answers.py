"""Which answers are the same to the voter: values to nine digits, solutions in any order, prose by its words."""

from decimal import Decimal
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ratchet.contracts.sandbox import MAX_ANSWER_CHARS, StepResult, StepStatus
from ratchet.solutions.answers import (
    answer_group,
    answer_key,
    answer_of,
    grade_request,
    last_line,
    numeric_value,
)

rationals = st.fractions(max_denominator=10**12)
spaces = st.text(" \t\n", max_size=3)


@given(st.text(max_size=60))
def test_any_text_has_a_key_and_blanks_do_not_matter(text: str) -> None:
    assert answer_key(text)
    assert answer_key(f"  {text}\n") == answer_key(text)


@given(st.integers(-(10**30), 10**30), spaces, st.integers(0, 5))
def test_an_integer_is_itself_however_it_is_written(number: int, blank: str, zeros: int) -> None:
    key = f"number:{number}"
    for written in (f"{number}", f"{number:,}", f"{number:+}", f"{number}.", f"{number}.{'0' * zeros}0"):
        assert numeric_value(blank + written + blank) == number
        assert answer_key(blank + written + blank) == key
    assert answer_key(f"{number}/1") == key
    assert answer_key(f"{7 * number}/7") == key


@given(st.integers(), st.integers())
def test_different_integers_are_different_answers(one: int, other: int) -> None:
    assert (answer_key(str(one)) == answer_key(str(other))) == (one == other)


@given(rationals)
def test_a_fraction_has_its_value(number: Fraction) -> None:
    assert numeric_value(f"{number.numerator}/{number.denominator}") == number


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_a_float_is_read_as_it_is_printed(number: float) -> None:
    assert numeric_value(repr(number)) == Fraction(Decimal(repr(number)))


@given(rationals.filter(lambda number: number != 0))
def test_the_key_is_within_a_billionth_of_the_value(number: Fraction) -> None:
    kind, _, rounded = answer_key(f"{number.numerator}/{number.denominator}").partition(":")
    assert kind == "number"
    assert abs(Fraction(rounded) - number) <= abs(number) / 10**8 / 2


@given(st.integers(1, 10**9 - 1), st.integers(-20, 20))
def test_noise_beyond_the_ninth_digit_makes_no_other_answer(digits: int, exponent: int) -> None:
    clean = Fraction(digits) * Fraction(10) ** (exponent - len(str(digits)))
    if clean.denominator == 1 and clean >= 10**9:
        return  # Long integers are exact.
    key = answer_key(f"{clean.numerator}/{clean.denominator}")
    for noise in (Fraction(1, 10**11), Fraction(-1, 10**11)):
        noisy = clean * (1 + noise)
        assert answer_key(f"{noisy.numerator}/{noisy.denominator}") == key


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("72", "71.9999999999", True),
        ("72", "71.99", False),
        ("1/3", "0.3333333333", True),
        ("1/3", "0.333333", False),
        ("12345678901", "12345678902", False),
        ("12345678901", "12345678901.0000001", True),
        ("0", "-0.0", True),
        ("1,000", "1e3", True),
        ("2/4", ".5", True),
        ("5 apples", "5", False),
        ("x + 1", " x  +  1 ", True),
        ("1/0", "2/0", False),
        ("nan", "NaN", True),
        ("Yes", "\\text{yes}", True),
        ("1,3", "13", False),
        ("1,3", "3, 1", True),
        ("[1, 2]", "{2, 1}", True),
        ("[2, 1]", "1, 2", True),
        ("[1, 1, 2]", "[1, 2]", False),
        ("(1, 2)", "(2, 1)", False),
        ("(1, 2)", "\\left(1, 2\\right)", True),
        ("[5]", "5", True),
        ("x = 5", "5", True),
        ("$5", "5", True),
        ("90°", "90", True),
        ("5 cm", "5 m", False),
        ("50%", "50", False),
        ("sqrt(2)/2", "1/sqrt(2)", True),
        ("sqrt(2)/2", "0.7071067811865476", True),
        ("sqrt(4)", "2", True),
        ("2**100", "1267650600228229401496703205376", True),
        ("2**100", "1267650600228229401496703205377", False),
        ("9**9**9**9", "9^{9^{9^9}}", True),
        ("9**9**9**9", "9**9**9**8", False),
        ("3 + 4*I", "(3+4j)", True),
        ("2*E", "2e", True),
        ("1.2246467991473532e-16", "0", True),
        ("4.6e-24", "1.3e-27", False),
        ("x**2 - 1", "(x - 1)*(x + 1)", True),
        ("x**2 - 1", "y**2 - 1", False),
        ("x > 3", "(3, oo)", True),
        ("1 < x < 2", "1 \\le x < 2", False),
        ("Matrix([[1], [2]])", "\\begin{pmatrix}1\\\\2\\end{pmatrix}", True),
    ],
)
def test_the_same_answer_or_not(one: str, other: str, same: bool) -> None:
    assert (answer_key(one) == answer_key(other)) is same


@pytest.mark.parametrize(
    "text",
    ["", "12a", "1/0", "1,3", "nan", "inf", "1_000", "1e9999", "--1", "9" * 500, "x", "(1, 2)", "5 or 6"],
)
def test_what_is_not_one_number_has_no_value(text: str) -> None:
    assert numeric_value(text) is None


def test_the_value_of_a_number_leaves_its_unit_aside() -> None:
    assert numeric_value("$1,200.50") == Fraction(2401, 2)
    assert numeric_value("12 apples") == 12
    assert numeric_value("50%") == 50


@given(st.lists(st.text(max_size=8), max_size=5))
def test_the_answer_is_the_last_line_that_says_something(lines: list[str]) -> None:
    found = last_line("\n".join(lines))
    said = [line.strip() for line in "\n".join(lines).splitlines() if line.strip()]
    assert found == (said[-1] if said else None)


@pytest.mark.parametrize(
    ("stdout", "truncated", "answer"),
    [
        ("so\n 42 \n\n", False, "42"),
        ("so\n 42 \n\n", True, None),
        (" \n", False, None),
        ("", False, None),
        ("7" * MAX_ANSWER_CHARS, False, "7" * MAX_ANSWER_CHARS),
        ("7" * (MAX_ANSWER_CHARS + 1), False, None),
        ("1\n" + " " * 9000 + "2", False, "2"),
    ],
)
def test_an_answer_is_a_line_that_is_known_and_that_a_grader_reads(
    stdout: str, truncated: bool, answer: str | None
) -> None:
    step = StepResult(status=StepStatus.OK, stdout=stdout, stdout_truncated=truncated)
    assert answer_of(step) == answer


@pytest.mark.parametrize("text", ["x" * (MAX_ANSWER_CHARS + 1), "a\0b", "\ud83d"])
def test_what_the_grader_does_not_take_is_no_question_for_it(text: str) -> None:
    assert grade_request("1", "x" * MAX_ANSWER_CHARS)
    assert grade_request(text, "1") is None
    assert grade_request("1", text) is None


def test_the_name_of_a_group_is_that_of_the_key_and_short() -> None:
    assert answer_group("1/2") == answer_group(" 0.5 ") != answer_group("2")
    assert len(answer_group("a long story " * 100)) == 16


def test_a_vote_over_a_large_tree_reads_no_answer_twice() -> None:
    answers = [f"{number}/7" for number in range(10_000)]
    for _ in range(2):
        before = answer_key.cache_info().misses
        for answer in answers:
            answer_key(answer)
    assert answer_key.cache_info().misses == before
