"""Are two answers equal? First as text, then as numbers, and only then as mathematics, in the grading jail.

Numbers are read here, by regular expressions of bounded work; nothing is evaluated. A number is kept as an exact
fraction, so that 1e-7 stays 1e-7. Everything else goes to `symbolic.py` inside the grading jail: each side is parsed
alone, in a process of its own.

Limits: one number an answer, at most one unit, which must be a word. `2 x` and `3 i` are not numbers with units.
"""

import json
import re
from dataclasses import dataclass
from fractions import Fraction

from ratchet.contracts.sandbox import GradeRequest, GradeResponse, GradeRule, Limit
from services.sandbox.pool import Pool
from services.sandbox.runs import Run, RunOutcome, Task

RELATIVE, ABSOLUTE = Fraction(1, 10**6), Fraction(1, 10**12)
PARSE_SECONDS = 3.0
VERIFY_SECONDS = 5.0
MEMORY_MB = 512
MAX_DIGITS = 400

_DECIMAL = r"(?:\d{1,3}(?:,\d{3})+|\d+)(?:\.\d*)?|\.\d+"
_NUMBER = re.compile(
    rf"""
    (?P<sign>[-+]?)\s*
    (?P<currency>[$€£¥]|(?:USD|EUR|GBP|US\$)\s)?\s*
    (?P<inner_sign>[-+]?)
    (?:(?P<whole>\d+)\s+(?=\d+\s*/))?               # the 1 of 1 1/2
    (?P<value>{_DECIMAL})
    (?:[eE](?P<exponent>[-+]?\d{{1,3}}))?
    (?:\s*/\s*(?P<under>[-+]?(?:{_DECIMAL})))?
    \s*(?P<percent>%|percent\b)?
    \s*(?P<unit>(?<=\s)[mgshLl]\b|[A-Za-z][A-Za-z.'-]+(?:\s+[A-Za-z.'-]+){{0,3}})?
    """,
    re.VERBOSE | re.ASCII,
)
SCALES = {"hundred": 10**2, "thousand": 10**3, "million": 10**6, "billion": 10**9, "trillion": 10**12}
# Words that are no unit: after a number they change what it means.
NOT_UNITS = frozenset(
    """
    and or to of by over times plus minus pi sqrt root squared cubed half halves third thirds quarter quarters
    fourth fourths fifth fifths sixth sixths seventh sevenths eighth eighths ninth ninths tenth tenths hundredth
    hundredths dozen dozens inf infinity nan mod choose factorial if when for not less more than at least most
    """.split()  # noqa: SIM905 - a list of words reads better as words
)
CURRENCIES = {"$": "dollar", "USD": "dollar", "US$": "dollar", "€": "euro", "EUR": "euro"} | {
    "£": "pound",
    "GBP": "pound",
    "¥": "yen",
}


@dataclass(frozen=True)
class Quantity:
    """A number as it was written."""

    value: Fraction
    integer: bool
    percent: bool
    unit: str | None

    def __str__(self) -> str:
        sign = "%" if self.percent else ""
        return f"{self.value}{sign}" + (f" {self.unit}" if self.unit else "")


def quantity(text: str) -> Quantity | None:
    """The one number that the text is, or None where it is anything else."""
    plain = _unwrap(text)
    match = _NUMBER.fullmatch(plain)
    if match is None or sum(char.isdigit() for char in plain) > MAX_DIGITS:
        return None
    if match["sign"] and match["inner_sign"]:
        return None
    value = Fraction(match["value"].replace(",", "").rstrip(".") or 0)
    if match["exponent"]:
        value *= Fraction(10) ** int(match["exponent"])
    if match["under"]:
        under = Fraction(match["under"].replace(",", "").rstrip("."))
        if under == 0:
            return None
        value /= under
    if match["whole"]:
        value += int(match["whole"])
    unit = match["unit"]
    if unit is not None:
        scale, _, rest = unit.lower().partition(" ")
        if scale in SCALES:
            value *= SCALES[scale]
            unit = rest or None
    if unit is not None and NOT_UNITS & set(unit.lower().split()):
        return None
    if match["currency"]:
        unit = unit or CURRENCIES[match["currency"].strip()]
    negative = "-" in (match["sign"], match["inner_sign"])
    written_as_integer = (
        re.fullmatch(r"[\d,]+", match["value"]) and not match["exponent"] and not match["under"]
    )
    return Quantity(
        -value if negative else value, bool(written_as_integer), match["percent"] is not None, _singular(unit)
    )


