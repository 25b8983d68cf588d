"""The problem files that people have: each kind is read as it is, or an error names its fields and how to say what is meant."""

import gzip
import json
from pathlib import Path
from typing import Any

import pyarrow
import pytest
from pyarrow import parquet

from ratchet.cli.problem_files import with_copied_files
from ratchet.contracts.rounds import ProblemSource, RoundConfig
from ratchet.problems import Problem, ProblemFileError, confined, load
from ratchet.stack.data_folder import problems_folder


def lines(*records: dict[str, Any]) -> bytes:
    return "".join(json.dumps(record) + "\n" for record in records).encode()


def held(tmp_path: Path, content: bytes, name: str = "p.jsonl", options: str = "") -> list[Problem]:
    (tmp_path / name).write_bytes(content)
    found = load(f"{tmp_path / name}{options}")
    assert not found.refused, found.refused
    return found.problems


# --- records ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("record", "text", "answer"),
    [
        # AIME of the years before; its names have capital letters, and Question stands without Body.
        ({"ID": "1", "Problem Number": 3, "Question": "How far?", "Answer": "025"}, "How far?", "025"),
        ({"Problem": "How far?", "Solution": r"\boxed{9}, of course", "Answer": 9}, "How far?", "9"),
        # NuminaMath-CoT, MATH with another case; the talk beside it is not looked at.
        ({"problem": "x?", "solution": r"So $\boxed{7}$.", "messages": [{"role": "user"}]}, "x?", "7"),
        # OpenR1-Math and NuminaMath-1.5, where an answer may be empty beside a solution.
        ({"problem": "x?", "answer": "", "solution": r"It is \boxed{5}."}, "x?", "5"),
        ({"problem": "x?", "answer": None, "solution": r"It is \boxed{5}."}, "x?", "5"),
        # AIME 2025, CMATH: the answer stands alone.
        ({"question": "Half of 1?", "answer": "1/2"}, "Half of 1?", "1/2"),
        ({"question": "Half of 2?", "answer": 1}, "Half of 2?", "1"),
        ({"question": "Half of 2?", "answer": ["1"]}, "Half of 2?", "1"),
        # Worked answers under names that elsewhere hold the answer alone.
        ({"problem": "x?", "answer": "2+2 = 4\n#### 1,004"}, "x?", "1004"),
        ({"question": "x?", "answer": "Thus\n$\\boxed{\\frac{1}{2}}$ is it."}, "x?", r"\frac{1}{2}"),
        ({"question": "x?", "answer": "so\n#### $\\boxed{4}$"}, "x?", "4"),
        ({"problem": "x?", "solution": r"\boxed{\boxed{4}}"}, "x?", "4"),
        # AMC in NuminaMath: which choice it was, and its value.
        ({"problem": "x?", "solution": r"so $\boxed{\textbf{(B)}\ 12}$"}, "x?", "12"),
        ({"problem": "x?", "answer": r"\text{(C) }\frac{1}{3}"}, "x?", r"\frac{1}{3}"),
        ({"problem": "x?", "answer": "(D) 45"}, "x?", "45"),
        ({"problem": "x?", "solution": r"so \boxed{\text{(E)},}"}, "x?", r"\text{(E)},"),
        # ASDiv: units behind the number.
        ({"body": "Nine pens.", "question": "How many?", "answer": "9 (pens)"}, "Nine pens. How many?", "9"),
        ({"Body": "A pie.", "Question": "Half?", "Answer": "1/2 (of it)"}, "A pie. Half?", "1/2"),
        # What may stand beside a question and is empty.
        ({"passage": None, "question": "1+1?", "context": " ", "image": None, "answer": 2}, "1+1?", "2"),
        # Digits are kept where a float would lose them.
        ({"problem": "2^100?", "answer": 2**100}, "2^100?", str(2**100)),
    ],
)
def test_records_of_known_kinds_are_read(
    tmp_path: Path, record: dict[str, Any], text: str, answer: str
) -> None:
    [problem] = held(tmp_path, lines(record))
    assert (problem.text, problem.answer) == (text, answer)


