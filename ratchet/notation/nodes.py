"""An answer as a tree: what every reader of answers gets, and what goes to the grading jail as JSON.

| kind | text | parts |
|---|---|---|
| number | its exact value; of a decimal also its last place, `31/10~1/10` | |
| symbol, constant | its name | |
| call | the function's name | arguments |
| add, multiply, divide, power, negative, percent, degree, plus_minus (text `+` or `-`) | | operands |
| quantity | the unit | the number or expression |
| tuple, list, set, bare (written without brackets) | | members |
| interval | its brackets, `[)` | both ends |
| union, intersection, difference, member (of a set) | | operands |
| relation | `=`, `!=`, `<`, `<=` | both sides |
| and | | relations |
| matrix | | rows, each a tuple |
| ratio | | its parts |
| based | base, blank, digits | |
| words | the words in one spelling | |
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property
from typing import Any


@dataclass(frozen=True)
class Node:
    """One node of an answer's tree."""

    kind: str
    text: str = ""
    parts: tuple["Node", ...] = ()

    def walk(self) -> Iterator["Node"]:
        """This node and all below it."""
        yield self
        for part in self.parts:
            yield from part.walk()

    def shown(self) -> str:
        """The tree as a line for people: `add(1, multiply(2, x))`."""
        if not self.parts:
            return self.text.partition("~")[0] or self.kind
        named = " ".join(
            [self.text, self.kind] if self.kind in ("relation", "interval") else [self.text or self.kind]
        )
        return f"{named}({', '.join(part.shown() for part in self.parts)})"

    @cached_property
    def symbols(self) -> frozenset[str]:
        """The names of the unknowns in it."""
        return frozenset(node.text for node in self.walk() if node.kind == "symbol")

    @cached_property
    def approximate(self) -> bool:
        """Whether a decimal is in it: its value is then known to a tolerance only."""
        return any(node.kind == "number" and "~" in node.text for node in self.walk())


def number(value: Fraction | int, place: Fraction | None = None) -> Node:
    """A number; `place` is what one unit of its last digit is worth, None for an exact one."""
    return Node("number", f"{value}~{place}" if place is not None else str(value))


def value_of(node: Node) -> tuple[Fraction, Fraction | None]:
    """The value of a number and its last place."""
    value, tilde, place = node.text.partition("~")
    return Fraction(value), Fraction(place) if tilde else None


def to_json(node: Node) -> str:
    """The tree as JSON, `[kind, text, [parts]]`."""

    def plain(node: Node) -> list[Any]:
        return [node.kind, node.text, [plain(part) for part in node.parts]]

    return json.dumps(plain(node))


def from_json(text: str) -> Node:
    """The tree that `to_json` wrote. Raises ValueError."""

    def built(plain: Any) -> Node:
        match plain:
            case [str(kind), str(text), list(parts)]:
                return Node(kind, text, tuple(built(part) for part in parts))
        raise ValueError("not a tree")

    return built(json.loads(text))
