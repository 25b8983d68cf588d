"""When are two answers equal? Symmetric, and decided by values, never by how they are written.

- Numbers by the rules of `numbers.py`; exact expressions to 50 digits of 80, so that 355/113 is not π.
- Expressions with unknowns by their values at fixed points: those where both are real, otherwise those where both exist.
- Lists, sets and values without brackets are solutions: their order does not matter, and beside a set no repetition.
  Tuples keep their order, also beside a list; of two members the brackets count, as [1, 2] may be an interval.
- One value is the same with or without brackets around it, its unknown (`x = 3`) or its unit; other ones must agree.
- Equations are equal where their sides' difference is the same but for a factor; inequalities are sets.

Limits: at chosen points two different expressions could agree, which eighty digits make improbable, not impossible.
"""

import random
from collections.abc import Sequence
from fractions import Fraction
from functools import lru_cache
from typing import Any

from ratchet.notation.building import SCALARS
from ratchet.notation.evaluation import TooLargeError, UndefinedError, evaluate, exact_value
from ratchet.notation.nodes import Node
from ratchet.notation.numbers import NOISE, RELATIVE, is_close, is_same_number
from ratchet.notation.precise import Precise
from ratchet.notation.reading import number_of
from ratchet.notation.real_sets import is_set_of_numbers, pieces_of, same_pieces

EXACT = Fraction(1, 10**50)
_FIELD, _FINE_FIELD = Precise(80), Precise(250)
_TINY = _FIELD.number(Fraction(1, 10**60))
"""What is smaller may be a zero with the noise of eighty digits."""
_POINTS = (
    (0.3, 3.0),
    (0.3, 3.0),
    (0.3, 3.0),
    (-3.0, -0.3),
    (-3.0, -0.3),
    (4.0, 9.0),
    (0.01, 0.3),
    (-9.0, -4.0),
)
"""Where expressions with unknowns are compared: the range that each unknown is drawn from."""
_UNORDERED = frozenset(["list", "set", "bare"])
_ORDERED = frozenset(["tuple", "list", "bare"])


def is_equal(one: Node, other: Node) -> bool:
    """Whether two answers are equal. Raises TooLargeError where that would take too long to tell."""
    if one == other:
        return True
    one, other = _single(one), _single(other)
    if one == other:
        return True
    for rule in (_labels, _memberships, _quantities, _collections, _sets, _matrices, _ratios, _digits):
        verdict = rule(one, other)
        if verdict is None:
            verdict = rule(other, one)
        if verdict is not None:
            return verdict
    if one.kind in SCALARS and other.kind in SCALARS:
        return is_same_value(one, other)
    return False


def _single(node: Node) -> Node:
    """The only member of a collection of one."""
    while node.kind in ("list", "set", "bare", "tuple") and len(node.parts) == 1:
        node = node.parts[0]
    return node


# --- rules: each decides for a pair, or says None -----------------------------------------------------------------


def _labels(one: Node, other: Node) -> bool | None:
    """x = 3 is 3, and it is not y = 3."""
    if one.kind != "relation" or one.text != "=":
        return None
    if other.kind == "relation":
        if other.text != "=":
            return False
        ours, theirs = _labelled(one), _labelled(other)
        if ours and theirs and ours[0] == theirs[0]:
            return is_equal(ours[1], theirs[1])
        return _same_relation(one, other)
    if other.kind in ("and", "member"):
        return False
    labelled = _labelled(one)
    return labelled is not None and is_equal(labelled[1], other)


def _labelled(relation: Node) -> tuple[Node, Node] | None:
    """The name and the value of `name = value`."""
    left, right = relation.parts
    if _is_name(left):
        return left, right
    return (right, left) if _is_name(right) else None


def _is_name(node: Node) -> bool:
    if node.kind in ("symbol", "words"):
        return True
    if node.kind == "power":
        return _is_name(node.parts[0])
    # f(x), AB: read as products of names.
    return node.kind == "multiply" and all(
        _is_name(part) or (place > 0 and part.kind == "number") for place, part in enumerate(node.parts)
    )


def _same_relation(one: Node, other: Node) -> bool:
    if not all(part.kind in SCALARS for node in (one, other) for part in node.parts):
        return len(one.parts) == len(other.parts) and all(map(is_equal, one.parts, other.parts))
    if one.symbols != other.symbols or not one.symbols:
        return False
    ours, theirs = (
        Node("add", "", (node.parts[0], Node("negative", "", (node.parts[1],)))) for node in (one, other)
    )
    tolerance = RELATIVE if one.approximate or other.approximate else EXACT
    factor: Any = None
    for point in points(one.symbols):
        left, right = _value_at(ours, point), _value_at(theirs, point)
        if left is None or right is None:
            continue
        if left == 0 or right == 0:
            if left != right:
                return False
            continue
        if factor is None:
            factor = left / right
            if one.text != "=" and one.text != "!=" and (_FIELD.context.im(factor) != 0 or factor.real < 0):
                return False
        elif abs(left - factor * right) > _float(tolerance) * abs(left):
            return False
    return factor is not None


