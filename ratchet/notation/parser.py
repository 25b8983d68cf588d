"""From the tokens of an answer to its tree: calculator notation, LaTeX, and what Python, sympy and numpy print.

A recursive descent, one function a level of the grammar:

    members   item { (, | ; | and | or) item }
    item      side { relation side } | side : side | words
    side      quantity { (∪ | ∩ | \\setminus) quantity }
    quantity  [currency] sum [unit]
    sum       product { (+ | - | ±) product }           from here on in expressions.py
    product   power { [* | /] power }                   2x, 3(x + 1); 1 1/2 and 1\\frac{1}{2} are mixed numbers
    power     postfix [^ exponent]                      ! % ° stand behind
    atom      numbers, names, brackets, fractions, roots, functions, matrices

Limits: brackets 50 deep. Nothing is computed but fractions of written integers.
"""

from ratchet.notation import words
from ratchet.notation.building import (
    SCALARS,
    collection,
    expand_signs,
    is_infinite,
    matrix,
    multiply,
    negate,
    relation,
)
from ratchet.notation.cursor import END
from ratchet.notation.expressions import Expressions
from ratchet.notation.nodes import Node, number
from ratchet.notation.tokens import NotationError

SETS = frozenset(
    [
        *("interval", "union", "intersection", "difference", "reals", "empty"),
        *("relation", "and", "set", "tuple", "list"),
    ]
)
"""Kinds that ∪ and ∩ join."""
_RELATIONS = {
    **dict.fromkeys(("=", "approx", "equiv", "coloneqq"), "="),
    **dict.fromkeys(("!=", "ne", "neq"), "!="),
    **dict.fromkeys(("<", "lt"), "<"),
    **dict.fromkeys((">", "gt"), ">"),
    **dict.fromkeys(("<=", "le", "leq", "leqslant"), "<="),
    **dict.fromkeys((">=", "ge", "geq", "geqslant"), ">="),
    "in": "in",
}
_UNION, _INTERSECTION = frozenset(["cup", "|", "lor", "vee"]), frozenset(["cap", "&", "land", "wedge"])
_CLOSING = frozenset([")", "]", "}", "\\}", "rangle", "rfloor", "rceil", "end", "\\\\", "&"])
_MATRICES = frozenset(["pmatrix", "bmatrix", "matrix", "Bmatrix", "smallmatrix", "array"])


