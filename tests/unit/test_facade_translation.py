"""What a chat completion asks of a search, and what is refused by its name."""

from typing import Any

import pytest
from pydantic import ValidationError

from ratchet.contracts.search import SearchRequest, StrategyName, VerificationLevel
from services.search.facade.models import SEARCHES, every_model
from services.search.facade.requests import ChatCompletionRequest
from services.search.facade.translation import UnknownModelError, UntranslatableError, search_requests

PROBLEM = "6 rows of 7 seats. How many seats are there?"


def body(**changes: Any) -> ChatCompletionRequest:
    asked = {"model": "ratchet", "messages": [{"role": "user", "content": PROBLEM}], **changes}
    return ChatCompletionRequest.model_validate(asked)


def search(**changes: Any) -> SearchRequest:
    [request] = search_requests(body(**changes))
    return request


def test_a_bare_completion_is_a_search_of_the_defaults() -> None:
    request = search(seed=3)
    assert request == SearchRequest(problem=PROBLEM, strategy=StrategyName.AUTO, seed=3)


@pytest.mark.parametrize("model", SEARCHES)
def test_every_model_that_is_listed_searches(model: str) -> None:
    assert model in [each.id for each in every_model().data]
    assert search(model=model).problem == PROBLEM


def test_models_differ_in_how_much_is_searched() -> None:
    budgets = [search(model=name).budget.tokens for name in ("ratchet-fast", "ratchet", "ratchet-max")]
    assert budgets == sorted(set(budgets))


def test_a_model_that_is_not_there_is_none() -> None:
    with pytest.raises(UnknownModelError, match="gpt-4"):
        search(model="gpt-4")


def test_choices_are_searches_of_seeds_of_their_own() -> None:
    assert [each.seed for each in search_requests(body(n=3, seed=2**31 - 1))] == [2**31 - 1, 0, 1]
    assert search(seed=-1).seed == 2**31 - 1


def test_without_a_seed_each_asks_anew_and_at_temperature_0_the_same() -> None:
    assert len({search().seed for _ in range(20)}) > 1
    cold = search(temperature=0)
    assert (cold.seed, cold.parameters.temperature) == (0, SearchRequest(problem="x").parameters.temperature)
    assert search(temperature=0, seed=5).seed == 5
    assert search(temperature=1.2, top_p=0.5).parameters.model_dump(include={"temperature", "top_p"}) == {
        "temperature": 1.2,
        "top_p": 0.5,
    }


@pytest.mark.parametrize(
    ("told", "tokens"),
    [
        ({"max_tokens": 99}, 99),
        ({"max_completion_tokens": 99}, 99),
        ({"max_tokens": 99, "max_completion_tokens": 99}, 99),
        ({"max_tokens": 99, "ratchet": {"budget": {"tokens": 50}}}, 50),
        ({"max_tokens": 9, "ratchet": {"budget": {"tokens": 50}}}, 9),
        ({"ratchet": {"budget": {"tokens": 50}}}, 50),
        ({"ratchet": {"budget": {"seconds": 5}}}, 1024),
    ],
)
def test_tokens_are_the_budget_of_the_search(told: dict[str, Any], tokens: int) -> None:
    assert search(model="ratchet-fast", **told).budget.tokens == tokens


def test_what_the_options_say_goes_before_the_model_and_what_they_leave_out_does_not() -> None:
    request = search(
        model="ratchet-fast",
        ratchet={
            "strategy": "beam",
            "parameters": {"width": 3},
            "budget": {"seconds": 9},
            "require": "execution",
            "min_confidence": 0.5,
            "priority": "low",
        },
    )
    assert (request.strategy, request.parameters.width, request.parameters.rollouts) == ("beam", 3, 4)
    assert (request.budget.seconds, request.budget.tokens) == (9, 1024)
    assert (request.require, request.min_confidence) == (VerificationLevel.EXECUTION, 0.5)
    assert request.priority == "low"


@pytest.mark.parametrize(
    ("messages", "problem"),
    [
        ([("user", PROBLEM)], PROBLEM),
        ([("system", "Be brief."), ("user", PROBLEM)], f"Be brief.\n\n{PROBLEM}"),
        (
            [("user", "2 + 2?"), ("assistant", "4"), ("user", "And 3 + 3?")],
            "User: 2 + 2?\n\nAssistant: 4\n\nUser: And 3 + 3?",
        ),
        ([("user", [{"type": "text", "text": "6 rows"}, {"type": "text", "text": "of 7"}])], "6 rows\nof 7"),
    ],
)
def test_messages_are_one_problem(messages: list[tuple[str, Any]], problem: str) -> None:
    told = [{"role": role, "content": content} for role, content in messages]
    assert search(messages=told).problem == problem


