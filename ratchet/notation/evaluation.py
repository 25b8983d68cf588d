"""The value of an expression: exactly where it is a fraction, otherwise in a field of numbers (doubles, or mpmath's).

Work is bounded: exact numbers have at most 100,000 bits, and what would be larger than 10^(10^6) is not computed.
"""

import cmath
import math
from collections.abc import Callable, Mapping
from fractions import Fraction
from typing import Any, Protocol

from ratchet.notation.nodes import Node, value_of

MAX_BITS = 100_000
MAX_FACTORIAL = 3000
MAX_EXPONENT = 4e6
"""Of two: what is larger is not computed."""


class TooLargeError(ArithmeticError):
    """A value is too large to be computed in bounded time."""


class UndefinedError(ArithmeticError):
    """An expression has no value: a division by zero, a function that is not known."""


class Field(Protocol):
    """Numbers to compute with."""

    def number(self, value: Fraction) -> Any:
        """The number nearest to a fraction."""

    def constant(self, name: str) -> Any:
        """The value of pi, e, or i."""

    def power(self, base: Any, exponent: Any) -> Any:
        """A power. Raises TooLargeError."""

    def call(self, name: str, arguments: list[Any]) -> Any:
        """The value of a function. Raises TooLargeError, UndefinedError."""


def exact_value(node: Node) -> Fraction | None:
    """The value of what is made of numbers by the four operations, whole powers and factorials; None for all else."""
    parts = node.parts
    match node.kind:
        case "number":
            return value_of(node)[0]
        case "add" | "multiply" | "negative" | "power" | "percent":
            values = [exact_value(part) for part in parts]
            if any(value is None for value in values):
                return None
            return _bounded(_exact_operation(node.kind, [value for value in values if value is not None]))
        case "call" if node.text in ("factorial", "binomial", "Abs", "sqrt"):
            values = [exact_value(part) for part in parts]
            if any(value is None for value in values):
                return None
            return _bounded(_exact_call(node.text, [value for value in values if value is not None]))
    return None


def _exact_operation(kind: str, values: list[Fraction]) -> Fraction | None:
    if kind == "negative":
        return -values[0]
    if kind == "percent":
        return values[0] / 100
    if kind == "power":
        base, exponent = values
        if exponent.denominator != 1 or (base == 0 and exponent < 0):
            return None
        bits = max(base.numerator.bit_length(), base.denominator.bit_length())
        if abs(exponent) * bits > MAX_BITS and base not in (0, 1, -1):
            return None
        return base ** int(exponent) if base not in (0, 1, -1) or exponent < MAX_BITS else None
    total = Fraction(0) if kind == "add" else Fraction(1)
    for value in values:
        total = total + value if kind == "add" else total * value
        if _bounded(total) is None:
            return None
    return total


def _exact_call(name: str, values: list[Fraction]) -> Fraction | None:
    first = values[0]
    if name == "Abs":
        return abs(first)
    if name == "sqrt":
        above, under = math.isqrt(max(0, first.numerator)), math.isqrt(first.denominator)
        root = Fraction(above, under)
        return root if root * root == first else None
    if any(value.denominator != 1 or not 0 <= value <= MAX_FACTORIAL for value in values):
        return None
    if name == "factorial":
        return Fraction(math.factorial(int(first)))
    return Fraction(math.comb(int(first), int(values[1]))) if len(values) == 2 else None


def _bounded(value: Fraction | None) -> Fraction | None:
    if value is None or value.numerator.bit_length() + value.denominator.bit_length() > MAX_BITS:
        return None
    return value


def evaluate(node: Node, field: Field, point: Mapping[str, Any], *, degrees: bool = False) -> Any:
    """The value of an expression where its symbols have the given values. Raises TooLargeError, UndefinedError.

    `degrees`: within a function 30° is π/6.
    """

    def value(part: Node) -> Any:
        return evaluate(part, field, point, degrees=degrees)

    parts = node.parts
    match node.kind:
        case "number":
            return field.number(value_of(node)[0])
        case "constant":
            return field.constant(node.text)
        case "symbol":
            return point[node.text]
        case "negative":
            return -value(parts[0])
        case "add":
            total = value(parts[0])
            for part in parts[1:]:
                total += value(part)
            return total
        case "multiply":
            product = value(parts[0])
            for part in parts[1:]:
                product *= value(part)
            return product
        case "percent":
            return value(parts[0]) / 100
        case "degree":
            inner = value(parts[0])
            return inner * field.constant("pi") / 180 if degrees else inner
        case "power":
            return field.power(value(parts[0]), value(parts[1]))
        case "call":
            arguments = [evaluate(part, field, point, degrees=True) for part in parts]
            return field.call(node.text, arguments)
    raise UndefinedError(node.kind)


class Doubles:
    """Complex numbers of the machine: for keys, where nine digits are enough."""

    def number(self, value: Fraction) -> complex:
        """The double nearest to a fraction."""
        try:
            return complex(float(value))
        except OverflowError as error:
            raise TooLargeError from error

    def constant(self, name: str) -> complex:
        """The value of pi, e, or i."""
        if name not in _DOUBLE_CONSTANTS:
            raise UndefinedError(name)
        return _DOUBLE_CONSTANTS[name]

    def power(self, base: complex, exponent: complex) -> complex:
        """A power."""
        return self._guarded(lambda: base**exponent)

    def call(self, name: str, arguments: list[complex]) -> complex:
        """The value of a function."""
        first = arguments[0]
        if name == "log" and len(arguments) == 2:
            return self._guarded(lambda: cmath.log(first) / cmath.log(arguments[1]))
        if name == "Abs":
            return complex(abs(first))
        if len(arguments) != 1 or name not in _DOUBLE_FUNCTIONS:
            raise UndefinedError(name)
        return self._guarded(lambda: _DOUBLE_FUNCTIONS[name](first))

    def _guarded(self, compute: Callable[[], complex]) -> complex:
        try:
            return compute()
        except OverflowError as error:
            raise TooLargeError from error
        except (ValueError, ZeroDivisionError) as error:
            raise UndefinedError from error


_DOUBLE_CONSTANTS = {"pi": complex(math.pi), "e": complex(math.e), "i": 1j}
_DOUBLE_FUNCTIONS: dict[str, Callable[[complex], complex]] = {
    **{
        name: getattr(cmath, name)
        for name in ("sqrt", "exp", "log", "sin", "cos", "tan", "asin", "acos", "atan")
    },
    **{name: getattr(cmath, name) for name in ("sinh", "cosh", "tanh", "asinh", "acosh", "atanh")},
    **{
        "sec": lambda z: 1 / cmath.cos(z),
        "csc": lambda z: 1 / cmath.sin(z),
        "cot": lambda z: 1 / cmath.tan(z),
    },
}
