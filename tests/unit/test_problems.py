"""Problem files and sets: what is read, what is refused with which words, duplicates, samples and splits."""

import gzip
import json
import re
from pathlib import Path
from typing import Any

import pytest

from ratchet.problems import ProblemFileError, load, read_problems, sample, split
from ratchet.problems.problem import normal_form
from ratchet.problems.references import boxed
from ratchet.problems.verifiable import refusals


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
        ({"problem": "x?", "solution": r"\boxed{0.5}, so \boxed{\frac{1}{2}}."}, "x?", r"\frac{1}{2}"),
        ({"problem": "x?", "choices": ["90", "40"], "answer": 40}, "x?", "40"),
        ({"problem": "x?", "answer": 2**90 + 1}, "x?", str(2**90 + 1)),
        ({"problem": "x?", "answer": 3, "level": float("nan")}, "x?", "3"),
        ({"problem": "x?", "solution": "long", "answer": "7"}, "x?", "7"),
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
        ({"foo": 1}, "line 2: expected the fields problem and answer, .* The fields are foo"),
        ({"problem": "x"}, "line 2: there is no field answer, which must be a number or a text"),
        ({"problem": "x", "answer": True}, "line 2: the field answer must be a number or a text"),
        ({"problem": " ", "answer": 1}, "line 2: the field problem must be a text that is not blank"),
        (
            {"problem": "x" * 30_000, "answer": 1},
            "line 2: the problem is not usable: .*at most 20000",
        ),
        ({"problem": "a\x00b", "answer": 1}, "line 2: the problem is not usable: .*NUL"),
        ({"problem": "x", "answer": "1" * 2000}, "line 2: the answer has 2000 characters"),
        ({"question": "x", "answer": "20\n####"}, "line 2: no answer after '####'"),
        (
            {"question": "x", "answer": "It is\n20."},
            "line 2: the answer has more than one line, .* after '####'",
        ),
        ({"problem": "x", "solution": "so 3"}, r"line 2: no answer in .boxed"),
        (
            {"problem": "x", "choices": ["9", "4"], "answer": 1},
            "line 2: the answer may be the place of a choice",
        ),
        ({"problem": "x", "options": {"A": 9, "B": 4}, "answer": "2"}, "line 2: the answer may be the place"),
        (
            {"problem": "x", "solution": r"So $\boxed{-8}$. We also took \boxed{8} for right."},
            "line 2: 2 different answers in .*name the right one in the field answer",
        ),
        ({"problem": "x", "answer": float("nan")}, "line 2: the field answer must be a number or a text"),
        ({"problem": "x", "answer": float("inf")}, "line 2: the field answer must be a number or a text"),
        ({"problem": "x", "answer": "\ud83d"}, "line 2: the answer is not usable: .*lone surrogate"),
        ({"problem": "\ud83d", "answer": 1}, "line 2: the problem is not usable: .*unicode"),
        ('{"problem": "x", "answer": ' + "7" * 5000 + "}", "line 2: not valid JSON: Exceeds the limit"),
        ("[" * 100_000, "line 2: not valid JSON"),
        (
            {"question": "x", "final": "2"},
            "line 2: there is no field answer, .* The fields are final, question",
        ),
        ({"problem": "x", "answer": "see proof"}, "line 2: the answer is free text"),
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
    with pytest.raises(ProblemFileError, match=r"line 2: not valid JSON: no UTF-8 text \(byte 14\)"):
        read_problems(path)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (
            b'[\n {"problem": "x", "answer": 1}\n]',
            r"a JSON array .*: data\.jsonl\?records=\. The fields of its 1 records are answer",
        ),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 7\n", "Git LFS pointer"),
        (gzip.compress(b'{"problem": "x", "answer": 1}', mtime=0)[:-9], "compressed, and cannot be unpacked"),
        (
            b"\x1f\x8b\x08\x00\x00\x00\x00\x00\x02\x03" + b"\xff" * 20,
            "compressed, and cannot be unpacked: .*invalid",
        ),
        (b"PK\x03\x04 and so on", "a ZIP archive or an Excel workbook"),
        (b"404: Not Found", "the message of a server"),
        ('{"problem": "x", "answer": 1}'.encode("utf-16"), "UTF-16: save it as UTF-8"),
        (b"\n<!DOCTYPE html>\n<html>", "a web page"),
    ],
)
def test_what_is_often_taken_for_json_lines_is_named(tmp_path: Path, content: bytes, words: str) -> None:
    for name in ("data.jsonl", "data.parquet"):
        path = tmp_path / name
        path.write_bytes(content)
        with pytest.raises(ProblemFileError, match=words if path.suffix == ".jsonl" else None) as caught:
            read_problems(path)
        assert str(caught.value).startswith(str(path))
        assert re.search(r"line 1: |not a Parquet file|: compressed", str(caught.value))