@pytest.mark.parametrize(
    ("number", "answer"),
    [
        ("145.0", "145"),
        ("0.50", "0.50"),
        ("12345678901234567890.5", "12345678901234567890.5"),
        ("1e20", "100000000000000000000"),
        ("0.1000000000000000055511151231257827", "0.1000000000000000055511151231257827"),
        ("3.83e135", "3.83E+135"),
    ],
)
def test_no_digit_of_a_number_is_lost(tmp_path: Path, number: str, answer: str) -> None:
    [problem] = held(tmp_path, f'{{"problem": "x", "answer": {number}, "level": 2.0}}'.encode())
    assert (problem.answer, problem.difficulty) == (answer, 2)


@pytest.mark.parametrize(
    ("record", "words"),
    [
        # Choices whose letter or place is the answer: AQuA, MMLU-Pro, gaokao.
        ({"question": "x?", "options": ["1", "4"], "answer": "B", "answer_index": 1}, "place of a choice"),
        ({"question": "x?", "choices": ["1", "4"], "answer": "(B)"}, "place of a choice"),
        ({"problem": "x?", "options": "a ) 38 , b ) 27", "answer": "2"}, "place of a choice"),
        ({"problem": "x?", "answer": ["3", "5"]}, "the field answer is a list of 2"),
        ({"problem": {"text": "x?"}, "answer": 1}, "the field problem is no text .* as problem.FIELD"),
        ({"problem": [{"role": "user"}], "answer": 1}, r"as problem\.0\.content"),
        (
            {"problem": "x?", "answer": {"value": 1}},
            r"the field answer has fields of its own: .* answer\.FIELD",
        ),
        (
            {"question": "x?", "answer": "2+2 = 4\nSo four."},
            r"more than one line, and no answer after '####' or in",
        ),
        ({"problem": "x?", "solution": r"\boxed{a_1=2} and \boxed{a_2=3}"}, "2 different answers"),
        # TabMWP, OlympiadBench, TheoremQA: a question that is not whole.
        ({"question": "How many?", "answer": "9", "table": "a | 9"}, r"\?problem=table&problem=question, or"),
        ({"question": "How far?", "answer": "9", "Context": "A car."}, r"\?problem=Context&problem=question"),
        ({"Question": "Which?", "Answer": 2, "Picture": {"bytes": "…"}}, "the field Picture has a picture"),
    ],
)
def test_values_that_cannot_be_used_are_refused_by_themselves(
    tmp_path: Path, record: dict[str, Any], words: str
) -> None:
    (tmp_path / "p.jsonl").write_bytes(lines(record, {"problem": "1+1?", "answer": 2}))
    found = load(str(tmp_path / "p.jsonl"))
    assert [problem.answer for problem in found.problems] == ["2"]
    [refused] = found.refused
    assert refused.source == "p.jsonl:1"
    with pytest.raises(AssertionError, match=words):
        raise AssertionError(refused.reason)


NAMED = [
    # MAWPS, OlympiadBench, TheoremQA's and DeepMath's names, DAPO (verl), chats, ShareGPT, MetaMath.
    ({"input": "How many?", "target": 43.0}, "problem=input&answer=target", "How many?", "43"),
    ({"question": "Least n?", "final_answer": ["2"], "unit": None}, "answer=final_answer", "Least n?", "2"),
    ({"problem": "x?", "expected_answer": r"\sqrt{2}"}, "answer=expected_answer", "x?", r"\sqrt{2}"),
    ({"question": "How many?", "ground_truth": "so\n#### 5"}, "answer=ground_truth", "How many?", "5"),
    (
        {"prompt": [{"role": "user", "content": "What is 17*3?"}], "reward_model": {"ground_truth": "51"}},
        "problem=prompt.0.content&answer=reward_model.ground_truth",
        "What is 17*3?",
        "51",
    ),
    (
        {
            "messages": [
                {"role": "system", "content": "Think."},
                {"role": "user", "content": "What is 6*7?"},
                {"role": "assistant", "content": "It is\n\\boxed{42}."},
            ]
        },
        "problem=messages.1.content&answer=messages.2.content",
        "What is 6*7?",
        "42",
    ),
    (
        {"conversations": [{"from": "human", "value": "6*7?"}, {"from": "gpt", "value": "#### 42"}]},
        "problem=conversations.0.value&answer=conversations.1.value",
        "6*7?",
        "42",
    ),
]


