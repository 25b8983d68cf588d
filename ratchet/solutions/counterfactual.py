"""Does a program compute its answer from what the problem states? Change the quantities, and see what it answers.

A variant is a set of changes: numbers by which programs state a quantity, and what stands in their place. Variants follow from
the problem alone, so all programs of a search are asked the same questions, and what they answer, their behaviour, can be
compared. A program that answers to no change was not computed from the problem: it is not grounded. Two programs that answer
the same to all changes are taken for the same function of the quantities.

Pure: running the changed programs is `behaviour.py`.

Limits: numbers in strings are changed where a call reads them (`Decimal("2.5")`, `sympify("3*x")`), not where they are read in
another way (`"3 4".split()`). Quantities of the same size are one, as a program does not say which of them it means; and a
number that stands there for another reason (a square's 2) is changed with them. Two programs with one misconception behave
alike: what is the same is not therefore right.
"""

import ast
import re
import warnings
from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache
from itertools import chain, islice
from typing import TypeGuard

from ratchet.solutions.quantities import Quantity, Reading, find_quantities, is_telling

MAX_VARIANTS = 12
"""Runs that one program costs at most."""
_TELLING = 2
CHANGES = 2
"""Of each quantity, where there is room for both."""
_FACTORS = (
    *(Fraction(2), Fraction(3), Fraction(1, 2), Fraction(1, 4), Fraction(1, 5), Fraction(1, 3)),
    *(Fraction(3, 2), Fraction(3, 4), Fraction(4), Fraction(5)),
)
"""In this order: with a multiple, what could be divided evenly before mostly still can."""
MAX_QUANTITIES = 12
"""The first of the text; what it states beyond that stays as it is."""
_NEAR = 100
"""Neighbours of a size are looked for up to so far away."""
_FEWEST_DIGITS = 2
"""A third may be written 0.33, and is not recognized in 0.3."""
_READERS = frozenset(
    [
        *("int", "float", "complex", "eval", "Decimal", "Fraction", "mpf", "mpq", "mpmathify", "float64"),
        *("S", "Integer", "Float", "Rational", "sympify", "nsimplify", "parse_expr", "simplify", "expand"),
        *("N", "solve", "solveset", "factor", "Poly", "Number"),
    ]
)
"""Functions that read numbers in a string: of Python, its library, sympy and mpmath, whatever they are imported as part of."""
_STRING = re.compile(rb"[rRuU]?(\"\"\"|\'\'\'|\"|\')(.*)\1", re.DOTALL)
_WRITTEN = re.compile(r"(?<![\w.])(?:\d{1,300}(?:\.\d{0,300})?|\.\d{1,300})(?:[eE][-+]?\d{1,3})?(?![\w.])")
"""A number in such a string."""

Variant = Mapping[Fraction, Fraction]
"""The numbers that are replaced in a program, and by what."""


def make_variants(problem: str) -> list[Variant]:
    """The variants of a problem; none where it states no quantity.

    The first changes all quantities. Then each is changed alone, in the order of the text; then each by its second change. The
    last changes all of them to neighbours, which have other divisors: multiples leave a remainder or a common divisor as it
    is. It only tells whether an answer responds: where division is not even, programs of one function round in their own ways.
    """
    all_classes = _by_size(find_quantities(problem))
    classes = dict(islice(all_classes.items(), MAX_QUANTITIES))
    owned = _owners(classes)
    taken = {*owned, *all_classes}
    changes: list[list[Variant]] = []
    neighbours: list[Variant] = []
    for size, readings in classes.items():
        others = list(islice(_other_sizes(size, readings, taken), CHANGES))
        taken.update(others)
        changes.append([_mapping(size, other, readings, owned) for other in others])
        near = list(islice(_other_sizes(size, readings, taken, near_first=True), 1))
        taken.update(near)
        neighbours += [_mapping(size, other, readings, owned) for other in near]
    changes = [each for each in changes if each]
    if not changes:
        return []
    # Quantities that stand next to each other by different factors, so that their ratios change as well.
    together = [_merged(each[place % len(each)] for place, each in enumerate(changes))]
    alone = [each[turn] for turn in range(CHANGES) for each in changes if turn < len(each)]
    asked = together + alone if len(changes) > 1 else alone
    return [*asked[: MAX_VARIANTS - 1], _merged(neighbours)]


