"""Sets of real numbers as pieces of the line: intervals, inequalities, unions of them, and points."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cmp_to_key

from ratchet.notation.nodes import Node

Compare = Callable[[Node, Node], int | None]
"""-1, 0, 1, or None where two ends cannot be ordered."""
MAX_PIECES = 64
INFINITE = Node("constant", "oo")
MINUS_INFINITE = Node("negative", "", (INFINITE,))
_NUMBER_SETS = frozenset(["interval", "union", "intersection", "difference", "reals", "empty", "and"])


@dataclass(frozen=True)
class Piece:
    """An interval, or, with equal ends, a point."""

    low: Node
    low_closed: bool
    high: Node
    high_closed: bool


class UnorderedError(ValueError):
    """Two ends cannot be compared."""


LINE = Piece(MINUS_INFINITE, False, INFINITE, False)


def is_set_of_numbers(node: Node) -> bool:
    """Whether an answer can only be a set of real numbers, or what holds for them."""
    return node.kind in _NUMBER_SETS or (node.kind == "relation" and node.text != "=")


def pieces_of(node: Node, compare: Compare) -> list[Piece] | None:
    """The pieces of a set in their order, or None where it cannot be read as one."""
    try:
        return _pieces(node, compare)
    except UnorderedError:
        return None


def same_pieces(ours: list[Piece], theirs: list[Piece], same: Callable[[Node, Node], bool]) -> bool:
    """Whether two lists of pieces are the same set."""
    return len(ours) == len(theirs) and all(
        (one.low_closed, one.high_closed) == (other.low_closed, other.high_closed)
        and same(one.low, other.low)
        and same(one.high, other.high)
        for one, other in zip(ours, theirs, strict=True)
    )


def _pieces(node: Node, compare: Compare) -> list[Piece]:
    match node.kind:
        case "reals":
            return [LINE]
        case "empty":
            return []
        case "interval":
            return _interval(node.parts[0], node.text[0] == "[", node.parts[1], node.text[1] == "]", compare)
        case "tuple" | "list" if len(node.parts) == 2:
            closed = node.kind == "list"
            return _interval(node.parts[0], closed, node.parts[1], closed, compare)
        case "set":
            return _joined([Piece(part, True, part, True) for part in node.parts], compare)
        case "relation":
            return _relation(node, compare)
        case "union":
            return _joined([piece for part in node.parts for piece in _pieces(part, compare)], compare)
        case "intersection" | "and":
            found = [LINE]
            for part in node.parts:
                found = _common(found, _pieces(part, compare), compare)
            return found
        case "difference":
            first, *others = node.parts
            found = _pieces(first, compare)
            for part in others:
                found = _common(found, _rest(_pieces(part, compare), compare), compare)
            return found
    raise UnorderedError(node.kind)


def _interval(low: Node, low_closed: bool, high: Node, high_closed: bool, compare: Compare) -> list[Piece]:
    order = compare(low, high)
    # Of ends with unknowns in them nothing is known, but one interval can be compared with another.
    if order == 1 or (order == 0 and not (low_closed and high_closed)):
        return []
    return [Piece(low, low_closed and low != MINUS_INFINITE, high, high_closed and high != INFINITE)]


def _relation(node: Node, compare: Compare) -> list[Piece]:
    left, right = node.parts
    if left.kind == "symbol" and left.text not in right.symbols:
        if node.text == "!=":
            return _rest([Piece(right, True, right, True)], compare)
        if node.text == "=":
            return [Piece(right, True, right, True)]
        return _interval(MINUS_INFINITE, False, right, node.text == "<=", compare)
    if right.kind == "symbol" and right.text not in left.symbols:
        if node.text in ("=", "!="):
            return _relation(Node("relation", node.text, (right, left)), compare)
        return _interval(left, node.text == "<=", INFINITE, False, compare)
    raise UnorderedError("no unknown alone on one side")


def _ordered(one: Node, other: Node, compare: Compare) -> int:
    order = compare(one, other)
    if order is None:
        raise UnorderedError("ends that cannot be ordered")
    return order


def _joined(pieces: list[Piece], compare: Compare) -> list[Piece]:
    """The union, in order, with what touches made one."""
    if len(pieces) > MAX_PIECES:
        raise UnorderedError("too many pieces")

    def by_low(one: Piece, other: Piece) -> int:
        return _ordered(one.low, other.low, compare) or (other.low_closed - one.low_closed)

    found: list[Piece] = []
    for piece in sorted(pieces, key=cmp_to_key(by_low)):
        if found:
            last = found[-1]
            gap = _ordered(piece.low, last.high, compare)
            if gap < 0 or (gap == 0 and (piece.low_closed or last.high_closed)):
                longer = _ordered(piece.high, last.high, compare)
                if longer > 0:
                    found[-1] = Piece(last.low, last.low_closed, piece.high, piece.high_closed)
                elif longer == 0:
                    found[-1] = Piece(
                        last.low, last.low_closed, last.high, last.high_closed or piece.high_closed
                    )
                continue
        found.append(piece)
    return found


def _common(ours: list[Piece], theirs: list[Piece], compare: Compare) -> list[Piece]:
    found: list[Piece] = []
    for one in ours:
        for other in theirs:
            lows, highs = _ordered(one.low, other.low, compare), _ordered(one.high, other.high, compare)
            low, low_closed = max(
                [(lows, one.low, one.low_closed), (-lows, other.low, other.low_closed)],
                key=lambda end: end[0],
            )[1:]
            high, high_closed = min(
                [(highs, one.high, one.high_closed), (-highs, other.high, other.high_closed)],
                key=lambda end: end[0],
            )[1:]
            if lows == 0:
                low_closed = one.low_closed and other.low_closed
            if highs == 0:
                high_closed = one.high_closed and other.high_closed
            found += _interval(low, low_closed, high, high_closed, compare)
    return _joined(found, compare)


def _rest(pieces: list[Piece], compare: Compare) -> list[Piece]:
    """The complement."""
    found: list[Piece] = []
    low, closed = MINUS_INFINITE, False
    for piece in pieces:
        if piece.low != MINUS_INFINITE:
            found += _interval(low, closed, piece.low, not piece.low_closed, compare)
        low, closed = piece.high, not piece.high_closed
    if low != INFINITE:
        found += _interval(low, closed, INFINITE, False, compare)
    return found
