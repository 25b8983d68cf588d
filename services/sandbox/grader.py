"""Are two answers equal? First as text, then as numbers, and only then as mathematics, in the grading jail.

Both are read here by `ratchet.notation`, which evaluates nothing and whose work is bounded by the length of the text. What
goes into the jail is two trees of known kinds. Comparing them can compute for long, and is given up after two seconds.
"""

import asyncio
import json

from ratchet.contracts.sandbox import GradeRequest, GradeResponse, GradeRule
from ratchet.notation.nodes import Node, to_json
from ratchet.notation.numbers import is_same_number
from ratchet.notation.reading import number_of, read
from services.sandbox.pool import Pool
from services.sandbox.runs import Run, Task

COMPARE_SECONDS = 2.0
MEMORY_MB = 256
SHOWN_CHARS = 500
LONG_CHARS = 200
"""A longer text is read in a thread: 2,000 characters can take some tenths of a second, and others wait for the event loop."""


async def grade(pool: Pool, request: GradeRequest) -> GradeResponse:
    """The verdict on a pair. Raises what `Pool.run` raises."""
    candidate, reference = request.candidate.strip(), request.reference.strip()
    if not candidate or not reference:
        return GradeResponse(equal=False, rule=GradeRule.UNPARSED)
    if candidate == reference:
        return _verdict(True, GradeRule.EXACT, candidate, reference)
    one, other = await _read(candidate), await _read(reference)
    ours, theirs = number_of(one), number_of(other)
    if ours is not None and theirs is not None:
        return _verdict(is_same_number(ours, theirs), GradeRule.NUMERIC, str(ours), str(theirs))
    shown = (_shown(one), _shown(other))
    if one.kind == other.kind == "words" and one == other:
        return _verdict(True, GradeRule.TEXT, *shown)
    if "words" in (one.kind, other.kind):
        return _verdict(False, GradeRule.UNPARSED, *shown)
    run = Run(
        task=Task.COMPARE,
        units=[json.dumps([to_json(one), to_json(other)])],
        seconds=COMPARE_SECONDS,
        memory_bytes=MEMORY_MB * 2**20,
        seed=0,
    )
    outcome = await pool.run(run)
    equal = None
    if outcome.return_code == 0 and outcome.units[0].stdout.strip() in ("true", "false"):
        equal = outcome.units[0].stdout.strip() == "true"
    rule = GradeRule.SYMBOLIC if equal is not None else GradeRule.TIMEOUT
    return _verdict(equal is True, rule, *shown)


async def _read(text: str) -> Node:
    return read(text) if len(text) <= LONG_CHARS else await asyncio.to_thread(read, text)


def _verdict(equal: bool, rule: GradeRule, candidate: str | None, reference: str | None) -> GradeResponse:
    return GradeResponse(equal=equal, rule=rule, candidate_parsed=candidate, reference_parsed=reference)


def _shown(node: Node) -> str | None:
    """A tree for people; None for what could not be read as mathematics."""
    return None if node.kind == "words" else node.shown()[:SHOWN_CHARS]
