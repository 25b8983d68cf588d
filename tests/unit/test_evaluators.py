"""What other evaluators ask of a search, and what text they get: the part that needs none of them."""

from datetime import UTC, datetime

import pytest

from ratchet.cli.solve import search_request as as_eval_asks
from ratchet.contracts.search import SearchResult, StrategyName
from ratchet.evaluators.solving import EvaluatorError, search_client, search_request, solution_text
from ratchet.states import SearchState


def result(answer: str | None, program: str | None) -> SearchResult:
    return SearchResult(
        id="s",
        state=SearchState.ANSWERED_UNVERIFIED,
        problem="How many?",
        strategy=StrategyName.GREEDY,
        seed=0,
        answer=answer,
        program=program,
        created_at=datetime.now(UTC),
    )


def test_an_evaluator_asks_what_ratchet_eval_asks() -> None:
    settings = {"strategy": "mcts", "tokens": 400, "rollouts": 8, "seed": 3, "seconds": None}
    asked = as_eval_asks(
        {"problem": "How many?", "strategy": StrategyName.MCTS, "seed": 3, "require": None},
        parameters={"rollouts": 8, "early_stop": False},
        budget={"tokens": 400, "seconds": None},
    )
    assert search_request("How many?", settings) == asked
    assert search_request("How many?", {k: str(v) for k, v in settings.items() if v is not None}) == asked


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"tokns": 5}, "There is no setting tokns; the settings are strategy"),
        ({"tokens": "many"}, "budget.tokens"),
        ({"strategy": "gpt"}, "strategy"),
        ({"rollouts": 0}, "parameters.rollouts"),
    ],
)
def test_a_wrong_setting_is_named(settings: dict[str, object], said: str) -> None:
    with pytest.raises(EvaluatorError, match=said):
        search_request("How many?", settings)


def test_without_a_service_the_message_says_how_to_get_one(
    tmp_path: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RATCHET_DATA", str(tmp_path))
    with pytest.raises(EvaluatorError, match="ratchet up"):
        search_client()


def test_the_answer_is_the_last_line() -> None:
    assert solution_text(result("42", "print(6 * 7)")) == "```python\nprint(6 * 7)\n```\n\n#### 42"
    assert solution_text(result("42", None)) == "#### 42"
    assert solution_text(result(None, None)) == ""