@pytest.mark.parametrize("kind", ["jsonl", "parquet"])
@pytest.mark.parametrize(("record", "options", "text", "answer"), NAMED)
def test_other_names_are_proposed_by_the_error_and_taken_when_they_are_said(
    tmp_path: Path, kind: str, record: dict[str, Any], options: str, text: str, answer: str
) -> None:
    path = tmp_path / f"p.{kind}"
    if kind == "jsonl":
        path.write_bytes(lines(record))
    else:
        parquet.write_table(pyarrow.Table.from_pylist([record]), path)
    with pytest.raises(ProblemFileError) as told:
        load(str(path))
    unit = "line" if kind == "jsonl" else "row"
    assert str(told.value).startswith(f"{path}, {unit} 1: ")
    assert f"The fields are {', '.join(sorted(record))}." in str(told.value)
    assert f"?{options} " in str(told.value)
    [problem] = load(f"{path}?{options}").problems
    assert (problem.text, problem.answer) == (text, answer)


def test_several_fields_of_a_problem_are_joined(tmp_path: Path) -> None:
    content = lines({"context": "Two hens", "ask": "How many eggs?", "gold": "2"})
    [problem] = held(tmp_path, content, options="?problem=context&problem=ask&answer=gold")
    assert problem.text == "Two hens. How many eggs?"


def test_who_names_the_question_knows_what_belongs_to_it(tmp_path: Path) -> None:
    content = lines({"question": "How many?", "answer": "9", "table": "a | 9"})
    for options, text in (
        ("?problem=table&problem=question", "a | 9. How many?"),
        ("?problem=question", "How many?"),
    ):
        [problem] = held(tmp_path, content, options=options)
        assert (problem.text, problem.answer) == (text, "9")


def test_an_error_with_no_name_that_is_known_shows_the_pattern_and_few_fields(tmp_path: Path) -> None:
    record = {f"column{number:02}": number for number in range(50)}
    (tmp_path / "p.jsonl").write_bytes(lines(record))
    with pytest.raises(ProblemFileError, match=r"column29 and 20 more\. .*\?problem=FIELD&answer=FIELD"):
        load(str(tmp_path / "p.jsonl"))


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ("?problem=text&answer=gold", r"line 1: there is no field gold\. The fields are label, text"),
        ("?problem=text.inner&answer=label", "line 1: there is no field text.inner"),
        ("?anser=label", "there is no option 'anser'; the options are problem, answer, records"),
        ("?answer=", "the option answer has no value"),
    ],
)
def test_a_name_that_is_not_there_is_said(tmp_path: Path, options: str, words: str) -> None:
    (tmp_path / "p.jsonl").write_bytes(lines({"text": "x", "label": 1}))
    with pytest.raises(ProblemFileError, match=words):
        load(f"{tmp_path / 'p.jsonl'}{options}")


# --- files -----------------------------------------------------------------------------------------------------------

TWO: list[dict[str, Any]] = [{"problem": "1+1?", "answer": 2}, {"problem": "2+2?", "answer": "4"}]


@pytest.mark.parametrize(
    ("document", "records"),
    [
        (TWO, "."),
        ({"version": 1, "data": TWO}, "data"),
        ({"splits": {"train": TWO, "test": []}}, "splits.train"),
        ({"a": TWO[0], "b": TWO[1]}, "."),
    ],
)
def test_a_json_document_is_read_where_its_records_are(tmp_path: Path, document: Any, records: str) -> None:
    problems = held(tmp_path, json.dumps(document, indent=1).encode(), "p.json", f"?records={records}")
    assert [(p.answer, p.source) for p in problems] == [("2", "p.json:1"), ("4", "p.json:2")]