def _memberships(one: Node, other: Node) -> bool | None:
    """x ∈ S is S."""
    if one.kind != "member":
        return None
    if other.kind == "member":
        return is_equal(one.parts[0], other.parts[0]) and is_equal(one.parts[1], other.parts[1])
    return is_equal(one.parts[1], other)


def _quantities(one: Node, other: Node) -> bool | None:
    """Numbers and expressions with units, per cent or degrees."""
    ours, theirs = number_of(one), number_of(other)
    if ours is not None and theirs is not None:
        return is_same_number(ours, theirs)
    if one.kind == "quantity":
        if other.kind == "quantity" and one.text != other.text:
            return False
        return is_equal(one.parts[0], other.parts[0] if other.kind == "quantity" else other)
    if one.kind == "degree":
        return is_equal(one.parts[0], other.parts[0] if other.kind == "degree" else other)
    if one.kind == "percent" and other.kind != "percent":
        return is_equal(one.parts[0], other) or is_equal(
            Node("multiply", "", (one.parts[0], Node("number", "1/100"))), other
        )
    return None


def _collections(one: Node, other: Node) -> bool | None:
    if is_set_of_numbers(one) or is_set_of_numbers(other):
        return None
    if one.kind == "tuple" and other.kind in _ORDERED:
        if {one.kind, other.kind} == {"tuple", "list"} and len(one.parts) == 2:
            return False
        return len(one.parts) == len(other.parts) and all(map(is_equal, one.parts, other.parts))
    if one.kind in _UNORDERED and other.kind in _UNORDERED:
        return _same_members(one.parts, other.parts, repeated="set" not in (one.kind, other.kind))
    return None


def _same_members(ours: Sequence[Node], theirs: Sequence[Node], *, repeated: bool) -> bool:
    if not repeated:
        return all(_find(one, theirs) is not None for one in ours) and all(
            _find(other, ours) is not None for other in theirs
        )
    if len(ours) != len(theirs):
        return False
    left = list(theirs)
    for one in ours:
        index = _find(one, left)
        if index is None:
            return False
        del left[index]
    return True


def _find(node: Node, among: Sequence[Node]) -> int | None:
    """Where an equal answer is. Raises TooLargeError where only those may be equal that are too large to tell."""
    too_large: TooLargeError | None = None
    for index, other in enumerate(among):
        try:
            if is_equal(node, other):
                return index
        except TooLargeError as error:
            too_large = error
    if too_large is not None:
        raise too_large
    return None


def _sets(one: Node, other: Node) -> bool | None:
    """Intervals, inequalities, unions: as pieces of the real line."""
    if not is_set_of_numbers(one):
        return None
    ours, theirs = pieces_of(one, compare), pieces_of(other, compare)
    if ours is None or theirs is None:
        if one.kind == other.kind and one.text == other.text and len(one.parts) == len(other.parts):
            if one.kind == "relation":
                return _same_relation(one, other)
            return all(map(is_equal, one.parts, other.parts))
        return False
    # x > 3 is not y > 3.
    names, others = _unknowns(one), _unknowns(other)
    if names and others and names != others:
        return False
    return same_pieces(ours, theirs, is_same_value)


def _unknowns(node: Node) -> frozenset[str]:
    return frozenset(
        part.text
        for relation in node.walk()
        if relation.kind == "relation"
        for part in relation.parts
        if part.kind == "symbol"
    )


def _matrices(one: Node, other: Node) -> bool | None:
    if one.kind != "matrix":
        return None
    rows = [row.parts for row in one.parts]
    if other.kind == "matrix":
        theirs = [row.parts for row in other.parts]
    elif other.kind in ("list", "tuple") and all(part.kind in ("list", "tuple") for part in other.parts):
        theirs = [part.parts for part in other.parts]
    elif other.kind in ("list", "tuple"):
        # A vector, as a row or as a column.
        rows, theirs = [tuple(part for row in rows for part in row)], [other.parts]
        if 1 not in (len(one.parts), len(one.parts[0].parts)):
            return False
    else:
        return False
    return [len(row) for row in rows] == [len(row) for row in theirs] and all(
        all(map(is_equal, row, their)) for row, their in zip(rows, theirs, strict=True)
    )


def _ratios(one: Node, other: Node) -> bool | None:
    """2:3 is 2/3, and it is not 4:6, which may be a time of day."""
    if one.kind != "ratio":
        return None
    if other.kind == "ratio":
        return len(one.parts) == len(other.parts) and all(map(is_equal, one.parts, other.parts))
    if (
        len(one.parts) != 2
        or other.kind not in SCALARS
        or not all(part.kind in SCALARS for part in one.parts)
    ):
        return False
    return is_same_value(
        Node("multiply", "", (one.parts[0], Node("power", "", (one.parts[1], Node("number", "-1"))))), other
    )


