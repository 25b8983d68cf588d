"""What a verification says, in a real jail: programs that compute their answer, and programs that only write it down."""

from collections.abc import AsyncIterator, Sequence
from datetime import UTC, datetime
from typing import Any

import pytest

from ratchet.client.proofs import check_programs
from ratchet.clients import SandboxClient
from ratchet.contracts.sandbox import StepStatus
from ratchet.contracts.search import Proof, SearchRequest, VerificationLevel
from ratchet.solutions.behaviour import FAILED, SILENT, Question, ask_variants
from ratchet.solutions.counterfactual import make_variants
from ratchet.solutions.proof import check_bundle
from ratchet.states import SearchState
from ratchet.store.search_results import SearchOutcome
from services.search.interpreter import Interpreter
from services.search.search import Search
from services.search.step_memory import StepMemory
from services.search.strategies import ExecutedStep, Rollout, Tree
from services.search.verify import conclude
from tests.sandbox_server import TOKEN, Sandbox, sandbox

__all__ = ["sandbox"]

ROLLS = "A baker bakes 9 trays of 6 rolls and sells 17 of them. How many rolls are left?"
WRITTEN = ("# 54 rolls less 17.\nrolls_left = 37", "print(rolls_left)")
SAID = ("print(37)",)
COMPUTED = ("# Bake.\nrolls = 9 * 6", "# Sell.\nprint(rolls - 17)")
AT_ONCE = ("print(6 * 9 - 17)",)
BY_LOOP = ("left = 0\nfor _ in range(9):\n    left += 6\nleft -= 17", "print(float(left))")
BY_ACCIDENT = ("print(17 + 20)",)
FORGETFUL = ("n = 9 * 6", "print(n)")


@pytest.fixture
async def client(sandbox: Sandbox) -> AsyncIterator[SandboxClient]:
    async with SandboxClient(str(sandbox.http.base_url), key=TOKEN) as client:
        yield client


def executed(steps: Sequence[str], answer: str, prm: float) -> tuple[ExecutedStep, ...]:
    last = len(steps) - 1
    return tuple(
        ExecutedStep(
            text,
            StepStatus.OK,
            stdout=answer if place == last else "",
            stderr="",
            prm_score=prm,
            prior=-0.5,
            tokens=10,
            seconds=0.1,
            answer=answer if place == last else None,
            value=0.0 if place == last else None,
        )
        for place, text in enumerate(steps)
    )


async def concluded(
    client: SandboxClient,
    *found: tuple[Sequence[str], str],
    problem: str = ROLLS,
    prm: float = 0.5,
    **asked: Any,
) -> tuple[SearchState, SearchOutcome]:
    """The end of a search that drew these programs, each with its answer, from the root."""
    request = SearchRequest(problem=problem, strategy="majority", **asked)
    search = Search(request, request.reference_answer, Tree(), Interpreter(client, 0, StepMemory()))
    strategy = search.strategy()
    for steps, answer in found:
        task = strategy.ask(search.tree)
        assert task is not None
        strategy.tell(search.tree, Rollout(task, (executed(steps, answer, prm),)))
    return await conclude(search, client, "s1", datetime.now(UTC), "all rollouts done")


def forms(outcome: SearchOutcome) -> int:
    assert outcome.verification is not None
    return outcome.verification.forms


def summary(outcome: SearchOutcome) -> tuple[VerificationLevel, bool | None, int]:
    assert outcome.verification is not None
    return (
        outcome.verification.level,
        outcome.verification.grounded,
        outcome.verification.independent_programs,
    )


async def holds(outcome: SearchOutcome, client: SandboxClient) -> bool:
    """Whether the search's own bundle stands when it is checked."""
    assert outcome.proof is not None
    proof = Proof.model_validate(outcome.proof)
    checks = [*check_bundle(outcome.proof, proof)]
    checks += [check async for check in check_programs(proof, client)]
    assert all(check.holds for check in checks), [check for check in checks if not check.holds]
    return True