def telling_variants(variants: Sequence[Variant]) -> list[Variant]:
    """The few of a problem's variants that are enough to tell whether an answer responds: they change all quantities at once.

    To compare two behaviours takes all of them.
    """
    return list(variants) if len(variants) <= _TELLING else [variants[0], variants[-1]]


def _merged(variants: Iterable[Variant]) -> Variant:
    return dict(chain.from_iterable(variant.items() for variant in variants))


def _by_size(quantities: Sequence[Quantity]) -> dict[Fraction, tuple[Reading, ...]]:
    """Quantities of one size are one class, with the readings of all of them."""
    classes: dict[Fraction, tuple[Reading, ...]] = {}
    for quantity in quantities:
        known = classes.get(quantity.size, ())
        classes[quantity.size] = tuple(dict.fromkeys((*known, *quantity.readings)))
    return classes


def _owners(classes: Mapping[Fraction, tuple[Reading, ...]]) -> dict[Fraction, tuple[Fraction, Reading]]:
    """Which quantity a number in a program stands for: one that is stated as it is before any that is derived."""
    owned: dict[Fraction, tuple[Fraction, Reading]] = {}
    for place in range(max(map(len, classes.values()), default=0)):
        for size, readings in classes.items():
            for reading in readings[place : place + 1]:
                value = reading.value(size)
                if value is not None and is_telling(value):
                    owned.setdefault(value, (size, reading))
    return owned


def _other_sizes(
    size: Fraction, readings: Sequence[Reading], taken: Container[Fraction], *, near_first: bool = False
) -> Iterator[Fraction]:
    """Sizes that the quantity could have as well, the best first: of the same kind, and not that of another quantity.

    Where a text is full of quantities, some come last whose derived numbers are of another kind, or those of others.
    """
    whole = size.denominator == 1
    near = chain.from_iterable((size + step, size - step) for step in range(1, _NEAR))
    multiples = (size * factor for factor in _FACTORS)
    told = [(old, reading) for reading in readings if (old := reading.value(size)) and is_telling(old)]
    tried: set[Fraction] = set()
    sound: list[Fraction] = []
    for other in chain(near, multiples) if near_first else chain(multiples, near):
        if other in tried or other in taken or other <= 0 or (whole and other.denominator != 1):
            continue
        tried.add(other)
        pairs = [(old, reading.value(other)) for old, reading in told]
        if all(_stays_share(old, new) for old, new in pairs):
            if all(_keeps_kind(old, new, taken) for old, new in pairs):
                yield other
            else:
                sound.append(other)
    yield from sound


def _keeps_kind(old: Fraction, new: Fraction | None, taken: Container[Fraction]) -> bool:
    """Whether a whole number stays one, and no number that is taken comes out."""
    return new is not None and new not in taken and (old.denominator > 1 or new.denominator == 1)


def _stays_share(old: Fraction, new: Fraction | None) -> bool:
    """Whether the number still tells something, and a share of a whole stays one."""
    return new is not None and is_telling(new) and (old > 1 or new < 1)


def _mapping(
    size: Fraction,
    other: Fraction,
    readings: Sequence[Reading],
    owned: Mapping[Fraction, tuple[Fraction, Reading]],
) -> Variant:
    """The numbers that stand for a quantity of this size, and those that stand for it at the other size."""
    found: dict[Fraction, Fraction] = {}
    for reading in readings:
        old, new = reading.value(size), reading.value(other)
        if old is not None and new is not None and owned.get(old) == (size, reading):
            found[old] = new
    return found


def apply_variant(steps: Sequence[str], variant: Variant) -> list[str]:
    """The program with the changes: only numbers are other ones, lines stay lines. A step that is no Python stays."""
    return [_changed(step, variant) for step in steps]


@dataclass(frozen=True, slots=True)
class _Literal:
    """A number in a step's code, and the bytes (UTF-8) where it stands."""

    start: int
    end: int
    value: int | float


