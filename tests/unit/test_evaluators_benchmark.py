"""The comparison of evaluators: whose answers and grades differ."""

import pytest

from benchmarks.evaluators.__main__ import Graded, answer_of, differences
from ratchet.problems import Problem


def test_a_problem_counts_where_one_of_three_says_something_else(capsys: pytest.CaptureFixture[str]) -> None:
    problems = [Problem(f"p{number}", "x?", "5", f"f:{number}") for number in range(4)]
    right, wrong, spelled = Graded("5", True), Graded("6", False), Graded("5.0", True)
    grades = {
        "ours": [right, right, right, wrong],
        "theirs": [right, right, wrong, wrong],
        "others": [right, spelled, right, wrong],
    }
    assert differences(problems, grades) == (1, 2)
    said = capsys.readouterr().out.splitlines()
    assert [line.partition(",")[0] for line in said] == ["p1", "p2"]
    assert "theirs 6 (False)" in said[1]


@pytest.mark.parametrize(
    ("content", "answer"),
    [
        ("The answer is 5.\n\n#### 5", "5"),
        ("```python\nprint('#### 4')\n#### 3\n```\n\n#### 5", "5"),
        ("No answer was found.", None),
    ],
)
def test_the_answer_is_read_from_the_last_marked_line(content: str, answer: str | None) -> None:
    assert answer_of(content) == answer