def test_a_file_that_cannot_be_used_is_refused(tmp_path: Path) -> None:
    (tmp_path / "empty.jsonl").touch()
    (tmp_path / "empty.parquet").touch()
    for name, words in (
        ("missing.jsonl", "cannot be read: No such file"),
        ("empty.jsonl", "holds no problem"),
        ("missing.parquet", "cannot be read: No such file"),
        ("empty.parquet", "not a Parquet file"),
        ("missing", "no problem source"),
        (".", "cannot be read: Is a directory"),
    ):
        with pytest.raises(ProblemFileError, match=words):
            read_problems(tmp_path / name)


def test_later_copies_are_dropped_and_so_is_every_copy_of_a_problem_with_two_answers(tmp_path: Path) -> None:
    path = write(
        tmp_path / "p.jsonl",
        "\ufeff" + json.dumps({"problem": "a b", "answer": 1000}),
        "",
        {"problem": "A  b", "answer": "1,000"},
        {"problem": "c", "answer": 1},
        {"problem": "c", "answer": 1},
        {"problem": "c", "answer": 2},
        {"problem": "d", "answer": r"\pi"},
    )
    held = load(str(path))
    assert [(p.text, p.answer) for p in held.problems] == [("a b", "1000"), ("d", r"\pi")]
    assert [(d.source, d.first_source, d.conflicting) for d in held.duplicates] == [
        ("p.jsonl:3", "p.jsonl:1", False),
        ("p.jsonl:5", "p.jsonl:4", False),
        ("p.jsonl:6", "p.jsonl:4", True),
    ]


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


@pytest.mark.parametrize(
    ("fields", "family", "difficulty"),
    [
        ({}, "", None),
        ({"family": "ages", "difficulty": 3}, "ages", 3),
        ({"type": "Algebra", "level": "Level 5"}, "Algebra", 5),
        ({"subject": "Geometry", "level": 2.0}, "Geometry", 2),
        ({"type": None, "level": "Level ?"}, "", None),
        ({"difficulty": True}, "", None),
        ({"difficulty": 10**30, "family": "a\0b\ud83d"}, "a b?", None),
        ({"level": float("inf"), "family": ["a", 1]}, "['a', 1]", None),
    ],
)
def test_family_and_difficulty_are_read(
    tmp_path: Path, fields: dict[str, Any], family: str, difficulty: int | None
) -> None:
    (problem,) = load(str(write(tmp_path / "p.jsonl", {"problem": "x", "answer": 1} | fields))).problems
    assert (problem.family, problem.difficulty) == (family, difficulty)


@pytest.mark.parametrize(
    ("solution", "held"),
    [
        (r"\boxed{1}", ["1"]),
        (r"\boxed{\frac{a}{b}} text {", [r"\frac{a}{b}"]),
        (r"\boxed{1", []),
        (r"\boxed{1, \boxed{2}", ["2"]),
        (r"\boxed{\left\{ 1 \right.} and } \boxed {2}", [r"\left\{ 1 \right.", "2"]),
        (r"\boxed{a \fbox{b}} \fbox{c}", [r"a \fbox{b}", "c"]),
        (r"\boxed 7$. \boxed3", ["7", "3"]),
        (r"\boxed 71, \boxed 7.5, \boxedx", []),
        ("none", []),
        (r"\boxed{" * 50_000, []),
    ],
)
def test_what_stands_in_a_box(solution: str, held: list[str]) -> None:
    assert boxed(solution) == held


def test_an_exponent_an_index_and_a_fraction_are_no_other_digits() -> None:
    for one, other in (("10²", "102"), ("x₁", "x1"), ("2½", "21⁄2"), ("10³", "10²")):
        assert normal_form(one) != normal_form(other)
    for one, other in (("１２ Ａ", "12 a"), ("10²", "10^2"), ("ﬁve", "five")):
        assert normal_form(one) == normal_form(other)


# --- answers ---------------------------------------------------------------------------------------------------------


