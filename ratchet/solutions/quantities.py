r"""Which quantities does a problem state, and how may a program write them?

`find_quantities` reads integers, decimals, thousands separators, fractions (`3/4`, `2 1/2`, `\frac{3}{4}`), per cent, number
words ("twenty-five", "two hundred"), shares ("half", "a third", "three quarters"), multiples ("twice", "triple") and dozens. A
program may write one quantity in several ways: 20 % as 20, 0.2, 1.2 or 0.8, half as 0.5 or as a division by 2. Each quantity
has a size, and its readings say which number stands for it; so a quantity of another size has the same readings.

Limits: 0 and 1 are left out, as programs are full of them for other reasons. "second" is taken for the unit of time. What a
text implies and does not say (the days of a week, a pair) is no quantity. Signs are not part of a quantity.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

MAX_DIGITS = 60
"""A longer run of digits is no quantity."""


@dataclass(frozen=True, slots=True)
class Reading:
    """How a program may write a quantity of size x: as (a·x + b) / (c·x + d)."""

    a: int
    b: int
    c: int
    d: int

    def value(self, size: Fraction) -> Fraction | None:
        """The number that the program writes; None where there is none."""
        below = self.c * size + self.d
        return (self.a * size + self.b) / below if below else None


Readings = tuple[Reading, ...]
PLAIN = Reading(1, 0, 0, 1)
_CENTS: Readings = (PLAIN, Reading(1, 0, 0, 100))
_PER_CENT: Readings = (*_CENTS, Reading(1, 100, 0, 100), Reading(-1, 100, 0, 100), Reading(0, 100, 1, 0))
"""20 % is 20 and 0.2, so much more is 1.2, so much less 0.8, and a division by 5 is the same."""


def _share(numerator: int) -> Readings:
    """Numerator / x: three quarters are a division by 4, 0.75, what is left of them 0.25, so much more 1.75."""
    return PLAIN, Reading(0, numerator, 1, 0), Reading(1, -numerator, 1, 0), Reading(1, numerator, 1, 0)


def _times(unit: int) -> Readings:
    """Two dozen are 2 (with a 12 beside it) or 24."""
    return PLAIN, Reading(unit, 0, 0, 1)


def _with_part(numerator: int, denominator: int) -> Readings:
    """Two and a half are 2.5, the 5 of 5/2, or the 2 of 2 + 1/2."""
    return PLAIN, Reading(denominator, 0, 0, 1), Reading(denominator, -numerator, 0, denominator)


@dataclass(frozen=True, slots=True)
class Quantity:
    """A quantity and where it stands in the text."""

    start: int
    end: int
    size: Fraction
    """What is changed: 20 of 20 %, 4 of three quarters, 2 of two dozen."""
    readings: Readings
    """The plain one, which is the size itself, first."""

    @property
    def values(self) -> tuple[Fraction, ...]:
        """The numbers by which a program may state it, each once."""
        found = (reading.value(self.size) for reading in self.readings)
        return tuple(dict.fromkeys(value for value in found if value is not None and is_telling(value)))


def is_telling(value: Fraction) -> bool:
    """Whether a number in a program can stand for a quantity: 0 and 1 are everywhere."""
    return value > 0 and value != 1


_UNITS = ("one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
_TEENS = (
    *("ten", "eleven", "twelve", "thirteen", "fourteen", "fifteen", "sixteen", "seventeen"),
    *("eighteen", "nineteen"),
)
_TENS = ("twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety")
_SMALL = {word: number for number, word in enumerate((*_UNITS, *_TEENS), 1)} | {
    word: 10 * number for number, word in enumerate(_TENS, 2)
}
_SCALES = {"hundred": 100, "thousand": 1000, "million": 10**6, "billion": 10**9}
_UNIT_WORDS = _SCALES | {"dozen": 12, "dozens": 12}
_MULTIPLES = {"twice": 2, "thrice": 3, "doubled": 2, "doubles": 2, "tripled": 3, "triples": 3} | {
    **{"double": 2, "triple": 3, "treble": 3, "quadruple": 4}
}
_PARTS = {
    **{"half": 2, "third": 3, "quarter": 4, "fourth": 4, "fifth": 5, "sixth": 6, "seventh": 7, "eighth": 8},
    **{"ninth": 9, "tenth": 10, "twelfth": 12, "twentieth": 20, "hundredth": 100},
}
_PARTS |= {f"{word}s": number for word, number in _PARTS.items()} | {"halves": 2}
_SIGNS = {
    **{"½": (1, 2), "⅓": (1, 3), "⅔": (2, 3), "¼": (1, 4), "¾": (3, 4), "⅕": (1, 5), "⅖": (2, 5)},
    **{"⅗": (3, 5), "⅘": (4, 5), "⅙": (1, 6), "⅚": (5, 6), "⅛": (1, 8), "⅜": (3, 8), "⅝": (5, 8)},
    "⅞": (7, 8),
}
_TOKEN = re.compile(
    r"(?P<latex>\\[dt]?frac\s*\{(?P<over>\d+)\}\s*\{(?P<under>\d+)\})"
    r"|(?P<digits>(?<![A-Za-z_\d])(?:\d{1,3}(?:,(?:\\!)?\d{3})+(?!\d)(?:\.\d+)?|\d+(?:\.\d+)?|\.\d+))"
    r"|(?P<word>[A-Za-z]+)"
    rf"|(?P<sign>[{''.join(_SIGNS)}])"
    r"|(?P<mark>\\?[%¢/])"
)
_NEAR = re.compile(r"[\s-]{0,3}")


@dataclass(frozen=True, slots=True)
class _Token:
    kind: str
    text: str
    """In lower case."""
    start: int
    end: int
    near: bool
    """Whether no more than blanks and hyphens part it from the token before."""
    fraction: tuple[int, int] = (0, 0)


def _tokens(problem: str) -> list[_Token]:
    found: list[_Token] = []
    end = 0
    for match in _TOKEN.finditer(problem):
        kind, text = match.lastgroup or "", match[0].lower()
        fraction = (0, 0)
        if kind in ("latex", "over", "under"):
            kind, fraction = "fraction", (int(match["over"][:MAX_DIGITS]), int(match["under"][:MAX_DIGITS]))
        elif kind == "sign":
            kind, fraction = "fraction", _SIGNS[text]
        near = _NEAR.fullmatch(problem, end, match.start()) is not None
        found.append(_Token(kind, text.removeprefix("\\"), match.start(), match.end(), near, fraction))
        end = match.end()
    return found


def find_quantities(problem: str) -> list[Quantity]:
    """The quantities in the order of the text; they do not overlap."""
    tokens = _tokens(problem)
    found: list[Quantity] = []
    at = 0
    while at < len(tokens):
        quantity, after = _quantity_at(tokens, at)
        if quantity is not None and quantity.values:
            found.append(quantity)
        at = max(after, at + 1)
    return found


def _quantity_at(tokens: Sequence[_Token], at: int) -> tuple[Quantity | None, int]:
    """The quantity that begins at this token, and the place after it."""
    number, after = _cardinal(tokens, at)
    if number is None:
        size, readings, after = _without_number(tokens, at)
    else:
        size, readings, after = _after_number(tokens, at, number, after)
    if size is None:
        return None, at + 1
    return Quantity(tokens[at].start, tokens[after - 1].end, size, readings), after


_Found = tuple[Fraction | None, Readings, int]


def _without_number(tokens: Sequence[_Token], at: int) -> _Found:
    """A share, a multiple or a dozen that no number begins."""
    token = tokens[at]
    if token.kind == "fraction":
        return *_fraction(*token.fraction), at + 1
    if token.text in ("a", "an") and _near(tokens, at + 1):
        following = tokens[at + 1].text
        if following in _PARTS or following in _UNIT_WORDS:
            return _without_number(tokens, at + 1)
    for words, readings in ((_PARTS, _share(1)), (_MULTIPLES, (PLAIN,)), (_UNIT_WORDS, (PLAIN,))):
        if token.kind == "word" and token.text in words:
            return Fraction(words[token.text]), readings, at + 1
    return None, (), at + 1


def _after_number(tokens: Sequence[_Token], at: int, number: Fraction, after: int) -> _Found:
    """A number, and what the words and signs behind it make of it."""
    whole = number.denominator == 1
    part, behind = _part_at(tokens, after) if whole else (None, after)
    if part is not None:
        return number + Fraction(*part), _with_part(*part), behind
    if not _near(tokens, after):
        return number, (PLAIN,), after
    following = tokens[after]
    if following.text == "%" or following.text in ("percent", "percents"):
        return number, _PER_CENT, after + 1
    if following.text == "per" and _near(tokens, after + 1) and tokens[after + 1].text == "cent":
        return number, _PER_CENT, after + 2
    if following.text in ("¢", "cent", "cents"):
        return number, _CENTS, after + 1
    if following.text in _UNIT_WORDS:
        unit = _UNIT_WORDS[following.text]
        return (Fraction(unit), (PLAIN,), after + 1) if number == 1 else (number, _times(unit), after + 1)
    if whole and following.text in _PARTS and number < _PARTS[following.text]:
        return Fraction(_PARTS[following.text]), _share(int(number)), after + 1
    if whole and (denominator := _denominator(tokens, after)) is not None and number < denominator:
        return Fraction(denominator), _share(int(number)), after + 2
    return number, (PLAIN,), after


def _part_at(tokens: Sequence[_Token], at: int) -> tuple[tuple[int, int] | None, int]:
    """The part that goes with a whole number before it, as numerator and denominator: `1/2` or `½`, or "and a half"."""
    if not _near(tokens, at):
        return None, at
    if tokens[at].kind == "fraction":
        numerator, denominator = tokens[at].fraction
        return ((numerator, denominator) if 0 < numerator < denominator else None), at + 1
    first = _after_and(tokens, at)
    said = first > at
    if said and tokens[first].text in ("a", "an") and _near(tokens, first + 1):
        number, after = Fraction(1), first + 1
    else:
        found, after = _cardinal(tokens, first)
        if found is None or found.denominator != 1:
            return None, at
        number = found
    under = _denominator(tokens, after) or 0
    if number < under:
        return (int(number), under), after + 2
    under = _PARTS.get(tokens[after].text, 0) if said and _near(tokens, after) else 0
    if number < under:
        return (int(number), under), after + 1
    return None, at


def _denominator(tokens: Sequence[_Token], at: int) -> int | None:
    """The denominator of a fraction whose `/` stands here, with no blank on either side."""
    if at + 1 >= len(tokens) or tokens[at].text != "/" or tokens[at + 1].kind != "digits":
        return None
    slash, digits = tokens[at], tokens[at + 1]
    tight = slash.near and digits.start == slash.end and tokens[at - 1].end == slash.start
    return int(digits.text) if tight and digits.text.isdigit() and len(digits.text) <= MAX_DIGITS else None


def _fraction(numerator: int, denominator: int) -> tuple[Fraction | None, Readings]:
    if not denominator or not numerator:
        return None, ()
    if numerator < denominator:
        return Fraction(denominator), _share(numerator)
    return Fraction(numerator, denominator), _with_part(numerator % denominator, denominator)


def _cardinal(tokens: Sequence[_Token], at: int) -> tuple[Fraction | None, int]:
    """The number in digits or in words that begins here, and the place after it."""
    if at < len(tokens) and tokens[at].kind == "digits":
        digits = tokens[at].text.replace(",", "").replace("\\!", "")
        return (Fraction(digits) if len(digits) <= MAX_DIGITS else None), at + 1
    total, after = _below_1000(tokens, at)
    if total is None:
        return None, at
    complete = Fraction(0)
    while _near(tokens, after) and (scale := _SCALES.get(tokens[after].text, 0)) >= 1000:
        complete += total * scale
        more, behind = _below_1000(tokens, _after_and(tokens, after + 1))
        if more is None or not _near(tokens, after + 1):
            return complete, after + 1
        total, after = more, behind
    return complete + total, after


def _below_1000(tokens: Sequence[_Token], at: int) -> tuple[Fraction | None, int]:
    """A number in words such as "two hundred and five" or "a hundred"."""
    number, after = _below_100(tokens, at)
    article = at < len(tokens) and tokens[at].text in ("a", "an")
    if article and _near(tokens, at + 1) and tokens[at + 1].text in _SCALES:
        number, after = Fraction(1), at + 1
    if number is None or not _near(tokens, after) or tokens[after].text != "hundred":
        return number, after
    more, behind = _below_100(tokens, _after_and(tokens, after + 1))
    if more is None or not _near(tokens, after + 1):
        return number * 100, after + 1
    return number * 100 + more, behind


def _below_100(tokens: Sequence[_Token], at: int) -> tuple[Fraction | None, int]:
    word = tokens[at].text if at < len(tokens) else ""
    if word not in _SMALL:
        return None, at
    if word in _TENS and _near(tokens, at + 1) and tokens[at + 1].text in _UNITS:
        return Fraction(_SMALL[word] + _SMALL[tokens[at + 1].text]), at + 2
    return Fraction(_SMALL[word]), at + 1


def _after_and(tokens: Sequence[_Token], at: int) -> int:
    """The place of the next word, an "and" skipped."""
    said = _near(tokens, at) and tokens[at].text == "and" and _near(tokens, at + 1)
    return at + 1 if said else at


def _near(tokens: Sequence[_Token], at: int) -> bool:
    """Whether there is a token here, and it belongs to what stands before it."""
    return at < len(tokens) and tokens[at].near
