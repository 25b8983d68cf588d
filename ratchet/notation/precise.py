"""Numbers of as many digits as are asked for, by mpmath: what the grading jail computes with."""

from collections.abc import Callable
from fractions import Fraction
from typing import Any

from mpmath import MPContext  # type: ignore[import-untyped,unused-ignore]

from ratchet.notation.evaluation import MAX_EXPONENT, TooLargeError, UndefinedError

MAX_ANGLE_BITS = 4000
"""Of an angle: its sine needs as many digits more."""
MAX_GAMMA = 1e6


class Precise:
    """Complex numbers with as many digits as are asked for."""

    def __init__(self, digits: int) -> None:
        self.context = MPContext()
        self.context.dps = digits

    def number(self, value: Fraction) -> Any:
        """The number nearest to a fraction."""
        return self.context.mpf(value.numerator) / value.denominator

    def constant(self, name: str) -> Any:
        """The value of pi, e, or i."""
        match name:
            case "pi" | "e":
                return +getattr(self.context, name)
            case "i":
                return self.context.mpc(0, 1)
        raise UndefinedError(name)

    def power(self, base: Any, exponent: Any) -> Any:
        """A power. Raises TooLargeError."""
        if base == 0:
            if self.context.re(exponent) > 0:
                return base
            if exponent == 0:
                return self.context.mpf(1)
            raise UndefinedError
        if abs(exponent) > 1 and abs(base) != 1:
            # mag is about the logarithm to base two.
            size = max(1, abs(self.context.mag(base)))
            if self.context.mag(exponent) > 40 or size * abs(exponent) > MAX_EXPONENT:
                raise TooLargeError
        return self._guarded(lambda: self.context.power(base, exponent))

    def call(self, name: str, arguments: list[Any]) -> Any:
        """The value of a function. Raises TooLargeError, UndefinedError."""
        context, first = self.context, arguments[0]
        if any(context.mag(each) > MAX_EXPONENT for each in arguments if each != 0):
            raise TooLargeError
        if len(arguments) == 1 and name in _FUNCTIONS:
            if name == "factorial" and abs(first) > MAX_GAMMA:
                raise TooLargeError
            if name not in _SLOW_GROWING and first != 0 and context.mag(first) > MAX_ANGLE_BITS:
                raise TooLargeError
            if name in ("exp", "sinh", "cosh", "tanh", "coth") and abs(first) > MAX_EXPONENT:
                raise TooLargeError
            return self._guarded(lambda: getattr(context, _FUNCTIONS[name])(first))
        if name in ("Min", "Max") and all(context.im(each) == 0 for each in arguments):
            return (min if name == "Min" else max)(map(context.re, arguments))
        if name == "atan2" and len(arguments) == 2 and all(context.im(each) == 0 for each in arguments):
            return self._guarded(lambda: context.atan2(*map(context.re, arguments)))
        if len(arguments) == 2 and name in ("log", "binomial"):
            if name == "log":
                return self._guarded(lambda: context.log(first) / context.log(arguments[1]))
            if max(map(abs, arguments)) > MAX_GAMMA:
                raise TooLargeError
            return self._guarded(lambda: context.binomial(first, arguments[1]))
        raise UndefinedError(name)

    def _guarded(self, compute: Callable[[], Any]) -> Any:
        try:
            value = compute()
        except OverflowError as error:
            raise TooLargeError from error
        except (ValueError, ZeroDivisionError, TypeError, self.context.NoConvergence) as error:
            raise UndefinedError from error
        if not self.context.isfinite(value):
            raise UndefinedError
        return value


_FUNCTIONS = {
    **{name: name for name in ("sqrt", "cbrt", "exp", "log", "sin", "cos", "tan", "cot", "sec", "csc")},
    **{
        name: name
        for name in ("asin", "acos", "atan", "acot", "asec", "acsc", "sinh", "cosh", "tanh", "coth")
    },
    **{"asinh": "asinh", "acosh": "acosh", "atanh": "atanh", "Abs": "fabs", "factorial": "factorial"},
    **{"floor": "floor", "ceiling": "ceil", "re": "re", "im": "im", "conjugate": "conj", "sign": "sign"},
}
_SLOW_GROWING = frozenset(
    ["sqrt", "cbrt", "log", "Abs", "floor", "ceiling", "re", "im", "conjugate", "sign", "atan"]
)
