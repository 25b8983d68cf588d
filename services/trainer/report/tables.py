"""What the report's sections are made of: cells, tables and bars. A cell is text that the template escapes."""

from collections.abc import Sequence
from dataclasses import dataclass

from ratchet.contracts.rounds import RoundView
from ratchet.states import RoundState
from ratchet.statistics import mcnemar
from services.trainer.report.metrics import DASH, Estimate, count, percent, state_name

TONES = {RoundState.PROMOTED: "good", RoundState.REJECTED: "bad", RoundState.FAILED: "bad"}
DIGITS = 12
"""Of a digest, as many as tell it from others."""


@dataclass(frozen=True, slots=True)
class Cell:
    """Text, a smaller line under it, a share in [0, 1] that colours it, or a tone ("good", "bad")."""

    text: str
    detail: str = ""
    share: float | None = None
    tone: str = ""


NONE = Cell(DASH)


@dataclass(frozen=True, slots=True)
class Table:
    """The first cell of a row is its heading."""

    columns: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]


@dataclass(frozen=True, slots=True)
class Bar:
    """Stages of a round: name, seconds, and width in per cent of the longest round."""

    label: str
    seconds: float
    parts: tuple[tuple[str, float, float], ...]


@dataclass(frozen=True, slots=True)
class Section:
    """A heading with notes and tables; `anchor` is its id in the page."""

    anchor: str
    title: str
    notes: tuple[str, ...]
    tables: tuple[Table, ...]
    bars: tuple[Bar, ...] = ()


def round_cell(view: RoundView) -> Cell:
    """The round's number and state, as the heading of a row."""
    return Cell(f"{view.number}", detail=state_name(view), tone=TONES.get(view.state, ""))


def round_headings(rounds: Sequence[RoundView]) -> tuple[str, ...]:
    """The rounds' numbers, as headings of columns."""
    return tuple(f"round {view.number}" for view in rounds)


def accuracy_cell(found: Estimate | None) -> Cell:
    """A share and its interval."""
    return NONE if found is None else Cell(percent(found.value), _interval(found))


def accuracy_and_tokens_cell(found: Estimate | None) -> Cell:
    """A share, its interval, and the tokens that it cost for a problem."""
    if found is None:
        return NONE
    tokens = "" if found.tokens is None else f", {found.tokens:.0f} tokens"
    return Cell(percent(found.value), _interval(found) + tokens)


def figure_cell(found: Estimate | None) -> Cell:
    """A figure of a PRM's quality, its interval, and over how many it is."""
    if found is None:
        return NONE
    return Cell(f"{found.value:.3f}", f"{found.low:.3f}–{found.high:.3f}, n = {count(found.n)}")


def paired_cell(one: Estimate | None, other: Estimate | None) -> Cell:
    """How many problems only the one, and only the other, solves. Outcomes are of the same problems, in the same order."""
    if one is None or other is None or not one.outcomes or len(one.outcomes) != len(other.outcomes):
        return NONE
    pairs = list(zip(one.outcomes, other.outcomes, strict=True))
    first, second = pairs.count(("1", "0")), pairs.count(("0", "1"))
    return Cell(f"{first} : {second}", f"p = {mcnemar(first, second):.3f}")


def solved_cell(solved: int, n: int) -> Cell:
    """The share that was solved, coloured by it."""
    return Cell(percent(solved / n), f"{solved} of {n}", share=solved / n) if n else NONE


def seconds_cell(found: float | None) -> Cell:
    """12.3."""
    return NONE if found is None else Cell(f"{found:,.1f}")


def digest_cell(sha256: str | None) -> Cell:
    """The beginning of a digest."""
    return NONE if sha256 is None else Cell(sha256[:DIGITS])


def _interval(found: Estimate) -> str:
    return f"{100 * found.low:.1f}–{100 * found.high:.1f}"