@pytest.mark.parametrize("require", ["execution", "agreement"])
async def test_an_answer_that_is_written_down_is_not_verified(client: SandboxClient, require: str) -> None:
    state, outcome = await concluded(client, (WRITTEN, "37"), (SAID, "37"), (WRITTEN, "37"), require=require)
    assert (state, outcome.answer) == (SearchState.ANSWERED_UNVERIFIED, "37")
    assert summary(outcome)[:2] == (VerificationLevel.NONE, False)
    assert outcome.proof is None


async def test_where_no_verification_is_asked_for_the_leading_answer_is_given_as_it_is(
    client: SandboxClient,
) -> None:
    async def never(*_: Any) -> Any:
        raise AssertionError("nothing is run again")

    found = ((COMPUTED, "37"), (AT_ONCE, "37"), (SAID, "38"))
    state, outcome = await concluded(client, *found, require="none")
    assert (state, outcome.answer, outcome.proof) == (SearchState.ANSWERED_UNVERIFIED, "37", None)
    assert summary(outcome) == (VerificationLevel.NONE, None, 0)
    assert outcome.verification is not None
    assert (outcome.verification.votes, outcome.verification.total_votes) == (2, 3)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(client, "run_steps_batch", never)
        await concluded(client, *found, require="none")
    state, outcome = await concluded(client, *found, require="none", reference_answer="37")
    assert state is SearchState.SOLVED_VERIFIED
    assert summary(outcome)[0] is VerificationLevel.REFERENCE
    state, outcome = await concluded(client, require="none")
    assert (state, outcome.answer) == (SearchState.BUDGET_EXHAUSTED, None)


async def test_programs_of_one_behaviour_agree_whatever_they_look_like(client: SandboxClient) -> None:
    state, outcome = await concluded(client, (COMPUTED, "37"), (AT_ONCE, "37"), (BY_LOOP, "37.0"))
    assert state is SearchState.SOLVED_VERIFIED
    assert summary(outcome) == (VerificationLevel.AGREEMENT, True, 3)
    assert forms(outcome) == 2, "at once or with a variable between is one form"
    assert await holds(outcome, client)


async def test_numbers_that_a_program_reads_from_strings_are_quantities_of_it(client: SandboxClient) -> None:
    exact = ("from decimal import Decimal\nrolls = Decimal('9') * Decimal(\"6\")", "print(rolls - int('17'))")
    solved = ("from sympy import solve", "print(solve('x + 17 - 9*6')[0])")
    _, outcome = await concluded(client, (exact, "37"), (solved, "37"), (COMPUTED, "37"))
    assert summary(outcome) == (VerificationLevel.AGREEMENT, True, 3)
    assert await holds(outcome, client)


async def test_one_program_drawn_twice_was_found_twice_but_not_at_temperature_0(
    client: SandboxClient,
) -> None:
    _, outcome = await concluded(client, (COMPUTED, "37"), (COMPUTED, "37"))
    assert summary(outcome) == (VerificationLevel.AGREEMENT, True, 2)
    assert forms(outcome) == 1
    assert await holds(outcome, client)
    cold = {"temperature": 0.0}
    _, outcome = await concluded(client, (COMPUTED, "37"), (COMPUTED, "37"), parameters=cold)
    assert summary(outcome) == (VerificationLevel.EXECUTION, True, 1)
    assert await holds(outcome, client)


async def test_an_answer_without_half_of_the_votes_is_no_agreement(client: SandboxClient) -> None:
    others = [((f"print({number} * 9)",), str(9 * number)) for number in (7, 8, 11)]
    state, outcome = await concluded(client, (COMPUTED, "37"), (AT_ONCE, "37"), *others)
    assert (state, outcome.answer) == (SearchState.ANSWERED_UNVERIFIED, "37")
    assert summary(outcome) == (VerificationLevel.EXECUTION, True, 2)
    _, outcome = await concluded(client, (COMPUTED, "37"), (AT_ONCE, "37"), *others[:2])
    assert summary(outcome)[0] is VerificationLevel.AGREEMENT


