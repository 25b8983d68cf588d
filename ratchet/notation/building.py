"""Nodes as the parser makes them: what may stand where, and the little that is computed at once, written fractions."""

from collections.abc import Sequence
from fractions import Fraction

from ratchet.notation.nodes import Node, number, value_of
from ratchet.notation.tokens import NotationError

SCALARS = frozenset(
    [
        *("number", "symbol", "constant", "call", "add", "multiply", "power", "negative"),
        *("percent", "degree", "plus_minus"),
    ]
)
"""Kinds of which an expression is made."""
MAX_PRODUCT_BITS = 10_000
"""Of a product that is computed while it is read."""
MAX_SIGNS = 4
"""Signs ± in one answer, each of two values."""


def scalar(node: Node) -> Node:
    """The node itself. Raises NotationError where it is no number and no expression."""
    if node.kind not in SCALARS:
        raise NotationError(f"{node.kind} within an expression")
    return node


def is_infinite(node: Node) -> bool:
    """Whether it is ∞ or -∞."""
    return any(each == Node("constant", "oo") for each in (node, *node.parts)) and node.kind in (
        "constant",
        "negative",
    )


def negate(node: Node) -> Node:
    """The negative of an expression, or of a number at once."""
    if node.kind == "number":
        value, place = value_of(node)
        return number(-value, place)
    if node.kind in ("percent", "degree"):
        return Node(node.kind, "", (negate(node.parts[0]),))
    return Node("negative", "", (scalar(node),))


def invert(node: Node) -> Node:
    """One over an expression, or over a number at once. Raises NotationError for zero."""
    if node.kind == "number":
        value, place = value_of(node)
        if not value:
            raise NotationError("division by zero")
        return number(1 / value, None if place is None else place / value**2)
    return Node("power", "", (scalar(node), number(-1)))


def power(base: Node, exponent: Node) -> Node:
    """A power, not computed."""
    return Node("power", "", (scalar(base), scalar(exponent)))


def multiply(factors: list[Node]) -> Node:
    """A product; of numbers, or of a number and a power of ten, at once."""
    values = [value_of(factor) for factor in factors if factor.kind == "number"]
    if len(values) == len(factors):
        product = Fraction(1)
        for value, _ in values:
            product *= value
            if product.numerator.bit_length() + product.denominator.bit_length() > MAX_PRODUCT_BITS:
                return Node("multiply", "", tuple(factors))
        # What the last digit of a decimal is worth, times the others.
        places = [
            abs(place * product / value) if value else place for value, place in values if place is not None
        ]
        return number(product, max(places, default=None))
    if len(factors) == 2 and len(values) == 1:
        scale = _power_of_ten(factors[1])
        if factors[0].kind == "number" and scale:
            value, place = values[0]
            return number(value * scale, None if place is None else place * scale)
    return Node("multiply", "", tuple(factors))


def _power_of_ten(node: Node) -> Fraction | None:
    if node.kind != "power" or node.parts[0] != number(10) or node.parts[1].kind != "number":
        return None
    exponent, _ = value_of(node.parts[1])
    return Fraction(10) ** int(exponent) if exponent.denominator == 1 and abs(exponent) < 1000 else None


def based(base: str, digits: str, sign: str = "") -> Node:
    """A number in another base than ten. Raises NotationError."""
    if not base.isdigit() or not 2 <= int(base[:4]) <= 36:
        raise NotationError("no base")
    if any(int(digit, 36) >= int(base) for digit in digits):
        raise NotationError("no digit of this base")
    return Node("based", f"{int(base)} {sign}{digits.upper().lstrip('0') or '0'}")


def matrix(rows: Sequence[Sequence[Node]]) -> Node:
    """A matrix by its rows. Raises NotationError where they differ in length."""
    if not rows or len({len(row) for row in rows}) != 1 or not rows[0]:
        raise NotationError("no matrix")
    return Node("matrix", "", tuple(Node("tuple", "", tuple(row)) for row in rows))


def collection(kind: str, members: Sequence[Node]) -> Node:
    """A list, a set or bare values, with each sign of its members chosen."""
    parts = tuple(each for member in members for each in expand_signs(member))
    return Node(kind, "", parts) if parts else Node("empty")


def container(kind: str, arguments: list[Node]) -> Node:
    """What `set([1, 2])`, `array([1, 2])` or `Matrix([[1], [2]])` makes. Raises NotationError."""
    if kind == "set" and len(arguments) != 1:
        return collection("set", arguments) if arguments else Node("empty")
    if kind == "tuple" and len(arguments) != 1:
        return Node("tuple", "", tuple(arguments))
    if len(arguments) != 1:
        raise NotationError("one argument expected")
    inner = arguments[0]
    if kind == "matrix":
        if inner.kind != "list" or not inner.parts:
            raise NotationError("no matrix")
        rows = [row.parts if row.kind in ("list", "tuple") else (row,) for row in inner.parts]
        return matrix(rows)
    if inner.kind not in ("list", "tuple", "set", "empty"):
        return collection(kind, [inner])
    return Node(kind, "", inner.parts) if inner.parts or kind != "set" else Node("empty")


def relation(sign: str, left: Node, right: Node) -> Node:
    """A relation, turned so that it is one of = != < <=, or a membership."""
    if sign == "in":
        return Node("member", "", (left, right))
    if sign in (">", ">="):
        return Node("relation", sign.replace(">", "<"), (right, left))
    return Node("relation", sign, (left, right))


def expand_signs(node: Node) -> list[Node]:
    """What `1 ± x` stands for: each of its values. Signs are chosen apart, but together where there is a ∓."""
    signs = [each for each in node.walk() if each.kind == "plus_minus"]
    if not signs:
        return [node]
    if len(signs) > MAX_SIGNS:
        raise NotationError("too many signs")
    linked = any(each.text == "-" for each in signs)
    choices = 2 if linked else 2 ** len(signs)
    return [_choose(node, choice, linked, [0]) for choice in range(choices)]


def _choose(node: Node, choice: int, linked: bool, seen: list[int]) -> Node:
    if node.kind == "plus_minus":
        negative = bool(choice & 1 if linked else choice >> seen[0] & 1) ^ (node.text == "-")
        seen[0] += 1
        inner = _choose(node.parts[0], choice, linked, seen)
        return negate(inner) if negative else inner
    if not node.parts:
        return node
    return Node(node.kind, node.text, tuple(_choose(part, choice, linked, seen) for part in node.parts))
