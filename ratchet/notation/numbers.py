"""Numbers with their units, and when two are the same.

Rules: two exact numbers (integers, fractions) are compared exactly. Where a decimal takes part, they may differ by a
millionth of the larger, but by no more than a thousandth, or half of what the last written digit stands for: so
3628801.0 is not 3628800. Beside an exact zero a decimal up to 1e-12 is noise of floating point.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from fractions import Fraction

RELATIVE, NOISE = Fraction(1, 10**6), Fraction(1, 10**12)
LARGEST_ERROR = Fraction(1, 1000)
FLOAT_ERROR = Fraction(1, 10**14)
"""What a sum of some fifty floats may be off by, relatively."""


@dataclass(frozen=True)
class Number:
    """A number as it was written."""

    value: Fraction
    place: Fraction | None = None
    """What one unit of the last digit of a decimal is worth; None for an exact number."""
    percent: bool = False
    unit: str | None = None

    def __str__(self) -> str:
        sign = "%" if self.percent else ""
        return f"{self.value}{sign}" + (f" {self.unit}" if self.unit else "")


def is_close(one: Fraction, other: Fraction, places: Iterable[Fraction | None]) -> bool:
    """Whether two values are the same. `places` are their last places, None for an exact one."""
    decimals = [place for place in places if place is not None]
    if not decimals or one == other:
        return one == other
    if one == 0 or other == 0:
        return abs(one - other) <= NOISE
    largest = max(abs(one), abs(other))
    tolerance = RELATIVE * largest
    halves = [place / 2 for place in decimals if place / 2 <= tolerance]
    return abs(one - other) <= min(tolerance, max(LARGEST_ERROR, FLOAT_ERROR * largest, *halves))


def is_same_number(one: Number, other: Number) -> bool:
    """Whether two numbers are the same. 50% is 50 or 0.5, unless both are percentages; other units must not differ."""
    if one.unit and other.unit and one.unit != other.unit:
        return False
    places = (one.place, other.place)
    if one.percent == other.percent:
        return is_close(one.value, other.value, places)
    percentage, plain = (one, other) if one.percent else (other, one)
    # A hundredth of an exact per cent is exact, and 0.333 as a share is as inexact as it is written.
    return any(
        is_close(reading, plain.value, places) for reading in (percentage.value, percentage.value / 100)
    )