def _digits(one: Node, other: Node) -> bool | None:
    """52_8 is 52 as well: the base stands in the question."""
    if one.kind != "based":
        return None
    return other.kind == "number" and other.text == one.text.split()[1]


# --- values ---------------------------------------------------------------------------------------------------------


def is_same_value(one: Node, other: Node) -> bool:
    """Whether two expressions have the same value, wherever both have one. Raises TooLargeError."""
    if one == other:
        return True
    symbols = one.symbols | other.symbols
    if symbols:
        return _is_same_function(one, other, symbols)
    approximate = one.approximate or other.approximate
    ours, theirs = exact_value(one), exact_value(other)
    if ours is not None and theirs is not None:
        places = [_place(node) for node in (one, other)]
        return is_close(ours, theirs, places)
    left, right = _constant(one, _FIELD), _constant(other, _FIELD)
    if left is None or right is None:
        return False
    if approximate and _FIELD.context.im(left) == _FIELD.context.im(right) == 0:
        return is_close(_fraction(left), _fraction(right), [_place(one), _place(other)])
    if approximate:
        return _is_near(left, right, RELATIVE) or max(abs(left), abs(right)) <= _float(NOISE)
    if max(abs(left), abs(right)) > _TINY and not _is_near(left, right, EXACT):
        return False
    # Equal to fifty digits, or both maybe zero: with more digits what is equal agrees further, and a zero becomes smaller.
    left, right = _constant(one, _FINE_FIELD), _constant(other, _FINE_FIELD)
    return _is_near(left, right, EXACT**4) or max(abs(left), abs(right)) < _TINY**4


def _is_near(left: Any, right: Any, tolerance: Fraction) -> bool:
    """Whether two complex values agree, each part to its own size or to the noise of the whole."""
    size, near = max(abs(left), abs(right)), _float(tolerance)
    # A part that should be zero is not, by what was lost on the way.
    noise = size * near * _float(Fraction(1, 10**20))
    for part in (_FIELD.context.re, _FIELD.context.im):
        ours, theirs = part(left), part(right)
        if abs(ours - theirs) > max(near * max(abs(ours), abs(theirs)), noise):
            return False
    return True


def _place(node: Node) -> Fraction | None:
    """The last place of a decimal; of an expression with one in it, a place too small to matter."""
    number = number_of(node)
    if number is not None:
        return number.place
    return Fraction(1, 10**30) if node.approximate else None


def compare(one: Node, other: Node) -> int | None:
    """-1, 0 or 1 as one real value is less than, equal to or greater than the other; None where that is not known."""
    if is_same_value(one, other):
        return 0
    ours, theirs = _infinite(one), _infinite(other)
    if ours or theirs:
        return -1 if ours < theirs else 1
    left, right = _constant(one, _FIELD), _constant(other, _FIELD)
    if left is None or right is None or _FIELD.context.im(left) != 0 or _FIELD.context.im(right) != 0:
        return None
    return -1 if _FIELD.context.re(left) < _FIELD.context.re(right) else 1


def _infinite(node: Node) -> int:
    if node == Node("constant", "oo"):
        return 1
    return -1 if node == Node("negative", "", (Node("constant", "oo"),)) else 0


@lru_cache(maxsize=4096)
def _constant(node: Node, field: Precise) -> Any:
    if node.symbols:
        return None
    try:
        return evaluate(node, field, {})
    except UndefinedError:
        return None


def _is_same_function(one: Node, other: Node, symbols: frozenset[str]) -> bool:
    tolerance = RELATIVE if one.approximate or other.approximate else EXACT
    real: list[bool] = []
    complex_: list[bool] = []
    for point in points(symbols):
        left, right = _value_at(one, point), _value_at(other, point)
        if left is None or right is None:
            continue
        same = _is_near(left, right, tolerance) or max(abs(left), abs(right)) < _TINY
        both = _FIELD.context.im(left) == 0 and _FIELD.context.im(right) == 0
        (real if both else complex_).append(same)
    return all(real) if real else bool(complex_) and all(complex_)


@lru_cache(maxsize=16)
def points(symbols: frozenset[str]) -> list[dict[str, Any]]:
    """Where expressions are compared. The same for the same unknowns."""
    found: list[dict[str, Any]] = []
    for number, (low, high) in enumerate(_POINTS):
        found.append(
            {
                # A fraction without meaning, so that nothing cancels by chance.
                name: _FIELD.number(Fraction(random.Random(f"{name} {number}").uniform(low, high)))  # noqa: S311
                for name in symbols
            }
        )
    return found


def _value_at(node: Node, point: dict[str, Any]) -> Any:
    try:
        return evaluate(node, _FIELD, point)
    except UndefinedError:
        return None


def _fraction(value: Any) -> Fraction:
    sign, mantissa, exponent, _ = map(int, _FIELD.context.re(value)._mpf_)
    if abs(exponent) > 100_000:
        raise TooLargeError
    return Fraction(-mantissa if sign else mantissa) * Fraction(2) ** exponent


def _float(value: Fraction) -> Any:
    return _FIELD.number(value)