class Parser(Expressions):
    """The levels of the grammar above sums, and what stands in brackets."""

    def answer(self) -> Node:
        """The whole text. Raises NotationError."""
        members, _, separators = self._members()
        if self._next is not END or not members:
            raise NotationError("no answer, or more than one")
        if len(members) == 1:
            expanded = expand_signs(members[0])
            return expanded[0] if len(expanded) == 1 else Node("bare", "", tuple(expanded))
        if all(member.kind in ("relation", "and", "interval", "union") for member in members) and not all(
            member.kind == "relation" and member.text == "=" for member in members
        ):
            if separators == {"or"}:
                return Node("union", "", tuple(members))
            if separators == {"and"}:
                return Node("intersection", "", tuple(members))
        return collection("bare", members)

    def _members(self) -> tuple[list[Node], bool, set[str]]:
        """Items up to a closing sign, whether the last one has a comma behind it, and what stands between them."""
        members: list[Node] = []
        separators: set[str] = set()
        trailing = False
        while self._next is not END and self._sign not in _CLOSING:
            members.append(self._item())
            trailing = False
            before = self._at
            while self._accept(",", ";") or (self._next.kind == "word" and self._next.text in ("and", "or")):
                if self._next.kind == "word" and self._next.text in ("and", "or"):
                    separators.add(self._take().text)
                else:
                    separators.add(",")
                trailing = True
            if self._at == before:
                break
        if not members and trailing:
            raise NotationError("nothing between commas")
        return members, trailing, separators

    def _item(self) -> Node:
        self._descend()
        try:
            node = self._words() if self._next.kind == "word" and self._is_text() else self._side()
            if self._sign == ":":
                return self._ratio(node)
            relations: list[Node] = []
            while self._sign in _RELATIONS:
                sign = _RELATIONS[self._sign]
                self._take()
                other = self._side()
                relations.append(relation(sign, node, other))
                node = other
            if len(relations) == 1:
                return relations[0]
            return Node("and", "", tuple(relations)) if relations else node
        finally:
            self._depth -= 1

    def _is_text(self) -> bool:
        return self._next.text not in words.CURRENCY_CODES

    def _words(self) -> Node:
        found: list[str] = []
        while self._next.kind in ("word", "symbol", "constant") and self._next.text not in ("and", "or"):
            found.append(self._take().text.casefold())
        return Node("words", " ".join(found))

    def _side(self) -> Node:
        """A set, a number with its unit, or an expression."""
        if self._next.kind == "word" and self._is_text():
            return self._words()
        return self._set_expression()

    def _ratio(self, first: Node) -> Node:
        parts = [first]
        while self._accept(":"):
            parts.append(self._side())
        return Node("ratio", "", tuple(parts))

    # --- sets and quantities ----------------------------------------------------------------------------------------

    def _set_expression(self) -> Node:
        node = self._quantity()
        while True:
            if self._sign in _UNION and not (self._sign == "|" and self._bars):
                kind = "union"
            elif self._sign in _INTERSECTION and node.kind in SETS:
                kind = "intersection"
            elif self._sign in ("setminus", "backslash"):
                kind = "difference"
            else:
                return node
            self._take()
            other = self._quantity()
            if node.kind not in SETS or other.kind not in SETS:
                raise NotationError("no set")
            node = Node(kind, "", (node, other))

    def _quantity(self) -> Node:
        """An expression with a currency before it or a unit behind it."""
        negative = (
            self._sign in ("-", "+") and self._peek().kind in words.CURRENCIES and self._take().text == "-"
        )
        currency: str | None = None
        if self._next.kind in words.CURRENCIES:
            currency = words.CURRENCIES[self._take().kind]
        elif self._next.kind == "word":
            currency = words.CURRENCY_CODES.get(self._take().text)
        if currency and negative and self._sign in ("-", "+"):
            raise NotationError("two signs")
        node = self._sum()
        if node.kind not in SCALARS:
            return node
        if negative:
            node = negate(node)
        return self._with_unit(node, currency)

    def _with_unit(self, node: Node, currency: str | None) -> Node:
        if self._next.kind in words.CURRENCIES and currency is None:
            return Node("quantity", words.CURRENCIES[self._take().kind], (node,))
        if self._next.kind == "¢":
            self._take()
            return Node("quantity", "cent", (node,))
        if self._next.kind == "word" and self._next.text in words.SCALES:
            scale = words.SCALES[self._take().text]
            node = multiply([node, number(scale)])
        unit = self._unit()
        if unit:
            if frozenset(unit.casefold().split()) & words.NOT_UNITS:
                raise NotationError("no unit")
            spelt = words.unit_of(unit)
            return Node("quantity", spelt if currency is None else currency, (node,))
        return node if currency is None else Node("quantity", currency, (node,))

    def _unit(self) -> str:
        """`cm^2`, `miles per hour`, `m/s`; empty where none stands here."""
        unit = ""
        while True:
            token = self._next
            if (
                (token.kind == "word" and token.text not in ("and", "or"))
                or self._is_letter_unit()
                or (unit.endswith(" /") and token.kind == "symbol")
            ):
                unit += f" {self._take().text}"
            elif unit and token.kind == "/" and self._peek().kind in ("word", "symbol"):
                self._take()
                unit += " /"
            elif unit and token.kind == "^":
                self._take()
                braces = self._accept("{")
                unit += f"^{self._take().text}"
                if braces:
                    self._expect("}")
            else:
                return unit.strip()

    def _is_letter_unit(self) -> bool:
        after = self._peek()
        ends = after is END or after.kind in (",", ";", "/", "^", ")", "]") or after.text in ("and", "or")
        return (
            self._next.kind == "symbol"
            and self._next.text in words.LETTER_UNITS
            and self._next.spaced
            and ends
        )

    # --- brackets ----------------------------------------------------------------------------------------------------

    def _brackets(self) -> Node:
        opening = self._take().kind
        bars, self._bars = self._bars, 0
        members, trailing, separators = self._members()
        self._bars = bars
        closing = self._take().kind
        if closing not in (")", "]"):
            raise NotationError("bracket not closed")
        if opening + closing in ("[)", "(]"):
            if len(members) != 2:
                raise NotationError("no interval")
            return Node("interval", opening + closing, tuple(members))
        if len(members) == 2 and any(is_infinite(member) for member in members):
            return Node("interval", opening + closing, tuple(members))
        if opening == "[":
            return collection("list", members)
        if len(members) == 1 and not trailing:
            return members[0]
        if separators & {"and", "or"}:
            raise NotationError("no tuple")
        return Node("tuple", "", tuple(members))

    def _braces(self, closing: str) -> Node:
        """A group, a set, or the dictionary of names and values that sympy's solve prints."""
        bars, self._bars = self._bars, 0
        members, _, _ = self._members()
        self._bars = bars
        self._expect(closing)
        if not members:
            return Node("empty")
        if all(member.kind == "ratio" and len(member.parts) == 2 for member in members):
            pairs = [relation("=", *member.parts) for member in members]
            return pairs[0] if len(pairs) == 1 else Node("bare", "", tuple(pairs))
        if len(members) == 1 and closing == "}":
            return members[0]
        return collection("set", members)

    def _matrix(self) -> Node:
        self._take()
        name = self._environment()
        if name not in _MATRICES:
            raise NotationError("no matrix")
        if name == "array" and self._accept("{"):
            while not self._accept("}"):
                if self._take() is END:
                    raise NotationError("array not closed")
        rows: list[list[Node]] = [[]]
        while not self._accept("end"):
            if self._accept("\\\\"):
                rows.append([])
            elif not self._accept("&"):
                rows[-1].append(self._item())
                if self._sign not in ("\\\\", "&", "end"):
                    raise NotationError("matrix not closed")
        if self._environment() != name:
            raise NotationError("matrix not closed")
        return matrix([row for row in rows if row])

    def _environment(self) -> str:
        self._expect("{")
        name = self._take().text
        self._expect("}")
        return name
