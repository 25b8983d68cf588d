"""From a text to its tree: the one door to this package for whoever reads an answer."""

import contextlib
import re
from functools import lru_cache

from ratchet.notation import words
from ratchet.notation.building import based
from ratchet.notation.nodes import Node, value_of
from ratchet.notation.numbers import Number
from ratchet.notation.parser import Parser
from ratchet.notation.spelling import respell
from ratchet.notation.tokens import NotationError, tokenize

MAX_CHARS = 2000

_CHOICE = re.compile(r"\(?([A-Z])\)?[.:)]?")
_BASED = re.compile(r"(-?)(?:([0-9A-Z]*[0-9][0-9A-Z]*)_\{?(\d{1,2})\}?|([A-F]{2,})_\{?(16)\}?)")
_NO_SOLUTION = re.compile(r"no (?:real )?solutions?", re.IGNORECASE)
_PROSE = re.compile(r"[\w\s.,:;!?()'/-]*[^\W\d_][\w\s.,:;!?()'/-]*")


@lru_cache(maxsize=4096)
def parse(text: str) -> Node:
    """The tree of an answer. Raises NotationError where it is not written in this syntax, as prose is."""
    if len(text) > MAX_CHARS:
        raise NotationError("too long")
    plain = respell(text)
    if _NO_SOLUTION.fullmatch(plain):
        return Node("empty")
    if match := _CHOICE.fullmatch(plain):
        plain = match[1]
    if match := _BASED.fullmatch(plain):
        sign, digits, base, letters, sixteen = match.groups()
        with contextlib.suppress(NotationError):
            return based(base or sixteen, digits or letters, sign)
    try:
        return Parser(tokenize(plain)).answer()
    except RecursionError as error:
        raise NotationError("too deep") from error


def read(text: str) -> Node:
    """The tree of an answer; of prose, its words; of anything else the text itself."""
    try:
        return parse(text)
    except NotationError:
        plain = respell(text[:MAX_CHARS])
        if len(text) > MAX_CHARS or not _PROSE.fullmatch(plain):
            return Node("words", text.strip())
        return Node("words", " ".join(plain.casefold().strip(" .,:;!?()").split()))


def number_of(node: Node) -> Number | None:
    """The number that a tree is, with its unit, or None."""
    percent, unit = False, None
    if node.kind == "quantity":
        unit, node = node.text, node.parts[0]
    if node.kind == "degree":
        unit, node = words.UNITS["°"], node.parts[0]
    if node.kind == "percent":
        percent, node = True, node.parts[0]
    if node.kind != "number":
        return None
    return Number(*value_of(node), percent=percent, unit=unit)


def read_number(text: str) -> Number | None:
    """The one number that a text is, or None where it is anything else."""
    try:
        return number_of(parse(text))
    except NotationError:
        return None