def _changed(step: str, variant: Variant) -> str:
    source = step.encode("utf-8", "surrogatepass")
    pieces: list[bytes] = []
    end = 0
    for literal in _literals(step):
        new = _replacement(literal.value, variant)
        if new is not None and literal.start >= end:
            pieces += [source[end : literal.start], new.encode()]
            end = literal.end
    return b"".join([*pieces, source[end:]]).decode("utf-8", "surrogatepass")


@lru_cache(maxsize=64)
def _literals(step: str) -> Sequence[_Literal]:
    """The numbers in the step's code, in their order; none where it is no Python."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            tree = ast.parse(step)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return ()
    source = step.encode("utf-8", "surrogatepass")
    # Places are in bytes of UTF-8 from the start of a line, which is how the parser counts.
    lines = [0, *(match.end() for match in re.finditer(rb"\r\n|\r|\n", source))]
    found: dict[int, _Literal] = {}
    for node in ast.walk(tree):
        for constant in (node, *_read_strings(node)):
            if (
                not isinstance(constant, ast.Constant)
                or constant.end_lineno is None
                or constant.end_col_offset is None
                or constant.end_lineno > len(lines)
            ):
                continue
            start = lines[constant.lineno - 1] + constant.col_offset
            end = lines[constant.end_lineno - 1] + constant.end_col_offset
            text, value = source[start:end], constant.value
            if constant is not node:
                found |= {each.start: each for each in _written_numbers(text, value, start)}
            elif _is_literal(value, text):
                found[start] = _Literal(start, end, value)
    return [found[start] for start in sorted(found)]


def _read_strings(node: ast.AST) -> list[ast.expr]:
    """The arguments of a call that reads numbers in strings."""
    match node:
        case ast.Call(func=ast.Name(id=name) | ast.Attribute(attr=name), args=arguments) if name in _READERS:
            return arguments
    return []


def _written_numbers(source: bytes, value: object, start: int) -> Iterator[_Literal]:
    """The numbers in a string that stands from `start` on."""
    written = _STRING.fullmatch(source)
    # Only what is written as it is read: no escapes, and no letters of more than a byte, so that places are places.
    if not isinstance(value, str) or not value.isascii() or written is None or written[2] != value.encode():
        return
    for number in _WRITTEN.finditer(value):
        first = start + written.start(2) + number.start()
        text = number[0]
        yield _Literal(first, first + len(text), int(text) if text.isdigit() else float(text))


def _is_literal(value: object, source: bytes) -> TypeGuard[int | float]:
    """Whether this is the number's text. Before Python 3.12 the places of what an f-string computes can be wrong."""
    if not isinstance(value, int | float) or isinstance(value, bool):
        return False
    try:
        found = ast.literal_eval(source.decode())
    except (SyntaxError, ValueError, UnicodeDecodeError, RecursionError, MemoryError):
        return False
    return type(found) is type(value) and found == value


def _replacement(value: float, variant: Variant) -> str | None:
    """What is written in the place of a number; None: it stays. A whole number stays one where the new size is one."""
    if value in (float("inf"), float("-inf")):
        return None
    # As it is written: 0.1 is a tenth, and not the nearest binary fraction.
    old = Fraction(value) if isinstance(value, int) else Fraction(repr(value))
    new = variant.get(old) or (_rounded_from(old, variant) if isinstance(value, float) else None)
    if new is None:
        return None
    return str(new.numerator) if isinstance(value, int) and new.denominator == 1 else repr(float(new))


def _rounded_from(written: Fraction, variant: Variant) -> Fraction | None:
    """The change of a number that has no end as a decimal (a third), where this is how far it was written (0.333)."""
    digits = len(str(float(written)).partition(".")[2])
    for old, new in variant.items():
        if digits >= _FEWEST_DIGITS and _never_ends(old) and round(old, digits) == written:
            return new
    return None


def _never_ends(value: Fraction) -> bool:
    below = value.denominator
    for prime in (2, 5):
        while below % prime == 0:
            below //= prime
    return below > 1
