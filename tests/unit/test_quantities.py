"""The quantities of a problem: many spellings, one meaning; and what is no quantity."""

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ratchet.solutions.quantities import find_quantities, is_telling


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("17 sheep", ["17"]),
        ("$1,250.50", ["1250.5"]),
        ("12,345,678 people", ["12345678"]),
        ("a rate of .5 or 2.25", ["0.5", "2.25"]),
        ("a 10-foot rope, 20km, the 3rd", ["10", "20", "3"]),
        ("x^2 + 7x in x_3 and A4", ["2", "7"]),
        ("the pair (3, 4) is -5", ["3", "4", "5"]),
        ("twelve, Twenty-five, ninety nine", ["12", "25", "99"]),
        ("two hundred and five", ["205"]),
        ("a hundred thousand, five hundred", ["100000", "500"]),
        ("three million two hundred thousand and one", ["3200001"]),
        ("five ten-dollar bills", ["5", "10"]),
        ("twice as much, doubled, triple", ["2", "2", "3"]),
        ("a dozen eggs, 1 dozen", ["12", "12"]),
        ("10 / 2 and 7/2", ["10", "2", "7", "2"]),
        ("one of 0 or 1", []),
        ("in a second, the others", []),
    ],
)
def test_numbers_are_read_as_they_are_written(text: str, values: list[str]) -> None:
    assert [quantity.values[0] for quantity in find_quantities(text)] == [Fraction(value) for value in values]


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("20 %", ["20", "1/5", "6/5", "4/5", "5"]),
        ("20% off", ["20", "1/5", "6/5", "4/5", "5"]),
        (r"20\% off", ["20", "1/5", "6/5", "4/5", "5"]),
        ("twenty percent", ["20", "1/5", "6/5", "4/5", "5"]),
        ("20 per cent", ["20", "1/5", "6/5", "4/5", "5"]),
        ("100%", ["100", "2"]),
        ("half of it", ["2", "1/2", "3/2"]),
        ("a third", ["3", "1/3", "2/3", "4/3"]),
        ("two-thirds", ["3", "2/3", "1/3", "5/3"]),
        ("three quarters", ["4", "3/4", "1/4", "7/4"]),
        ("3/4 of it", ["4", "3/4", "1/4", "7/4"]),
        (r"\frac{3}{4} of it", ["4", "3/4", "1/4", "7/4"]),
        ("¾ of it", ["4", "3/4", "1/4", "7/4"]),
        ("2 1/2 hours", ["5/2", "5", "2"]),
        ("2½ hours", ["5/2", "5", "2"]),
        ("two and a half hours", ["5/2", "5", "2"]),
        ("three dozen", ["3", "36"]),
        ("1.5 million", ["3/2", "1500000"]),
        ("75 cents", ["75", "3/4"]),
    ],
)
def test_a_quantity_has_every_number_by_which_programs_state_it(text: str, values: list[str]) -> None:
    [quantity] = find_quantities(text)
    assert quantity.values == tuple(map(Fraction, values))


@given(st.text(alphabet="0123456789 ,./%-\\!{}$½abc and half dozen two hundred", max_size=80) | st.text())
def test_whatever_the_text_quantities_are_in_order_and_state_something(text: str) -> None:
    end = 0
    for quantity in find_quantities(text):
        assert end <= quantity.start < quantity.end <= len(text)
        end = quantity.end
        assert quantity.values
        assert all(map(is_telling, quantity.values))


@given(st.integers(2, 10**30))
def test_thousands_separators_change_nothing(number: int) -> None:
    for text in (f"{number}", f"{number:,}", f"{number:,}".replace(",", r",\!")):
        [quantity] = find_quantities(f"There are {text} of them.")
        assert quantity.values == (Fraction(number),)


def test_a_number_without_end_is_no_quantity_and_no_error() -> None:
    assert find_quantities("9" * 10_000) == []
