"""Which rule decides a pair of answers, and what reaches the grading jail."""

import asyncio
import json
from dataclasses import dataclass, field
from typing import cast

import pytest

from ratchet.contracts.sandbox import GradeRequest, GradeResponse, Limit
from services.sandbox.grader import COMPARE_SECONDS, grade
from services.sandbox.inside.symbolic import compare
from services.sandbox.pool import Pool
from services.sandbox.runs import Run, RunOutcome, Unit


@dataclass
class JailInProcess:
    """Compares here what would be compared in the jail, and keeps what it was given."""

    limit: Limit | None = None
    units: list[str] = field(default_factory=list)

    async def run(self, run: Run) -> RunOutcome:
        """What the jail would answer; with a limit, what it answers when it was stopped at that."""
        assert run.seconds == COMPARE_SECONDS
        self.units += run.units
        stdout = "" if self.limit else compare(run.units[0])
        return RunOutcome(
            [Unit(stdout)], None if self.limit else 0, None, self.limit, 0.1, 0.1, 10.0, False, False
        )


def verdict(candidate: str, reference: str, jail: JailInProcess | None = None) -> GradeResponse:
    request = GradeRequest(candidate=candidate, reference=reference)
    return asyncio.run(grade(cast(Pool, jail or JailInProcess()), request))


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
    found = verdict("x + 1", "1 + x", JailInProcess(limit))
    assert (found.equal, found.rule) == (False, "timeout")


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