_TEXT = re.compile(r"\\(?:text|mathrm|textrm|mbox)\{([^{}]*)\}")
_FRACTION = re.compile(r"\\[dt]?frac\{(\d+)\}\{(\d+)\}")


def _unwrap(text: str) -> str:
    plain = text.strip().replace("−", "-").replace("\\$", "$").replace("\\%", "%").replace("\\,", "")
    plain = _TEXT.sub(r" \1 ", plain)
    plain = _FRACTION.sub(r" \1/\2", plain).strip()
    plain = re.sub(r"^([-+])\s+", r"\1", plain)
    for before, after in (("\\(", "\\)"), ("$", "$")):
        inner = plain.removeprefix(before).removesuffix(after)
        if len(plain) >= len(inner) + 2 and before not in inner:
            plain = inner.strip()
    # The full stop of a sentence: "12 apples."
    return plain.removesuffix(".")


def _singular(unit: str | None) -> str | None:
    if unit is None:
        return None
    word = unit.lower().rstrip(".")
    return word.removesuffix("s") if len(word) > 3 else word


def same_quantity(ours: Quantity, theirs: Quantity) -> bool:
    """Whether two numbers are the same. 50% is 50 or 0.5, unless both are percentages; whole numbers are exact."""
    if ours.unit and theirs.unit and ours.unit != theirs.unit:
        return False
    if ours.percent == theirs.percent:
        return _close(ours, theirs, ours.value, theirs.value)
    percentage, plain = (ours, theirs) if ours.percent else (theirs, ours)
    return any(
        _close(ours, theirs, reading, plain.value) for reading in (percentage.value, percentage.value / 100)
    )


def _close(ours: Quantity, theirs: Quantity, left: Fraction, right: Fraction) -> bool:
    if ours.integer and theirs.integer:
        return left == right
    return abs(left - right) <= max(RELATIVE * max(abs(left), abs(right)), ABSOLUTE)


async def grade(pool: Pool, request: GradeRequest) -> GradeResponse:
    """The verdict on a pair. Raises what `Pool.run` raises."""
    candidate, reference = request.candidate.strip(), request.reference.strip()
    if not candidate or not reference:
        return GradeResponse(equal=False, rule=GradeRule.UNPARSED)
    if candidate == reference:
        return GradeResponse(
            equal=True, rule=GradeRule.EXACT, candidate_parsed=candidate, reference_parsed=reference
        )
    ours, theirs = quantity(candidate), quantity(reference)
    if ours is not None and theirs is not None:
        return GradeResponse(
            equal=same_quantity(ours, theirs),
            rule=GradeRule.NUMERIC,
            candidate_parsed=str(ours),
            reference_parsed=str(theirs),
        )
    return await _grade_symbolic(pool, candidate, reference)


async def _grade_symbolic(pool: Pool, candidate: str, reference: str) -> GradeResponse:
    shown: list[str | None] = []
    forms: list[str] = []
    # One after the other, each alone: the process that reads the candidate never holds the reference.
    for text in (candidate, reference):
        outcome = await pool.run(_task(Task.PARSE, text, PARSE_SECONDS))
        if outcome.limit in (Limit.WALL, Limit.CPU):
            return GradeResponse(
                equal=False, rule=GradeRule.TIMEOUT, candidate_parsed=next(iter(shown), None)
            )
        answer = _answer(outcome)
        if not isinstance(answer, dict) or not all(isinstance(answer.get(k), str) for k in ("form", "shown")):
            return GradeResponse(
                equal=False, rule=GradeRule.UNPARSED, candidate_parsed=next(iter(shown), None)
            )
        forms.append(answer["form"])
        shown.append(answer["shown"])
    outcome = await pool.run(_task(Task.VERIFY, json.dumps(forms), VERIFY_SECONDS))
    timed_out = outcome.limit in (Limit.WALL, Limit.CPU)
    return GradeResponse(
        equal=_answer(outcome) is True,
        rule=GradeRule.TIMEOUT if timed_out else GradeRule.SYMBOLIC,
        candidate_parsed=shown[0],
        reference_parsed=shown[1],
    )


def _task(task: Task, text: str, seconds: float) -> Run:
    return Run(task=task, units=[text], seconds=seconds, memory_bytes=MEMORY_MB * 2**20, seed=0)


def _answer(outcome: RunOutcome) -> object:
    """What the child printed, if it ended well and printed JSON."""
    if outcome.return_code != 0:
        return None
    try:
        answer: object = json.loads(outcome.units[0].stdout)
    except ValueError:
        return None
    return answer