VERIFIABLE = [
    *(r"\sqrt{2}", "(1, 2)", r"[0,\infty)", "2*x**2", "-15.0 + 3.0i", "-4*(-2*x - 8)**(3/2)/3 + C", "1, -2"),
    *(r"\begin{pmatrix}1\\2\end{pmatrix}", "x = 5", r"\{1,2\}", "10!", r"90^\circ", "9^{9^{9^9}}", "9**9**9"),
    *(
        r"10,\!080",
        "10{,}080",
        r"1 \pm \sqrt{19}",
        r"\text{(C)}",
        "52_8",
        "3.83e35",
        r"440\text{ cm}^2",
        "x > 3",
    ),
]
NOT_VERIFIABLE = {
    "": "empty",
    "1\n2": "more than one line",
    "see proof": "free text",
    r"\text{even}": "free text",
    "N/A": "free text",
    "__import__('os').system('true')": "free text",
    "3 and 5": "several answers",
    r"3\text{ or }5": "several answers",
    "x=1; y=2": "several answers",
    "1/0": "neither a number nor an expression",
    "((": "neither a number nor an expression",
    "a.b": "neither a number nor an expression",
    "{" * 900 + "1": "neither a number nor an expression",
    "np.arcsin(10/13)": "free text",
    "9 (pens)": "free text",
    "True": "free text",
}


def test_expressions_pass_and_prose_is_refused_with_its_reason() -> None:
    found = refusals([*VERIFIABLE, "7", *NOT_VERIFIABLE])
    assert found.keys() == NOT_VERIFIABLE.keys()
    for answer, words in NOT_VERIFIABLE.items():
        assert words in found[answer], answer


def test_copies_agree_about_an_answer_in_another_spelling(tmp_path: Path) -> None:
    lines = [{"problem": "c", "answer": answer} for answer in (r"\frac{1}{2}", "1/2", "0.5")]
    lines += [{"problem": "d", "answer": answer} for answer in (r"\sqrt{8}", r"2\sqrt{2}")]
    held = load(str(write(tmp_path / "p.jsonl", *lines)))
    assert [problem.answer for problem in held.problems] == [r"\frac{1}{2}", r"\sqrt{8}"]
    assert not any(duplicate.conflicting for duplicate in held.duplicates)


def test_a_set_keeps_what_is_refused_and_says_why_if_nothing_is_left(tmp_path: Path) -> None:
    lines: list[dict[str, Any]] = [
        {"problem": "prove it", "answer": "see proof"},
        {"problem": "empty", "answer": ""},
        {"problem": "both", "answer": "3 and 5"},
        {"problem": "c", "answer": 1},
        {"problem": "c", "answer": 2},
    ]
    held = load(str(write(tmp_path / "p.jsonl", *lines, {"problem": "good", "answer": 1})))
    assert [p.text for p in held.require_any().problems] == ["good"]
    assert [(r.source, r.text) for r in held.refused] == [
        ("p.jsonl:1", "prove it"),
        ("p.jsonl:2", "empty"),
        ("p.jsonl:3", "both"),
    ]
    with pytest.raises(
        ProblemFileError, match="no problem can be used: 3 refused, 1 with a conflicting copy"
    ) as caught:
        load(str(write(tmp_path / "p.jsonl", *lines))).require_any()
    assert "p.jsonl:1: the answer is free text" in str(caught.value)


def test_the_digest_is_of_the_problems_and_not_of_the_file(tmp_path: Path) -> None:
    plain = load(
        str(write(tmp_path / "a.jsonl", {"problem": "x", "answer": 1}, {"problem": "y", "answer": 2}))
    )
    same = load(
        str(write(tmp_path / "b.jsonl", {"answer": 1, "problem": "x"}, "", {"problem": "y", "answer": 2}))
    )
    other = load(
        str(write(tmp_path / "c.jsonl", {"problem": "x", "answer": 1}, {"problem": "y", "answer": 3}))
    )
    assert plain.sha256 == same.sha256 != other.sha256


# --- samples and splits ----------------------------------------------------------------------------------------------


def test_a_limit_is_a_sample_by_seed(tmp_path: Path) -> None:
    path = str(write(tmp_path / "p.jsonl", *({"problem": f"p{i}", "answer": i} for i in range(50))))
    whole, some = load(path), load(path, limit=20, seed=7)
    assert some.problems == sample(whole.problems, seed=7, limit=20)
    assert some.sha256 != whole.sha256


def test_splits_are_disjoint_and_repeatable(tmp_path: Path) -> None:
    path = str(write(tmp_path / "p.jsonl", *({"problem": f"p{i}", "answer": i} for i in range(50))))
    problems = load(path).problems
    train, development, held_out = split(problems, 30, 5, 15, seed=3)
    assert (len(train), len(development), len(held_out)) == (30, 5, 15)
    assert {*train, *development, *held_out} == set(problems)
    assert [train, development, held_out] == split(problems, 30, 5, 15, seed=3)
    assert train != split(problems, 30, seed=4)[0]
    with pytest.raises(ProblemFileError, match=r"40 \+ 11 problems are asked for, and there are only 50"):
        split(problems, 40, 11)
