"""A key for an answer, so that answers can be grouped without comparing each with each, and without the jail.

Equal keys: the same number to nine digits, however it is written (`sqrt(2)/2`, `1/sqrt(2)`, 0.7071067811865475); the same
expression by its values at three points; solutions in another order or other brackets. An unknown before a value, a
currency and a degree sign are left aside, other units are not.

Limits: rounding can part two answers that the grader finds equal, at the ninth digit; a set with a repetition and one
without, [1, 1, 2] and {1, 2}, have different keys. The grader's word counts where one answer is held against another.
"""

import json
import random
from fractions import Fraction
from typing import Any

from ratchet.notation.building import SCALARS
from ratchet.notation.evaluation import Doubles, TooLargeError, UndefinedError, evaluate, exact_value
from ratchet.notation.nodes import Node, value_of
from ratchet.notation.numbers import NOISE
from ratchet.notation.real_sets import INFINITE, MINUS_INFINITE, Piece, is_set_of_numbers, pieces_of
from ratchet.notation.words import CURRENCIES

SIGNIFICANT = 9
NOISY_DIGITS = 10**11
"""A decimal below 1e-12 is noise if it is written with more digits than this has; 4.6e-24 is meant."""
_SIGNS = frozenset([*CURRENCIES.values(), "degree"])
_FIELD = Doubles()
_POINTS = 3
# Doubles that are meant to be zero are about this large.
_ZERO = 1e-15


def key_of(node: Node) -> str:
    """The key of an answer's tree."""
    if node.kind in ("list", "set", "bare", "tuple") and len(node.parts) == 1:
        return key_of(node.parts[0])
    match node.kind, node.parts:
        case "words", _:
            return f"text:{node.text}"
        case "degree", (inner,):
            return key_of(inner)
        case "quantity", (inner,):
            return key_of(inner) if node.text in _SIGNS else f"{key_of(inner)} {node.text}"
        case "percent", (inner,):
            return f"{key_of(inner)}%"
        case "member", (_, values):
            return key_of(values)
        case "relation", (left, right) if node.text == "=" and left.kind in ("symbol", "words"):
            return key_of(right)
        case (("list" | "set" | "bare"), parts):
            keys = sorted(key_of(part) for part in parts)
            return f"{{{', '.join(dict.fromkeys(keys) if node.kind == 'set' else keys)}}}"
        case (("tuple" | "matrix" | "ratio"), parts):
            return f"{node.kind}({', '.join(key_of(part) for part in parts)})"
    if is_set_of_numbers(node):
        pieces = pieces_of(node, _compare)
        if pieces is not None:
            return f"numbers:{''.join(map(_piece_key, pieces))}"
    if node.kind in SCALARS:
        return _scalar_key(node)
    if not node.parts:
        return f"{node.kind}:{node.text}"
    return f"{node.kind}:{node.text}({', '.join(key_of(part) for part in node.parts)})"


def _piece_key(piece: Piece) -> str:
    opening, closing = "[" if piece.low_closed else "(", "]" if piece.high_closed else ")"
    return f"{opening}{key_of(piece.low)}, {key_of(piece.high)}{closing}"


def _scalar_key(node: Node) -> str:
    value = exact_value(node)
    if value is not None:
        return _number_key(Fraction(0) if _is_noise(node) else value)
    try:
        values = [_round_complex(evaluate(node, _FIELD, point)) for point in _points(node.symbols)]
    except (TooLargeError, UndefinedError, OverflowError):
        return f"tree:{_canonical(node)}"
    return values[0] if not node.symbols else f"expression:{'; '.join(values)}"


def _is_noise(node: Node) -> bool:
    if node.kind != "number":
        return False
    value, place = value_of(node)
    return place is not None and abs(value) < NOISE and abs(value) > NOISY_DIGITS * place


def _number_key(value: Fraction) -> str:
    if value == 0:
        return "number:0"
    # An exact integer stays exact however long it is; anything else is rounded.
    rounded = value if value.denominator == 1 else _round(value)
    return f"number:{hex(rounded.numerator)}" if abs(rounded) > 10**4000 else f"number:{rounded}"


def _round(value: Fraction) -> Fraction:
    """To nine significant digits, or to the nearest integer where that has more."""
    exponent = _digits(abs(value.numerator)) - _digits(value.denominator)
    # Digits before the point, up to one: numerator and denominator alone do not tell which.
    if abs(value) >= Fraction(10) ** exponent:
        exponent += 1
    scale = Fraction(10) ** max(0, SIGNIFICANT - exponent)
    return round(value * scale) / scale


def _digits(number: int) -> int:
    """How many decimal digits a positive integer has, also where it has more than Python writes out."""
    digits = number.bit_length() * 30103 // 100_000
    return digits + 1 if number >= 10**digits else digits


def _round_complex(value: complex) -> str:
    size = abs(value)
    if size < _ZERO:
        return "number:0"
    if abs(value.imag) <= size * 1e-12:
        return _number_key(_near_integer(Fraction(value.real)))
    parts = [
        _number_key(Fraction(part) if abs(part) > size * 1e-12 else Fraction(0))
        for part in (value.real, value.imag)
    ]
    return f"complex:{parts[0]} {parts[1]}"


def _near_integer(value: Fraction) -> Fraction:
    """A double that stands for an integer has an error in its last places, and none of its digits says so."""
    whole = Fraction(round(value))
    return whole if abs(value - whole) <= abs(value) / 10**13 else value


def _points(symbols: frozenset[str]) -> list[dict[str, Any]]:
    if not symbols:
        return [{}]
    return [
        {name: complex(random.Random(f"{name} {number}").uniform(0.3, 3)) for name in symbols}  # noqa: S311
        for number in range(_POINTS)
    ]


def _canonical(node: Node) -> str:
    """The tree with the operands of sums and products in one order."""
    parts = [json.loads(_canonical(part)) for part in node.parts]
    if node.kind in ("add", "multiply"):
        parts.sort(key=json.dumps)
    return json.dumps([node.kind, node.text, parts])


def _compare(one: Node, other: Node) -> int | None:
    if one == other:
        return 0
    if MINUS_INFINITE in (one, other) or INFINITE in (one, other):
        return -1 if one == MINUS_INFINITE or other == INFINITE else 1
    try:
        left, right = (evaluate(node, _FIELD, {}) for node in (one, other))
    except (KeyError, TooLargeError, UndefinedError):
        return None
    if abs(left - right) <= max(abs(left), abs(right)) / 10**SIGNIFICANT:
        return 0
    return -1 if left.real < right.real else 1
