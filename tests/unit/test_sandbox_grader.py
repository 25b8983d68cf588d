"""Which rule decides a pair of answers, and what reaches the grading jail."""

import asyncio
import json
from dataclasses import dataclass, field
from typing import cast

import pytest

from ratchet.contracts.sandbox import GradeRequest, GradeResponse, Limit
from services.sandbox.admission import Admission
from services.sandbox.grader import COMPARE_SECONDS, QUICK_SECONDS, Grader
from services.sandbox.inside.symbolic import compare
from services.sandbox.pool import Pool
from services.sandbox.runs import Run, RunOutcome, Unit


@dataclass
class JailInProcess:
    """Compares here what would be compared in the jail, and keeps what it was given."""

    limit: Limit | None = None
    first: Limit | None = None
    """What only the first, short try meets."""
    seconds: list[float] = field(default_factory=list)
    units: list[str] = field(default_factory=list)

    async def run(self, run: Run) -> RunOutcome:
        """What the jail would answer; with a limit, what it answers when it was stopped at that."""
        self.units += run.units
        self.seconds.append(run.seconds)
        limit = self.limit if run.seconds == COMPARE_SECONDS else self.limit or self.first
        stdout = "" if limit else compare(run.units[0])
        return RunOutcome([Unit(stdout)], None if limit else 0, None, limit, 0.1, 0.1, 10.0, False, False)


def verdict(candidate: str, reference: str, jail: JailInProcess | None = None) -> GradeResponse:
    request = GradeRequest(candidate=candidate, reference=reference)

    async def ask() -> GradeResponse:
        grader = Grader(cast(Pool, jail or JailInProcess()), Admission(1, 9, 9.0), Admission(1, 9, 9.0))
        return await grader.grade("anyone", request)

    return asyncio.run(ask())


@pytest.mark.parametrize(
    ("candidate", "reference", "equal", "rule"),
    [
        ("blue", " blue ", True, "exact"),
        ("72.0", "72", True, "numeric"),
        ("12 apples", "13", False, "numeric"),
        ("Blue.", "\\text{blue}", True, "text"),
        ("Blue", "red", False, "unparsed"),
        ("Yes", "1", False, "unparsed"),
        ("", "0", False, "unparsed"),
        ("[1, 2]", "2, 1", True, "symbolic"),
        ("x + 1", "x + 2", False, "symbolic"),
        ("9**9**9**9", "1", False, "timeout"),
    ],
)
def test_each_verdict_names_its_rule(candidate: str, reference: str, equal: bool, rule: str) -> None:
    found = verdict(candidate, reference)
    assert (found.equal, found.rule) == (equal, rule)


@pytest.mark.parametrize("limit", [Limit.WALL, Limit.CPU, Limit.MEMORY])
def test_a_comparison_that_is_stopped_is_not_equal(limit: Limit) -> None:
    jail = JailInProcess(limit)
    found = verdict("x + 1", "1 + x", jail)
    assert (found.equal, found.rule) == (False, "timeout")
    assert jail.seconds == ([QUICK_SECONDS] if limit is Limit.MEMORY else [QUICK_SECONDS, COMPARE_SECONDS])


def test_what_needs_longer_than_a_moment_gets_it() -> None:
    jail = JailInProcess(first=Limit.WALL)
    assert verdict("x + 1", "1 + x", jail).equal
    assert jail.seconds == [QUICK_SECONDS, COMPARE_SECONDS]


def test_numbers_and_words_are_decided_without_the_jail() -> None:
    jail = JailInProcess()
    for candidate, reference in (
        ("72", "72.0"),
        ("1/3", "0.3333"),
        ("Yes", "No"),
        ("5 cm", "5"),
        ("50%", "0.5"),
    ):
        verdict(candidate, reference, jail)
    assert not jail.units


def test_trees_reach_the_jail_and_never_a_text() -> None:
    jail = JailInProcess()
    verdict("sqrt(x) + 2", "\\sqrt{x} + 2", jail)
    (unit,) = jail.units
    assert [json.loads(tree)[0] for tree in json.loads(unit)] == ["add", "add"]
    assert "\\sqrt" not in unit
    # Code is no tree: nothing of it is sent.
    verdict("__import__('os')._exit(0)", "0", jail)
    assert len(jail.units) == 1


def test_what_was_read_is_shown() -> None:
    found = verdict("2x + 1", "(3, 4)")
    assert found.candidate_parsed == "add(multiply(2, x), 1)"
    assert found.reference_parsed == "tuple(3, 4)"
    assert verdict("prose here", "3").candidate_parsed is None
