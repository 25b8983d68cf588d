"""Are two answers equal? First as text, then as numbers, and only then as mathematics, in the grading jail.

Both are read here by `ratchet.notation`, which evaluates nothing and whose work is bounded by the length of the text. What
goes into the jail is two trees of known kinds. Comparing them can compute for long: it is tried for a moment first, which is
enough for nearly all, and what needs longer waits in a line of its own. So a few that use up their time, and are given up after
two seconds, keep nobody else waiting.
"""

import asyncio
import json
from dataclasses import dataclass

from ratchet.contracts.sandbox import GradeRequest, GradeResponse, GradeRule, Limit
from ratchet.notation.nodes import Node, to_json
from ratchet.notation.numbers import is_same_number
from ratchet.notation.reading import number_of, read
from services.sandbox.admission import Admission
from services.sandbox.pool import Pool
from services.sandbox.runs import Run, RunOutcome, Task

QUICK_SECONDS = 0.25
"""Most comparisons take some milliseconds."""
COMPARE_SECONDS = 2.0
MEMORY_MB = 256
SHOWN_CHARS = 500
LONG_CHARS = 200
"""A longer text is read in a thread: 2,000 characters can take some tenths of a second, and others wait for the event loop."""
READ_AT_ONCE = 2
"""Long texts: threads share one interpreter, and the event loop is to have its part of it."""


@dataclass(frozen=True, slots=True)
class Pair:
    """Two answers that only the jail can compare."""

    one: Node
    other: Node

    def verdict(self, equal: bool, rule: GradeRule) -> GradeResponse:
        """The verdict on them."""
        return _verdict(equal, rule, _shown(self.one), _shown(self.other))


class Grader:
    """Compares pairs in a pool of jails, of which those that need long have a part for themselves."""

    def __init__(self, pool: Pool, quick: Admission, long: Admission) -> None:
        """The permits of both lines together are as many as the pool has zygotes."""
        self._pool = pool
        self._quick, self._long = quick, long
        self._reading = asyncio.Semaphore(READ_AT_ONCE)

    @property
    def waiting(self) -> int:
        """Pairs in both lines."""
        return self._quick.waiting + self._long.waiting

    async def grade(self, caller: str, request: GradeRequest) -> GradeResponse:
        """The verdict on a pair. Raises BusyError, and what `Pool.run` raises."""
        found = await self._read_pair(request)
        if isinstance(found, GradeResponse):
            return found
        async with self._quick.permit(caller):
            outcome = await self._compare(found, QUICK_SECONDS)
        if outcome.limit in (Limit.WALL, Limit.CPU):
            async with self._long.permit(caller):
                outcome = await self._compare(found, COMPARE_SECONDS)
        if outcome.return_code == 0 and outcome.units[0].stdout.strip() in ("true", "false"):
            return found.verdict(outcome.units[0].stdout.strip() == "true", GradeRule.SYMBOLIC)
        return found.verdict(False, GradeRule.TIMEOUT)

    async def _read_pair(self, request: GradeRequest) -> GradeResponse | Pair:
        """The verdict, where it can be told without computing; otherwise what is to be compared."""
        candidate, reference = request.candidate.strip(), request.reference.strip()
        if not candidate or not reference:
            return GradeResponse(equal=False, rule=GradeRule.UNPARSED)
        if candidate == reference:
            return _verdict(True, GradeRule.EXACT, candidate, reference)
        pair = Pair(await self._read(candidate), await self._read(reference))
        ours, theirs = number_of(pair.one), number_of(pair.other)
        if ours is not None and theirs is not None:
            return _verdict(is_same_number(ours, theirs), GradeRule.NUMERIC, str(ours), str(theirs))
        if pair.one.kind == pair.other.kind == "words" and pair.one == pair.other:
            return pair.verdict(True, GradeRule.TEXT)
        if "words" in (pair.one.kind, pair.other.kind):
            return pair.verdict(False, GradeRule.UNPARSED)
        return pair

    async def _read(self, text: str) -> Node:
        if len(text) <= LONG_CHARS:
            return read(text)
        async with self._reading:
            return await asyncio.to_thread(read, text)

    async def _compare(self, pair: Pair, seconds: float) -> RunOutcome:
        return await self._pool.run(
            Run(
                task=Task.COMPARE,
                units=[json.dumps([to_json(pair.one), to_json(pair.other)])],
                seconds=seconds,
                memory_bytes=MEMORY_MB * 2**20,
                seed=0,
            )
        )


def _verdict(equal: bool, rule: GradeRule, candidate: str | None, reference: str | None) -> GradeResponse:
    return GradeResponse(equal=equal, rule=rule, candidate_parsed=candidate, reference_parsed=reference)


def _shown(node: Node) -> str | None:
    """A tree for people; None for what could not be read as mathematics."""
    return None if node.kind == "words" else node.shown()[:SHOWN_CHARS]
