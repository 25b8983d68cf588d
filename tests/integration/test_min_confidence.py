"""Solved means the level and the probability, in a real jail: with a calibration, without one, and with a reference answer."""

from collections.abc import AsyncIterator, Sequence
from datetime import UTC, datetime
from typing import Any

import pytest

from ratchet.clients import SandboxClient
from ratchet.contracts.calibration import AnswerCalibration, Feature, Reliability
from ratchet.contracts.search import SearchRequest, Verification, VerificationLevel
from ratchet.solutions.aggregator import FEATURES
from ratchet.solutions.words import verification_words
from ratchet.states import SearchState
from ratchet.store.search_results import SearchOutcome
from services.search.early_stop import EarlyStop
from services.search.interpreter import Interpreter
from services.search.search import Search
from services.search.step_memory import StepMemory
from services.search.strategies import Rollout, Tree
from services.search.verify import conclude
from tests.integration.test_grounding import AT_ONCE, COMPUTED, ROLLS, WRITTEN, executed
from tests.sandbox_server import TOKEN, Sandbox, sandbox

__all__ = ["sandbox"]

MODELS = {"policy": "small@1", "prm": "prm1-likelihood@small@1"}
AGREEING = [(COMPUTED, "37"), (AT_ONCE, "37"), (COMPUTED, "37"), (AT_ONCE, "37")]


@pytest.fixture
async def client(sandbox: Sandbox) -> AsyncIterator[SandboxClient]:
    async with SandboxClient(str(sandbox.http.base_url), key=TOKEN) as client:
        yield client


def calibration(least: float, intercept: float = 0.0) -> AnswerCalibration:
    """Each further vote makes an answer likelier: with four of them and no other answer 0.8, by intercept 0."""
    weights = {"log_votes": 1.0}
    features = [Feature(name=name, mean=0, scale=1, coefficient=weights.get(name, 0.0)) for name in FEATURES]
    return AnswerCalibration(
        policy=MODELS["policy"],
        prm=MODELS["prm"],
        features=features,
        intercept=intercept,
        l2=1.0,
        problems=100,
        source="a test",
        min_confidence=least,
        reliability=Reliability(n=0, right=0, bins=[], ece=0, brier=0),
        created_at=datetime.now(UTC),
    )


def searched(
    client: SandboxClient,
    found: Sequence[tuple[Sequence[str], str]],
    known: AnswerCalibration | None,
    **asked: Any,
) -> Search:
    """A search that drew these programs, each with its answer, from the root."""
    request = SearchRequest(problem=ROLLS, strategy="best_of_n", **asked)
    looked_up: list[tuple[str, str]] = []

    async def find(policy: str, prm: str) -> AnswerCalibration | None:
        looked_up.append((policy, prm))
        assert looked_up == [(MODELS["policy"], MODELS["prm"])], "once, for the models that have worked on it"
        return known

    search = Search(
        request,
        request.reference_answer,
        Tree(),
        Interpreter(client, 0, StepMemory()),
        models=dict(MODELS),
        find_calibration=find,
    )
    for steps, answer in found:
        task = search.strategy().ask(search.tree)
        assert task is not None
        search.strategy().tell(search.tree, Rollout(task, (executed(steps, answer, 0.5),)))
    return search


async def concluded(
    client: SandboxClient, known: AnswerCalibration | None, **asked: Any
) -> tuple[SearchState, SearchOutcome, Verification]:
    search = searched(client, AGREEING, known, **asked)
    state, outcome = await conclude(search, client, "s1", datetime.now(UTC), "all rollouts done")
    assert outcome.verification is not None
    return state, outcome, outcome.verification


@pytest.mark.parametrize(
    ("least", "asked", "state"),
    [
        (0.7, None, SearchState.SOLVED_VERIFIED),
        (0.9, None, SearchState.ANSWERED_UNVERIFIED),
        (0.9, 0.75, SearchState.SOLVED_VERIFIED),
        (0.7, 0.85, SearchState.ANSWERED_UNVERIFIED),
        (0.9, 0.0, SearchState.SOLVED_VERIFIED),
    ],
)
async def test_solved_needs_the_probability_that_was_asked_for(
    client: SandboxClient, least: float, asked: float | None, state: SearchState
) -> None:
    found, outcome, verification = await concluded(client, calibration(least), min_confidence=asked)
    assert found is state
    assert verification.level is VerificationLevel.AGREEMENT
    assert verification.confidence == pytest.approx(0.8)
    assert verification.min_confidence == (least if asked is None else asked)
    reason = outcome.reason or ""
    assert ("its probability of being right is 0.8" in reason) == (state is SearchState.ANSWERED_UNVERIFIED)
    assert "probability of being right: 0.80" in verification_words(verification)


async def test_without_a_calibration_the_level_decides_and_the_answer_says_so(client: SandboxClient) -> None:
    state, outcome, verification = await concluded(client, None)
    assert (state, outcome.reason) == (SearchState.SOLVED_VERIFIED, "all rollouts done")
    assert (verification.confidence, verification.min_confidence) == (None, None)
    assert "not calibrated" in verification_words(verification)


async def test_a_probability_that_nobody_can_tell_is_not_reached(client: SandboxClient) -> None:
    state, outcome, verification = await concluded(client, None, min_confidence=0.5)
    assert state is SearchState.ANSWERED_UNVERIFIED
    assert (verification.confidence, verification.min_confidence) == (None, 0.5)
    assert "these models are not calibrated" in (outcome.reason or "")


async def test_an_answer_that_equals_the_reference_is_certain(client: SandboxClient) -> None:
    state, _, verification = await concluded(
        client, calibration(0.99, intercept=-9), reference_answer="37", min_confidence=0.99
    )
    assert (state, verification.level) == (SearchState.SOLVED_VERIFIED, VerificationLevel.REFERENCE)
    assert verification.confidence == 1.0


async def test_a_probable_answer_without_the_level_is_not_solved(client: SandboxClient) -> None:
    search = searched(client, [(WRITTEN, "37")] * 5, calibration(0.5))
    state, outcome = await conclude(search, client, "s1", datetime.now(UTC), "all rollouts done")
    assert state is SearchState.ANSWERED_UNVERIFIED
    assert outcome.reason == "all rollouts done", "the probability is not what it lacks"


@pytest.mark.parametrize(
    ("known", "asked", "stops"),
    [
        (calibration(0.7), None, False),
        (calibration(0.9), 0.5, False),
        (calibration(0.7).model_copy(update={"early_stop": True}), None, True),
        (calibration(0.9), 0.0, True),
        (None, None, True),
        (None, 0.9, True),
    ],
)
async def test_a_search_whose_probability_counts_ends_early_only_if_the_calibration_is_of_such_searches(
    client: SandboxClient, known: AnswerCalibration | None, asked: float | None, stops: bool
) -> None:
    search = searched(client, AGREEING, known, min_confidence=asked)
    await search.learn_calibration()
    assert (EarlyStop(search).reason() is not None) == stops


async def test_a_search_without_samples_has_no_calibration(client: SandboxClient) -> None:
    search = searched(client, AGREEING[:1], calibration(0.5), parameters={"temperature": 0.0})
    await search.learn_calibration()
    assert (search.calibration, search.min_confidence) == (None, None)