def test_an_answer_of_ours_can_be_sent_back() -> None:
    back = {"role": "assistant", "content": "4", "reasoning": "s", "reasoning_content": "s", "refusal": None}
    told = [
        {"role": "user", "content": "2 + 2?"},
        {**back, "tool_calls": []},
        {"role": "user", "content": "Sure?"},
    ]
    assert "Assistant: 4" in search(messages=told).problem


REFUSED = [
    ("tools", [{"type": "function", "function": {"name": "f"}}]),
    ("tool_choice", "required"),
    ("functions", [{"name": "f"}]),
    ("response_format", {"type": "json_object"}),
    ("logprobs", True),
    ("top_logprobs", 3),
    ("logit_bias", {"50256": -100}),
    ("frequency_penalty", 0.5),
    ("presence_penalty", -0.5),
    ("modalities", ["audio"]),
    ("audio", {"voice": "alloy"}),
    ("prediction", {"type": "content", "content": "x"}),
    ("reasoning_effort", "high"),
    ("web_search_options", {}),
    ("store", True),
    ("service_tier", "flex"),
    ("verbosity", "low"),
    ("top_k", 40),
    ("n", 0),
    ("n", 17),
    ("max_tokens", 0),
    ("temperature", 3),
    ("seed", 2**63),
    ("stop", [""]),
]


@pytest.mark.parametrize(("field", "value"), REFUSED)
def test_what_cannot_be_honoured_is_refused_by_name(field: str, value: object) -> None:
    with pytest.raises(ValidationError) as refused:
        body(**{field: value})
    assert {str(error["loc"][0]) for error in refused.value.errors()} == {field}


@pytest.mark.parametrize(
    "told",
    [
        {"tools": [], "tool_choice": "none", "functions": None},
        {"response_format": {"type": "text"}, "logprobs": False, "logit_bias": {}},
        {"frequency_penalty": 0, "presence_penalty": 0.0, "service_tier": "auto", "store": False},
        {"user": "u", "metadata": {"a": "b"}, "parallel_tool_calls": True, "modalities": ["text"]},
        {"stream": True, "stream_options": {"include_usage": True}},
        dict.fromkeys(ChatCompletionRequest.model_fields.keys() - {"model", "messages"}),
    ],
)
def test_what_asks_for_nothing_is_taken(told: dict[str, Any]) -> None:
    assert search(**told).problem == PROBLEM


@pytest.mark.parametrize(
    ("messages", "named"),
    [
        ([], "messages"),
        ([("tool", "4")], "messages.0.role"),
        ([("user", None)], "messages.0.content"),
        ([("user", [{"type": "image_url", "image_url": {"url": "x"}}])], "messages.0.content"),
        ([("user", [{"type": "text"}])], "messages.0.content"),
        ([("user", "2?"), ("assistant", "4")], ""),
    ],
)
def test_messages_that_are_no_problem_are_refused_by_name(
    messages: list[tuple[str, Any]], named: str
) -> None:
    with pytest.raises(ValidationError) as refused:
        body(messages=[{"role": role, "content": content} for role, content in messages])
    [error] = refused.value.errors()
    assert ".".join(map(str, error["loc"])) == named


@pytest.mark.parametrize("text", ["", "  \n", "a\x00b", "x" * 20_001])
def test_a_text_that_is_no_problem_is_named_as_the_message(text: str) -> None:
    with pytest.raises(UntranslatableError) as refused:
        search(messages=[{"role": "user", "content": text}])
    assert {error.field for error in refused.value.errors} == {"messages"}


def test_a_reference_answer_is_told_where_it_goes() -> None:
    with pytest.raises(ValidationError, match="POST /search takes it"):
        body(ratchet={"reference_answer": "42"})


def test_two_limits_that_differ_and_options_of_no_stream_are_refused() -> None:
    with pytest.raises(ValidationError, match="two names of one limit"):
        body(max_tokens=5, max_completion_tokens=6)
    with pytest.raises(ValidationError, match="stream: true"):
        body(stream_options={"include_usage": True})