async def test_equal_answers_of_other_behaviour_do_not_agree(client: SandboxClient) -> None:
    state, outcome = await concluded(client, (COMPUTED, "37"), (BY_ACCIDENT, "37"), (SAID, "37"))
    assert state is SearchState.ANSWERED_UNVERIFIED
    assert summary(outcome) == (VerificationLevel.EXECUTION, True, 1)


async def test_a_grounded_program_speaks_before_one_that_is_found_more_often(client: SandboxClient) -> None:
    written = [(WRITTEN, "37")] * 4
    for require in ("execution", "agreement"):
        _, outcome = await concluded(client, *written, (COMPUTED, "37"), require=require)
        assert summary(outcome) == (VerificationLevel.EXECUTION, True, 1)
        assert outcome.program == "\n".join(COMPUTED)
        assert await holds(outcome, client)


async def test_one_misconception_drawn_twice_is_agreement(client: SandboxClient) -> None:
    _, outcome = await concluded(client, (FORGETFUL, "54"), (("print(6 * 9)",), "54"))
    assert summary(outcome) == (VerificationLevel.AGREEMENT, True, 2), "evidence, not proof"


async def test_groundedness_does_not_change_which_answer_leads(client: SandboxClient) -> None:
    _, outcome = await concluded(client, (WRITTEN, "37"), (SAID, "37"), (FORGETFUL, "54"))
    assert outcome.answer == "37"
    assert summary(outcome)[:2] == (VerificationLevel.NONE, False)


async def test_a_right_answer_is_verified_by_its_reference_and_says_that_it_was_written_down(
    client: SandboxClient,
) -> None:
    state, outcome = await concluded(client, (WRITTEN, "37"), (SAID, "37"), reference_answer="37")
    assert state is SearchState.SOLVED_VERIFIED
    assert summary(outcome)[:2] == (VerificationLevel.REFERENCE, False)
    assert await holds(outcome, client)


async def test_where_nothing_can_be_changed_programs_must_differ_in_what_they_compute(
    client: SandboxClient,
) -> None:
    only = "What is the only even prime?"
    assert make_variants(only) == []
    one, same, other = (("print(2)",), ("n = 1 + 1", "print(n)"), ("print(min([2, 4]))",))
    _, outcome = await concluded(client, (one, "2"), (same, "2"), problem=only)
    assert summary(outcome) == (VerificationLevel.EXECUTION, None, 1)
    _, outcome = await concluded(client, (one, "2"), (same, "2"), (other, "2"), problem=only)
    assert summary(outcome) == (VerificationLevel.AGREEMENT, None, 2)
    assert await holds(outcome, client)


async def test_a_variant_that_fails_or_is_silent_is_part_of_the_behaviour(client: SandboxClient) -> None:
    variants = make_variants("Share 6 among 3.")
    steps = [
        "assert 6 // 3 == 2\nif 3 > 5: x = 1",
        "for _ in range(8 - 3): y = 1\nif 3 == 3 < 6: print(6 / 3)",
    ]
    [answers] = await ask_variants([Question(steps, "2", variants)], client)
    assert FAILED in answers
    silent = ["if 6 < 10: print(6)"]
    [answers] = await ask_variants([Question(silent, "6", variants)], client)
    assert SILENT in answers


async def test_to_tell_whether_one_answer_responds_takes_two_variants(client: SandboxClient) -> None:
    for require, asked in (("execution", 2), ("agreement", len(make_variants(ROLLS)))):
        _, outcome = await concluded(client, (COMPUTED, "37"), (AT_ONCE, "37"), require=require)
        assert outcome.proof is not None
        assert len(outcome.proof["variants"]) == asked
        assert [len(program["answers"]) for program in outcome.proof["programs"]][:1] == [asked]
        assert await holds(outcome, client)
    assert len(make_variants(ROLLS)) > 2