@pytest.mark.parametrize(
    ("document", "options", "words"),
    [
        (
            TWO,
            "",
            r"line 1: a JSON array .*: p\.json\?records=\. The fields of its 2 records are answer, problem",
        ),
        (
            {"version": 1, "data": TWO},
            "",
            r"one JSON object over many lines .*\?records=FIELD.*lists are data",
        ),
        (
            {"version": 1, "data": TWO},
            "?records=rows",
            "no list of records at records=rows.* fields are data, version",
        ),
        ([1], "?records=.", "record 1: expected a JSON object"),
        (
            [{"input": "x"}],
            "?records=.",
            "record 1: expected the fields problem and answer.* The fields are input",
        ),
    ],
)
def test_a_json_document_that_is_not_understood_is_explained(
    tmp_path: Path, document: Any, options: str, words: str
) -> None:
    (tmp_path / "p.json").write_text(json.dumps(document, indent=1))
    with pytest.raises(ProblemFileError, match=words) as told:
        load(f"{tmp_path / 'p.json'}{options}")
    assert str(told.value).startswith(str(tmp_path / "p.json"))


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("p.csv", b'problem,answer\n"1,5 + 0,5?",2\n2+2?,4\n'),
        ("p.csv", b"\xef\xbb\xbfproblem;answer\r\n1,5 + 0,5?;2\r\n\r\n2+2?;4\r\n"),
        ("p.csv", b"sep=|\r\nProblem|Answer\r\n1,5 + 0,5?|2\r\n2+2?|4\r\n"),
        ("p.tsv", b"problem\tlevel\tanswer\n1,5 + 0,5?\t1\t2\n2+2?\t2\t4\n"),
        ("p.csv.gz", gzip.compress(b'problem,answer\n"1,5 + 0,5?",2\n2+2?,4\n')),
    ],
)
def test_tables_with_any_usual_delimiter_are_read(tmp_path: Path, name: str, content: bytes) -> None:
    problems = held(tmp_path, content, name)
    assert [(p.text, p.answer) for p in problems] == [("1,5 + 0,5?", "2"), ("2+2?", "4")]
    assert [p.source for p in problems] == [f"{name}:1", f"{name}:2"]


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (
            b"problem,answer\n1,5 + 0,5?,2\n",
            r"row 1: 4 cells, and the first row names 2 columns: put cells that hold ','",
        ),
        (b"frage,antwort\n1+1?,2\n", "row 1: expected the fields problem.* The fields are antwort, frage"),
        (b"problem,answer\n1+1?,2\nGr\xf6\xdfe?,3\n", "line 3: no UTF-8 text: save it as UTF-8"),
        (b'problem,answer\n1+1?,2\n"2+2?,4\n', "row 2: not valid CSV"),
        (b"problem,answer\n", "holds no problem"),
        (
            b"A box holds 30 blue balls and six red ones. How many balls are in it?,36\n",
            "must name the columns",
        ),
    ],
)
def test_a_table_that_is_not_understood_is_explained(tmp_path: Path, content: bytes, words: str) -> None:
    (tmp_path / "p.csv").write_bytes(content)
    with pytest.raises(ProblemFileError, match=words):
        load(str(tmp_path / "p.csv"))


def test_packed_files_are_read_whatever_their_name(tmp_path: Path) -> None:
    plain = lines(*TWO)
    packed = pyarrow.compress(plain, codec="zstd", asbytes=True)
    for name, content in (("p.jsonl.gz", gzip.compress(plain)), ("p.jsonl.zst", packed), ("p.jsonl", packed)):
        assert [p.answer for p in held(tmp_path, content, name)] == ["2", "4"]


def test_what_is_packed_too_large_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ratchet.problems.files.MAX_BYTES", 1000)
    for name, content in (
        ("p.jsonl.gz", gzip.compress(b" " * 1001)),
        ("p.jsonl.zst", pyarrow.compress(b" " * 1001, codec="zstd", asbytes=True)),
    ):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(ProblemFileError, match="unpacked more than"):
            load(str(tmp_path / name))


# --- where specs go --------------------------------------------------------------------------------------------------


def test_options_go_with_a_file_into_the_trainers_folder(tmp_path: Path) -> None:
    (tmp_path / "mine.jsonl").write_bytes(lines({"input": "What is 6 * 7?", "target": "42"}))
    spec = f"{tmp_path / 'mine.jsonl'}?problem=input&answer=target"
    source = ProblemSource(spec=spec, count=1)
    config = with_copied_files(RoundConfig(train=source), tmp_path / "data")
    folder = problems_folder(tmp_path / "data")
    asked = confined(config.train.spec, folder)
    assert asked == config.train.spec != spec
    assert [p.answer for p in load(asked).problems] == ["42"]
    assert load(spec).name == "mine.jsonl"
    with pytest.raises(ProblemFileError, match="there is no such file"):
        confined(f"{tmp_path / 'mine.jsonl'}?answer=target", folder)
