"""Problem files: what is read, and what is refused with which words."""

import json
from pathlib import Path
from typing import Any

import pytest

from ratchet.problems import ProblemFileError, read_problems, sample


def write(path: Path, *lines: dict[str, Any] | str) -> Path:
    path.write_text("".join((line if isinstance(line, str) else json.dumps(line)) + "\n" for line in lines))
    return path


@pytest.mark.parametrize(
    ("line", "text", "answer"),
    [
        ({"problem": " What is 1+1? ", "answer": "2"}, "What is 1+1?", "2"),
        ({"problem": "What is 1+1?", "answer": 2}, "What is 1+1?", "2"),
        ({"problem": "What is 1/2?", "answer": 0.5}, "What is 1/2?", "0.5"),
        ({"problem": "A pair?", "answer": "(1,000)"}, "A pair?", "(1,000)"),
        ({"question": "How many?", "answer": "4*5 = <<4*5=20>>20\n#### 20"}, "How many?", "20"),
        ({"question": "How many?", "answer": "so\n#### 1,234,567"}, "How many?", "1234567"),
        ({"question": "How many?", "answer": "#### no, #### -3.5"}, "How many?", "-3.5"),
        ({"Body": "He has 2.", "Question": "How many?", "Answer": 145.0}, "He has 2. How many?", "145"),
        ({"Body": "He has 2", "Question": "How many?", "Answer": 1.5}, "He has 2. How many?", "1.5"),
    ],
)
def test_every_kind_of_line_is_read(tmp_path: Path, line: dict[str, Any], text: str, answer: str) -> None:
    (problem,) = read_problems(write(tmp_path / "p.jsonl", line)).problems
    assert (problem.text, problem.answer, problem.source) == (text, answer, "p.jsonl:1")


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("{", "line 2: not valid JSON"),
        ("[1]", "line 2: expected a JSON object"),
        ({"foo": 1}, "line 2: the fields are foo; expected problem and answer"),
        ({"problem": "x"}, "line 2: the field answer must be a number or a text"),
        ({"problem": "x", "answer": True}, "line 2: the field answer must be a number or a text"),
        ({"problem": " ", "answer": 1}, "line 2: the field problem must be a text that is not blank"),
        (
            {"problem": "x" * 30_000, "answer": 1},
            "line 2: the problem is not usable: .*at most 20000",
        ),
        ({"problem": "a\x00b", "answer": 1}, "line 2: the problem is not usable: .*NUL"),
        ({"problem": "x", "answer": "1" * 2000}, "line 2: the answer has 2000 characters"),
        ({"question": "x", "answer": "20"}, "line 2: no answer after '####'"),
    ],
)
def test_a_bad_line_is_named(tmp_path: Path, line: dict[str, Any] | str, words: str) -> None:
    path = write(tmp_path / "p.jsonl", {"problem": "ok", "answer": 1}, line)
    with pytest.raises(ProblemFileError, match=words) as caught:
        read_problems(path)
    assert str(caught.value).startswith(str(path))


def test_bytes_that_are_no_utf8_are_named(tmp_path: Path) -> None:
    path = tmp_path / "p.jsonl"
    path.write_bytes(b'\n{"problem": "\xff", "answer": 1}\n')
    with pytest.raises(ProblemFileError, match="line 2: not valid JSON"):
        read_problems(path)


def test_a_file_that_cannot_be_used_is_refused(tmp_path: Path) -> None:
    (tmp_path / "empty.jsonl").touch()
    for name, words in (
        ("missing.jsonl", "cannot be read: No such file"),
        ("empty.jsonl", "holds no problem"),
        ("p.parquet", "Parquet is not read yet"),
        (".", "cannot be read: Is a directory"),
    ):
        with pytest.raises(ProblemFileError, match=words):
            read_problems(tmp_path / name)


def test_duplicates_are_reported_and_only_true_copies_are_dropped(tmp_path: Path) -> None:
    path = write(
        tmp_path / "p.jsonl",
        "\ufeff" + json.dumps({"problem": "a b", "answer": 1}),
        "",
        {"problem": "a  b", "answer": 1},
        {"problem": "a b", "answer": 2},
    )
    held = read_problems(path)
    assert [(p.text, p.answer) for p in held.problems] == [("a b", "1"), ("a b", "2")]
    assert [(d.line, d.first_line, d.conflicting) for d in held.duplicates] == [(3, 1, False), (4, 1, True)]
    assert len({p.id for p in held.problems}) == 2


def test_the_id_depends_on_content_alone(tmp_path: Path) -> None:
    one = read_problems(write(tmp_path / "a.jsonl", {"question": "How many?", "answer": "#### 20"})).problems[
        0
    ]
    two = read_problems(write(tmp_path / "b.jsonl", "", {"problem": "How  many?", "answer": 20})).problems[0]
    assert one.id == two.id
    assert one.source != two.source


def test_samples_are_repeatable_and_disjoint(tmp_path: Path) -> None:
    problems = read_problems(
        write(tmp_path / "p.jsonl", *({"problem": f"p{i}", "answer": i} for i in range(50)))
    ).problems
    first = sample(problems, seed=7, limit=20)
    assert first == sample(problems, seed=7, limit=20)
    assert first != sample(problems, seed=8, limit=20)
    assert first != problems[:20]
    assert not set(first) & set(sample(problems, seed=7, offset=20, limit=20))
    assert set(sample(problems, seed=7)) == set(problems)
