"""A memory of executed steps gives back what running them again would give, and nothing else."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ratchet.contracts.sandbox import Limit, Measured, RunStatus, RunStepsResponse, StepResult, StepStatus
from services.search.step_memory import StepMemory

OK, ERROR, NOT_RUN = StepStatus.OK, StepStatus.ERROR, StepStatus.NOT_RUN


def response(*steps: tuple[StepStatus, str], **measured: Any) -> RunStepsResponse:
    usual = {"wall_seconds": 0.01, "cpu_seconds": 0.01, "peak_memory_mb": 1.0}
    return RunStepsResponse(
        status=RunStatus.SUCCESS,
        steps=[StepResult(status=status, stdout=stdout) for status, stdout in steps],
        measured=Measured.model_validate(usual | measured),
    )


def outputs(found: list[StepResult] | None) -> list[tuple[StepStatus, str]] | None:
    return None if found is None else [(result.status, result.stdout) for result in found]


def test_steps_and_each_beginning_of_them_are_recalled() -> None:
    memory = StepMemory()
    memory.keep(1, ["a", "b"], response((OK, "A"), (OK, "B")))
    assert outputs(memory.recall(1, ["a", "b"])) == [(OK, "A"), (OK, "B")]
    assert outputs(memory.recall(1, ["a"])) == [(OK, "A")]
    assert memory.recall(1, ["a", "b", "c"]) is None


def test_another_seed_or_another_beginning_is_another_run() -> None:
    memory = StepMemory()
    memory.keep(1, ["a", "b"], response((OK, "A"), (OK, "B")))
    assert memory.recall(2, ["a"]) is None
    assert memory.recall(1, ["b"]) is None
    assert memory.recall(1, ["x", "b"]) is None


@given(st.lists(st.text("ab", max_size=3), min_size=1), st.lists(st.text("ab", max_size=3), min_size=1))
def test_no_two_ways_to_cut_a_text_into_steps_are_one(kept: list[str], asked: list[str]) -> None:
    memory = StepMemory()
    memory.keep(1, kept, response(*((OK, "|".join(kept[: n + 1])) for n in range(len(kept)))))
    found = memory.recall(1, asked)
    assert (found is not None) == (asked == kept[: len(asked)])
    if found is not None:
        assert [result.stdout for result in found] == ["|".join(asked[: n + 1]) for n in range(len(asked))]


def test_after_a_step_that_fails_nothing_has_run() -> None:
    memory = StepMemory()
    memory.keep(1, ["a", "b", "c"], response((OK, ""), (ERROR, ""), (NOT_RUN, "")))
    assert outputs(memory.recall(1, ["a", "b", "anything"])) == [(OK, ""), (ERROR, ""), (NOT_RUN, "")]


@pytest.mark.parametrize(
    "of_the_moment",
    [
        response((OK, "A"), (StepStatus.LIMIT, ""), limit=Limit.WALL, signal=9),
        response((OK, "A"), (ERROR, ""), limit=Limit.MEMORY),
        response((OK, "A"), (StepStatus.KILLED, "")),
        response((OK, "A"), (OK, "cut"), stdout_truncated=True),
    ],
)
def test_what_says_something_of_the_moment_is_not_kept(of_the_moment: RunStepsResponse) -> None:
    memory = StepMemory()
    memory.keep(1, ["a", "b"], of_the_moment)
    assert memory.recall(1, ["a", "b"]) is None
    assert memory.recall(1, ["a"]) is None


def test_the_least_recently_used_results_go_first() -> None:
    memory = StepMemory(most_steps=2)
    for step in ("a", "b"):
        memory.keep(1, [step], response((OK, step)))
    assert memory.recall(1, ["a"]) is not None
    memory.keep(1, ["c"], response((OK, "c")))
    assert memory.recall(1, ["b"]) is None
    assert memory.recall(1, ["a"]) is not None


def test_long_outputs_are_bounded_in_all() -> None:
    memory = StepMemory(most_chars=1000)
    for number in range(10):
        memory.keep(1, [str(number)], response((OK, "x" * 400)))
        memory.keep(1, [str(number)], response((OK, "x" * 400)))
    kept = [number for number in range(10) if memory.recall(1, [str(number)]) is not None]
    assert kept == [8, 9]
