"""Code in fences: found where a text introduces it, left alone where the text is the code."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ratchet.contracts.policy import FinishReason, Until
from ratchet.solutions.fences import fenced_code
from ratchet.solutions.step_formats import few_shot

CODE = "# Step 1: Add.\nprint(2 + 3)"


@pytest.mark.parametrize(
    ("text", "code"),
    [
        (f"Sure! This adds them:\n\n```python\n{CODE}\n```\nIt prints 5.", CODE),
        (f"Sure\n~~~\n{CODE}\n~~~\n", CODE),
        (f"# Solution\n```py\n{CODE}", CODE),
        (f"First:\n```python\nx = 2\n```\nThen:\n  ```python\nprint(x)\n  ```\n{CODE}", "x = 2\nprint(x)"),
        (f"x = (\n```\nOnce more:\n```python\n{CODE}\n```", CODE),
        ("Nothing:\n```python\n", ""),
    ],
)
def test_code_that_is_introduced_is_found(text: str, code: str) -> None:
    assert fenced_code(text) == code


@pytest.mark.parametrize(
    "text",
    [
        CODE,
        f"{CODE}\n```\nThat was all.",
        f"{CODE}\n```python\nprint(9)\n```",
        f"{CODE}\n```\n\nProblem: next\n```python\nprint(9)",
        "The answer is 5.",
        "Use the ```` operator.",
        "The end.\n```\n",
        "",
    ],
)
def test_what_is_code_already_or_has_none_stays(text: str) -> None:
    assert fenced_code(text) == text


@given(
    st.lists(st.sampled_from(["```", "```python", "~~~ py", "x = 1", "So:", "\n", "((", "\x00", "\ud800"]))
)
def test_any_text_has_its_code(parts: list[str]) -> None:
    text = "\n".join(parts)
    assert set(fenced_code(text).split("\n")) <= {*text.split("\n"), ""}


def test_steps_are_those_of_the_code_and_not_of_what_is_said_about_it() -> None:
    text = f"I add the two numbers.\n```python\n{CODE}\n```\nSo the answer is 5."
    for until in Until:
        assert few_shot().split(text, until, FinishReason.END) == ([CODE], True)
