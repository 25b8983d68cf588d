"""What a completion says, and how its chunks are written."""

import json
import re
from datetime import UTC, datetime
from typing import Any

import pytest

from ratchet.contracts.search import NodeView, SearchResult
from ratchet.web.openai_errors import openai_error
from services.search.facade.completions import ChunkWriter, completion_of, finish_reason
from services.search.facade.words import content_of, cut_at, step_words

STRICT = re.compile(r"#### (\-?[0-9\.\,]+)")
"""How lm-eval's gsm8k reads an answer (`strict-match`)."""
VERIFIED = {
    "level": "agreement", "votes": 3, "total_votes": 4, "independent_programs": 2, "forms": 2, "grounded": True,
    "prm_share": 0.8, "confidence": 0.9,
}  # fmt: skip


def result(**changes: Any) -> SearchResult:
    fields = {
        "id": "s1",
        "state": "solved_verified",
        "problem": "6 * 7?",
        "strategy": "mcts",
        "seed": 4,
        "answer": "42",
        "program": "# Times.\nprint(6 * 7)",
        "steps": [{"text": "# Times.\nprint(6 * 7)", "stdout": "42\n", "prm_score": 0.5}],
        "verification": VERIFIED,
        "usage": {"policy": {"calls": 2, "tokens": 120, "prompt_tokens": 30, "seconds": 1.5}},
        "models": {"policy": "m@1"},
        "created_at": datetime(2026, 1, 1, tzinfo=UTC),
    }
    return SearchResult.model_validate({**fields, **changes})


def node(**changes: Any) -> NodeView:
    fields = {
        "id": "n1", "parent": "root", "depth": 1, "state": "open", "text": "x = 1", "status": "ok", "stdout": "",
        "stderr": "", "prm_score": 0.5, "prior": -0.1, "visits": 1, "q": 0.5, "tokens": 9, "seconds": 0.1, "answer": None,
    }  # fmt: skip
    return NodeView.model_validate({**fields, **changes})


def test_the_content_has_answer_program_and_what_stands_behind_it_and_ends_as_graders_read_it() -> None:
    lines = content_of(result()).splitlines()
    assert lines[0] == "The answer is 42."
    assert "print(6 * 7)" in lines
    assert any("Verified by agreement: 2 programs" in line for line in lines)
    assert lines[-1] == "#### 42"
    assert STRICT.findall("\n".join(lines))[-1] == "42"


@pytest.mark.parametrize("answer", ["x\n#### 7", " 42 \n", "\\frac{1}{2}"])
def test_the_last_line_is_the_whole_answer(answer: str) -> None:
    last = content_of(result(answer=answer)).splitlines()[-1]
    assert last == "#### " + " ".join(answer.split())


def test_no_program_ends_its_own_block() -> None:
    content = content_of(result(program='print("```")\nprint("````")'))
    fences = [line for line in content.splitlines() if line.startswith("`````")]
    assert fences == ["`````python", "`````"]


@pytest.mark.parametrize("state", ["budget_exhausted", "cancelled"])
def test_without_an_answer_there_is_none_to_read(state: str) -> None:
    nothing = result(state=state, answer=None, program=None, verification=None, steps=[], reason="why")
    assert "####" not in content_of(nothing)
    assert "why" in content_of(nothing)
    assert finish_reason(nothing) == ("length" if state == "budget_exhausted" else "stop")


def test_what_is_not_verified_says_so() -> None:
    guess = result(
        state="answered_unverified", verification={**VERIFIED, "level": "none", "confidence": None}
    )
    assert "not verified as was asked for" in content_of(guess)


def test_content_ends_before_the_first_stop() -> None:
    assert cut_at("one\n\ntwo Question: three", ["Question:", "\n\n"]) == "one"
    assert cut_at("one", ["two"]) == "one"
    assert cut_at("one", []) == "one"


def test_a_completion_has_a_choice_for_each_search_and_the_cost_of_all() -> None:
    two = completion_of("ratchet", [result(), result(id="s2", answer="41")], ["####"])
    assert [choice.index for choice in two.choices] == [0, 1]
    assert [choice.ratchet.search for choice in two.choices] == ["s1", "s2"]
    assert all("####" not in choice.message.content for choice in two.choices)
    assert two.choices[0].message.reasoning == two.choices[0].message.reasoning_content
    usage = two.usage.model_dump()
    assert usage["completion_tokens_details"] == {"reasoning_tokens": 240}
    assert (usage["prompt_tokens"], usage["completion_tokens"], usage["total_tokens"]) == (60, 240, 300)
    assert two.system_fingerprint == "m@1"


def test_chunks_say_only_what_they_add() -> None:
    writer = ChunkWriter("ratchet", "s1", 7, usage=True)
    role, step = json.loads(writer.role(0)), json.loads(writer.reasoning(1, "x"))
    assert role["choices"][0]["delta"] == {"role": "assistant", "content": ""}
    assert step["choices"][0]["delta"] == {"reasoning": "x", "reasoning_content": "x"}
    assert (step["choices"][0]["index"], step["usage"], step["object"]) == (1, None, "chat.completion.chunk")
    content, end = (json.loads(chunk) for chunk in writer.content(0, result(), []))
    assert content["choices"][0]["delta"]["content"].endswith("#### 42")
    assert (end["choices"][0]["delta"], end["choices"][0]["finish_reason"]) == ({}, "stop")
    assert end["choices"][0]["ratchet"]["answer"] == "42"
    last = json.loads(writer.usage([result()]))
    assert (last["choices"], last["usage"]["total_tokens"]) == ([], 150)
    assert "usage" not in json.loads(ChunkWriter("ratchet", "s1", 7, usage=False).role(0))


def test_a_step_says_where_it_stands_what_it_printed_and_how_good_it_is() -> None:
    assert step_words(node(depth=0, parent=None, text="")) is None
    assert step_words(node(stdout="1\n")) == "[step 1, PRM 0.50]\nx = 1\n-> 1\n\n"
    failed = step_words(
        node(status="error", state="failed", stderr="Traceback\nNameError: y", prm_score=None)
    )
    assert failed == "[step 1]\nx = 1\n-> did not run: NameError: y\n\n"


@pytest.mark.parametrize(
    ("status", "kind", "code"),
    [
        (401, "invalid_request_error", "invalid_api_key"),
        (422, "invalid_request_error", None),
        (429, "requests", "rate_limit_exceeded"),
        (503, "server_error", None),
    ],
)
def test_errors_have_the_kinds_and_codes_of_the_api(status: int, kind: str, code: str | None) -> None:
    error = openai_error(status, "why")
    assert (error.message, error.type, error.param, error.code) == ("why", kind, None, code)
