"""Expressions: sums down to names, numbers, fractions, roots and functions.

What stands in brackets is read by `parser.py`, which goes on from here.
"""

from abc import ABC, abstractmethod
from fractions import Fraction

from ratchet.notation import words
from ratchet.notation.building import (
    SCALARS,
    based,
    container,
    invert,
    multiply,
    negate,
    power,
    relation,
    scalar,
)
from ratchet.notation.cursor import END, Cursor
from ratchet.notation.nodes import Node, number, value_of
from ratchet.notation.tokens import NotationError, Token

_TIMES, _OVER = frozenset(["*", "cdot", "times", "ast"]), frozenset(["/", "div"])
_DECORATIONS = frozenset(
    ["overline", "vec", "hat", "bar", "overrightarrow", "widehat", "mathbf", "rm", "bf", "it", "underline"]
)
_FACTOR_COMMANDS = frozenset(["frac", "sqrt", "binom", "lfloor", "lceil", "|", *_DECORATIONS])


class Expressions(Cursor, ABC):
    """The levels of the grammar from sums downwards."""

    @abstractmethod
    def _members(self) -> tuple[list[Node], bool, set[str]]:
        """Items up to a closing sign, whether a comma stands behind the last, and what stands between them."""

    @abstractmethod
    def _brackets(self) -> Node:
        """What stands in ( ) or [ ], or an interval."""

    @abstractmethod
    def _braces(self, closing: str) -> Node:
        """A group, a set or a dictionary, after the opening brace."""

    @abstractmethod
    def _matrix(self) -> Node:
        """A LaTeX environment."""

    @abstractmethod
    def _is_letter_unit(self) -> bool:
        """Whether the next token is a unit of one letter."""

    def _sum(self) -> Node:
        terms: list[Node] = []
        while True:
            if self._accept("pm"):
                terms.append(Node("plus_minus", "+", (scalar(self._product()),)))
            elif self._accept("mp"):
                terms.append(Node("plus_minus", "-", (scalar(self._product()),)))
            elif not terms:
                terms.append(self._product())
            elif self._accept("+"):
                terms.append(scalar(self._product()))
            elif self._accept("-"):
                terms.append(negate(self._product()))
            else:
                break
        if len(terms) == 1:
            return terms[0]
        return Node("add", "", tuple(map(scalar, terms)))

    def _product(self) -> Node:
        negative = False
        while self._sign in ("+", "-"):
            negative ^= self._take().kind == "-"
            if self._sign in ("+", "-"):
                raise NotationError("two signs")
        whole = self._next.kind == "number" and self._next.place is None
        factors = [self._power()]
        while True:
            if self._accept(*_TIMES):
                factors.append(self._signed())
            elif self._accept(*_OVER):
                factors.append(invert(self._signed()))
            elif whole and len(factors) == 1 and factors[0].kind == "number" and (part := self._mixed_part()):
                factors = [number(value_of(factors[0])[0] + value_of(part)[0])]
            elif self._starts_factor(factors[-1]):
                factors.append(self._power())
            else:
                break
            whole = whole and len(factors) == 1
        node = factors[0] if len(factors) == 1 else multiply([scalar(factor) for factor in factors])
        return negate(node) if negative else node

    def _signed(self) -> Node:
        if self._accept("-"):
            return negate(self._power())
        self._accept("+")
        return scalar(self._power())

    def _mixed_part(self) -> Node | None:
        """The 1/2 of 1 1/2 or 1\\frac{1}{2}, if it stands here."""
        before = self._at
        if self._next.kind == "number" and self._next.spaced and self._next.place is None:
            if self._peek().kind == "/" and self._peek(2).kind == "number" and self._peek(2).place is None:
                above, _, under = self._take(), self._take(), self._take()
                if under.value and self._sign != "^":
                    return number(above.value / under.value)
        elif self._sign == "frac":
            part = self._atom()
            if part.kind == "number":
                return part
        self._at = before
        return None

    def _starts_factor(self, before: Node) -> bool:
        """Whether the next token multiplies without a sign."""
        token = self._next
        if token.kind in ("symbol", "constant", "function", "imaginary"):
            return not (before.kind == "number" and self._is_letter_unit())
        if token.kind == "number":
            return before.kind not in ("number", "based", "percent") and before.kind in SCALARS
        if token.kind == "|":
            return not self._bars and before.kind in SCALARS
        if token.kind == "command":
            return self._sign in _FACTOR_COMMANDS
        return token.kind == "(" or (token.kind == "{" and before.kind in SCALARS)

    def _power(self) -> Node:
        self._descend()
        try:
            node = self._postfix(self._atom())
            if not self._accept("^"):
                return node
            return self._postfix(power(node, self._exponent()))
        finally:
            self._depth -= 1

    def _exponent(self) -> Node:
        if self._accept("-"):
            return negate(self._power())
        self._accept("+")
        return scalar(self._power())

    def _postfix(self, node: Node) -> Node:
        while True:
            if self._next.kind == "!" and self._peek().kind != "!":
                self._take()
                node = Node("call", "factorial", (scalar(node),))
            elif self._accept("%"):
                node = Node("percent", "", (scalar(node),))
            elif self._accept("°"):
                if self._next.text in ("C", "F"):
                    self._take()
                node = Node("degree", "", (scalar(node),))
            else:
                return node

    # --- atoms -------------------------------------------------------------------------------------------------------

    def _atom(self) -> Node:
        token = self._next
        match token.kind:
            case "number":
                self._take()
                if self._next.kind == "_" and token.text.isdigit():
                    return based(self._subscript(), token.text)
                return number(token.value, token.place)
            case "imaginary":
                self._take()
                return multiply([number(token.value, token.place), Node("constant", "i")])
            case "based":
                self._take()
                base, digits = token.text.split()
                return based(base, digits)
            case "symbol":
                self._take()
                return Node("symbol", token.text + (self._subscript() if self._next.kind == "_" else ""))
            case "constant":
                self._take()
                if self._next.kind == "_":
                    return Node("symbol", token.text + self._subscript())
                return Node("constant", token.text)
            case "function":
                return self._function(self._take().text)
            case "(" | "[":
                return self._brackets()
            case "{":
                self._take()
                return self._braces("}")
            case "|":
                return self._absolute("|")
            case "command":
                return self._command()
        raise NotationError(f"unexpected {token.text!a}" if token is not END else "unexpected end")

    def _subscript(self) -> str:
        self._expect("_")
        if not self._accept("{"):
            if self._next.kind not in ("symbol", "number", "constant"):
                raise NotationError("no subscript")
            return self._take().text
        name = ""
        while not self._accept("}"):
            if self._next.kind not in ("symbol", "number", "word", "constant", ",", "+", "-"):
                raise NotationError("no subscript")
            name += self._take().text
        return name

    def _absolute(self, bar: str) -> Node:
        self._take()
        self._bars += 1
        inner = self._sum()
        self._bars -= 1
        self._expect(bar)
        return Node("call", "Abs", (scalar(inner),))

    def _command(self) -> Node:
        name = self._sign
        if name == "frac":
            self._take()
            above, under = self._argument(), self._argument()
            return multiply([above, invert(under)])
        if name == "binom":
            self._take()
            return Node("call", "binomial", (self._argument(), self._argument()))
        if name == "\\{":
            self._take()
            return self._braces("\\}")
        if name == "|":
            return self._absolute("|")
        if name == "langle":
            self._take()
            members, _, _ = self._members()
            self._expect("rangle")
            return Node("tuple", "", tuple(members))
        if name in ("lfloor", "lceil"):
            self._take()
            inner = self._sum()
            self._expect("rfloor" if name == "lfloor" else "rceil")
            return Node("call", "floor" if name == "lfloor" else "ceiling", (scalar(inner),))
        if name == "begin":
            return self._matrix()
        if name in words.EMPTY_SETS:
            self._take()
            if self._accept("("):
                self._expect(")")
            return Node("empty")
        if name in ("mathbbR", "Reals"):
            self._take()
            return Node("reals")
        if name.startswith("mathbb"):
            return Node("symbol", self._take().text)
        if name in _DECORATIONS:
            self._take()
            return self._argument()
        raise NotationError(f"unknown command {name}")

    def _argument(self) -> Node:
        """What a command takes: a group, or one sign. \\frac12 is a half."""
        token = self._next
        if token.kind == "{":
            self._take()
            node = self._sum()
            self._expect("}")
            return scalar(node)
        if token.kind == "number" and len(token.text) > 1 and token.text.isdigit():
            first, rest = token.text[0], token.text[1:]
            self._tokens[self._at] = Token("number", rest, False, Fraction(rest))
            return number(int(first))
        return scalar(self._atom())

    def _function(self, name: str) -> Node:
        if name == "sqrt":
            return self._root()
        base = self._base(name)
        if name == "atan" and base == number(2):
            name, base = "atan2", None
        exponent = self._argument_after_caret()
        arguments = self._arguments()
        if name in words.RELATIONS and len(arguments) == 2:
            return relation(words.RELATIONS[name], *arguments)
        if name in words.INTERVALS and len(arguments) == 2:
            return Node("interval", words.INTERVALS[name], tuple(arguments))
        if name in words.SET_OPERATIONS and len(arguments) > 1:
            return Node(words.SET_OPERATIONS[name], "", tuple(arguments))
        if name in words.CONTAINERS:
            return container(words.CONTAINERS[name], arguments)
        if not arguments:
            raise NotationError("no argument")
        if name in words.QUOTIENTS and len(arguments) == 2:
            return multiply([arguments[0], invert(arguments[1])])
        if name in words.WRAPPERS:
            return arguments[0]
        arguments = [scalar(argument) for argument in arguments]
        if base is not None:
            arguments.append(base)
        if name == "lg":
            name, arguments = "log", [*arguments, number(10)]
        name = words.SAME_FUNCTION.get(name, name)
        if name == "root" and len(arguments) == 2:
            return power(arguments[0], invert(arguments[1]))
        if exponent is None:
            return Node("call", name, tuple(arguments))
        if exponent == number(-1) and name in words.INVERSES:
            return Node("call", words.INVERSES[name], tuple(arguments))
        return power(Node("call", name, tuple(arguments)), exponent)

    def _base(self, name: str) -> Node | None:
        """The 2 of \\log_2, \\log_{2}, log2( and atan2(."""
        if self._accept("_"):
            return self._argument() if self._next.kind == "{" else self._atom()
        joined = name in ("log", "atan") and self._next.text in ("2", "10") and not self._next.spaced
        return self._atom() if joined and self._peek().kind == "(" else None

    def _argument_after_caret(self) -> Node | None:
        if not self._accept("^"):
            return None
        return self._argument() if self._next.kind != "-" else self._exponent()

    def _root(self) -> Node:
        index: Node | None = None
        if self._accept("["):
            index = scalar(self._sum())
            self._expect("]")
        if self._next.kind == "(":
            inner = scalar(self._brackets())
        elif self._next.kind == "{":
            inner = self._argument()
        else:
            inner = scalar(self._atom())
        return Node("call", "sqrt", (inner,)) if index is None else power(inner, invert(index))

    def _arguments(self) -> list[Node]:
        if self._accept("("):
            bars, self._bars = self._bars, 0
            members, _, _ = self._members()
            self._bars = bars
            self._expect(")")
            return members
        if self._accept("{"):
            members, _, _ = self._members()
            self._expect("}")
            return list(members[0].parts) if len(members) == 1 and members[0].kind == "tuple" else members
        # ln 2, \sin 2x: the factors up to the next sign.
        factors = [self._power()]
        while self._next.kind in ("symbol", "constant", "number") or self._sign == "frac":
            if self._next.kind == "number" and factors[-1].kind == "number":
                break
            factors.append(self._power())
        return [scalar(factors[0]) if len(factors) == 1 else multiply([scalar(factor) for factor in factors])]
