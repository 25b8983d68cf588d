"""Where problems come from: Parquet files, the hub's protocol, reasoning-gym, nano; and what `ratchet problems` says."""

import contextlib
import hashlib
import http.server
import json
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pyarrow
import pytest
from pyarrow import parquet
from typer.testing import CliRunner

from ratchet.cli.problems import app
from ratchet.problems import ProblemFileError, load
from ratchet.problems.hub import HubSplit, choose

NOWHERE = "http://127.0.0.1:9"

GSM8K = [
    {"question": "How many hens?", "answer": "2*2 = 4\n#### 4"},
    {"question": "How many eggs?", "answer": "so\n#### 1,200"},
]
MATH = [
    {"problem": "Find $x$.", "level": "Level 4", "type": "Algebra", "solution": r"It is $\boxed{\sqrt{2}}$."},
    {"problem": "Which?", "level": "Level ?", "type": "Algebra", "solution": r"$\boxed{\text{It depends}}$"},
    {"problem": "Why?", "level": "Level 1", "type": "Algebra", "solution": "Because."},
]


def parquet_bytes(rows: list[dict[str, Any]]) -> bytes:
    sink = pyarrow.BufferOutputStream()
    parquet.write_table(pyarrow.Table.from_pylist(rows), sink)
    return bytes(sink.getvalue())


# --- files -----------------------------------------------------------------------------------------------------------


def test_parquet_is_read_row_by_row(tmp_path: Path) -> None:
    path = tmp_path / "p.parquet"
    path.write_bytes(parquet_bytes([row | {"blob": b"\x00" * 10} for row in MATH]))
    held = load(str(path))
    (problem,) = held.problems
    assert (problem.text, problem.answer, problem.source) == ("Find $x$.", r"\sqrt{2}", "p.parquet:1")
    assert (problem.family, problem.difficulty) == ("Algebra", 4)
    assert [r.source for r in held.refused] == ["p.parquet:2", "p.parquet:3"]


def test_parquet_without_the_columns_names_those_it_has(tmp_path: Path) -> None:
    path = tmp_path / "p.parquet"
    path.write_bytes(parquet_bytes([{"text": "x", "label": 1}]))
    with pytest.raises(
        ProblemFileError,
        match=r"row 1: expected the fields problem and answer, .* The fields are label, text",
    ):
        load(str(path))


# --- the hub ---------------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def hub_of(datasets: Mapping[str, Mapping[str, bytes]]) -> Iterator[str]:
    """As much of the hub's HTTP protocol as a data set needs. A stand-in: tests have no hub."""
    commit = "a" * 40

    class Handler(http.server.BaseHTTPRequestHandler):
        def answer(self, status: int, body: bytes = b"", **headers: str) -> None:
            self.send_response(status)
            for key, value in (headers | {"Content-Length": str(len(body)), "X-Repo-Commit": commit}).items():
                self.send_header(key.replace("_", "-"), value)
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(body)

        def do_GET(self) -> None:
            path = self.path.split("?")[0]
            for name, files in datasets.items():
                if path.startswith(f"/api/datasets/{name}/tree/"):
                    tree = [
                        {"type": "file", "path": file, "size": len(d), "oid": "b" * 40}
                        for file, d in files.items()
                    ]
                    return self.answer(200, json.dumps(tree).encode(), Content_Type="application/json")
                if path.startswith(f"/api/datasets/{name}"):
                    siblings = [{"rfilename": file, "size": len(data)} for file, data in files.items()]
                    info = {"id": name, "sha": commit, "siblings": siblings, "private": False, "tags": []}
                    return self.answer(200, json.dumps(info).encode(), Content_Type="application/json")
                if path.startswith(start := f"/datasets/{name}/resolve/"):
                    data = files.get(path.removeprefix(start).partition("/")[2])
                    if data is not None:
                        return self.answer(200, data, ETag=f'"{hashlib.sha1(data).hexdigest()}"')
            return self.answer(404, b"{}", X_Error_Code="RepoNotFound")

        do_HEAD = do_GET  # noqa: N815

        def log_message(self, *arguments: Any) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()


@pytest.fixture(scope="module")
def hub() -> Iterator[str]:
    algebra, geometry = (
        parquet_bytes(MATH),
        parquet_bytes([MATH[0] | {"problem": "Find y.", "type": "Geometry"}]),
    )
    datasets = {
        "openai/gsm8k": {
            "README.md": b"no data",
            "main/train-00000-of-00001.parquet": parquet_bytes(GSM8K),
            "main/test-00000-of-00001.parquet": parquet_bytes(GSM8K[:1]),
            "socratic/train-00000-of-00001.parquet": b"must not be downloaded",
        },
        "EleutherAI/hendrycks_math": {
            "algebra/train-00000-of-00001.parquet": algebra,
            "geometry/train-00000-of-00001.parquet": geometry,
        },
        "HuggingFaceH4/MATH-500": {"test.jsonl": json.dumps({"problem": "x", "answer": "3"}).encode()},
        "org/parts": {f"data/train-0000{i}-of-00002.parquet": parquet_bytes([GSM8K[i]]) for i in (0, 1)},
        "org/broken": {"data/train-00000-of-00001.parquet": b"PAR1 and nothing"},
        "org/pickled": {"train.pkl": b"nothing that is read"},
    }
    with hub_of(datasets) as address:
        yield address


def test_a_split_is_downloaded_alone_and_then_found_without_the_hub(hub: str, tmp_path: Path) -> None:
    spec = "hub:openai/gsm8k?config=main&split=train"
    held = load(spec, cache_dir=tmp_path, hub=hub)
    assert [(p.text, p.answer) for p in held.problems] == [
        ("How many hens?", "4"),
        ("How many eggs?", "1200"),
    ]
    assert held.problems[0].source == "openai/gsm8k/main/train-00000-of-00001.parquet:1"
    assert len(list(tmp_path.rglob("*.parquet"))) == 1
    assert load("hub:gsm8k", cache_dir=tmp_path, hub=NOWHERE).sha256 == held.sha256
    with pytest.raises(
        ProblemFileError, match=r"hub cannot be reached for openai/gsm8k .*cache does not hold"
    ):
        load("hub:gsm8k?split=test", cache_dir=tmp_path, hub=NOWHERE)
    # Both splits are in the cache's folder now; each is still read alone.
    assert len(load("hub:gsm8k?split=test", cache_dir=tmp_path, hub=hub).problems) == 1
    assert load("hub:gsm8k", cache_dir=tmp_path, hub=hub).sha256 == held.sha256


def test_a_split_of_which_the_cache_has_only_a_part_is_not_read(hub: str, tmp_path: Path) -> None:
    assert len(load("hub:org/parts", cache_dir=tmp_path, hub=hub).problems) == 2
    assert len(load("hub:org/parts", cache_dir=tmp_path, hub=NOWHERE).problems) == 2
    next(tmp_path.rglob("train-00001-*.parquet")).unlink()
    with pytest.raises(ProblemFileError, match="its cache does not hold these files"):
        load("hub:org/parts", cache_dir=tmp_path, hub=NOWHERE)


def test_math_is_all_its_subjects_with_the_boxed_answers(hub: str, tmp_path: Path) -> None:
    held = load("hub:math", cache_dir=tmp_path, hub=hub)
    assert [(p.answer, p.family, p.difficulty) for p in held.problems] == [
        (r"\sqrt{2}", "Algebra", 4),
        (r"\sqrt{2}", "Geometry", 4),
    ]
    assert ["free text" in r.reason or "boxed" in r.reason for r in held.refused] == [True, True]
    assert len(load("hub:math?config=geometry", cache_dir=tmp_path, hub=hub).problems) == 1
    assert load("hub:math500", cache_dir=tmp_path, hub=hub).problems[0].answer == "3"


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        ("hub:org/other", "The hub has no data set org/other for you: check the spelling"),
        ("hub:openai/gsm8k", "several configs: add config= with one of main, socratic, or all"),
        ("hub:gsm8k?config=man", "no config 'man': add config="),
        ("hub:gsm8k?split=dev", "no files of the split 'dev'; its files: main/test-"),
        ("hub:org/broken", "not a Parquet file that can be read"),
        ("hub:org/pickled", "no Parquet, JSON or CSV files"),
        ("hub:gsm9k", "give a data set id like hub:org/name, or one of gsm8k, math"),
        ("hub:gsm8k?size=3", "no option 'size'; the options are split, config, revision"),
        ("hub:gsm8k?split=", "the option split has no value"),
    ],
)
def test_a_data_set_that_cannot_be_had_is_said(hub: str, tmp_path: Path, spec: str, words: str) -> None:
    with pytest.raises(ProblemFileError) as caught:
        load(spec, cache_dir=tmp_path, hub=hub)
    assert words in str(caught.value)


@pytest.mark.parametrize(
    ("names", "chosen"),
    [
        (["train.jsonl", "test.jsonl"], ["train.jsonl"]),
        (
            [
                "data/train-00000-of-00002.parquet",
                "data/train-00001-of-00002.parquet",
                "data/training.parquet",
            ],
            2,
        ),
        (["default/train/0000.parquet", "default/test/0000.parquet"], ["default/train/0000.parquet"]),
        (["data/train-0.parquet", "algebra/train-0.parquet"], ["data/train-0.parquet"]),
        (["train.jsonl", "train.parquet"], ["train.parquet"]),
        (["train.csv", "train.json.gz", "train/state.json", "train/dataset_info.json"], ["train.json.gz"]),
    ],
)
def test_the_files_of_a_split_are_found_by_name(names: list[str], chosen: list[str] | int) -> None:
    found = choose(names, HubSplit("org/name"))
    assert found == chosen if isinstance(chosen, list) else found == names[:chosen]


# --- generated -------------------------------------------------------------------------------------------------------


def test_a_task_is_generated_by_its_seed() -> None:
    held = load("reasoning-gym:chain_sum?size=20&seed=1")
    assert len(held.problems) == 20 - len(held.duplicates)
    assert {p.family for p in held.problems} == {"chain_sum"}
    for problem in held.problems:
        expression = problem.text.removesuffix(" =").rpartition(": ")[2]
        assert int(problem.answer) == eval(expression, {"__builtins__": {}})
    assert load("reasoning-gym:chain_sum?size=20&seed=1").sha256 == held.sha256
    assert load("reasoning-gym:chain_sum?size=20&seed=2").sha256 != held.sha256


def test_a_task_whose_answers_are_grids_is_refused_whole() -> None:
    held = load("reasoning-gym:sudoku?size=3")
    with pytest.raises(ProblemFileError, match=r"3 refused.*more than one line"):
        held.require_any()


def test_nano_is_a_source_whose_splits_share_nothing() -> None:
    train, held_out = load("nano:train?count=200&seed=1"), load("nano:held_out?count=100&seed=1")
    assert (len(train.problems), len(held_out.problems), train.refused) == (200, 100, [])
    assert all(p.family and p.difficulty for p in train.problems)
    assert not {p.text for p in train.problems} & {p.text for p in held_out.problems}


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        ("reasoning-gym:chain_summ", "no task 'chain_summ'; there are: chain_sum, "),
        ("reasoning-gym:composite", "cannot be made: Must specify at least one dataset"),
        ("reasoning-gym:chain_sum?size=0", "size must be a whole number from 1 on"),
        ("reasoning-gym:chain_sum?size=99999999", "size may be 1000000 at most"),
        ("nano:test", "nano has the splits train, development, held_out"),
        ("nano:train?count=many", "count must be a whole number"),
        ("nonsense", "no problem source 'nonsense'"),
        ("ftp://x/y", "no problem source 'ftp://x/y'"),
    ],
)
def test_a_spec_that_means_nothing_is_said(spec: str, words: str) -> None:
    with pytest.raises(ProblemFileError) as caught:
        load(spec)
    assert words in str(caught.value)


# --- ratchet problems ------------------------------------------------------------------------------------------------


def inspect(*arguments: str) -> tuple[int, str, str]:
    done = CliRunner().invoke(app, ["inspect", *arguments], env={"COLUMNS": "200"})
    assert done.exception is None or isinstance(done.exception, SystemExit)
    return done.exit_code, done.stdout, done.stderr


def test_inspect_counts_refusals_duplicates_and_contamination(tmp_path: Path) -> None:
    rows = [
        {"problem": "What is 1 + 1?", "answer": 2, "family": "sums", "difficulty": 1},
        {"problem": "What is 2 + 2?", "answer": 4, "family": "sums", "difficulty": 2},
        {"problem": "what is 2 + 2?", "answer": 4, "family": "sums", "difficulty": 2},
        {"problem": "Why [red]not[/red]?", "answer": "see \x1b[31m proof"},
    ]
    train, test = tmp_path / "train.jsonl", tmp_path / "test.jsonl"
    train.write_text("".join(json.dumps(row) + "\n" for row in rows))
    test.write_text(json.dumps({"problem": "What is 2+2?", "answer": 4}) + "\n")

    code, out, _ = inspect(str(train), "--against", str(test), "--json")
    found = json.loads(out)
    assert code == 1
    assert (found["problems"], found["families"], found["difficulties"]) == (2, {"sums": 2}, {"1": 1, "2": 1})
    assert [r["source"] for r in found["refused"]] == ["train.jsonl:4"]
    assert [d["source"] for d in found["duplicates"]] == ["train.jsonl:3"]
    assert found["overlaps"] == [{"evaluation": "test.jsonl:1", "train": "train.jsonl:2", "share": 1.0}]

    code, out, _ = inspect(str(train), "--against", str(test))
    assert code == 1
    for words in (
        "2 problems, 1 refused, 1 duplicates (0 with another answer)",
        "train.jsonl:4: the answer is free text",
        "Why [red]not[/red]?",
        "train.jsonl:3 is train.jsonl:2 again, with the same answer: dropped",
        "Contamination: 1 of the 1 problems",
        "100% of test.jsonl:1 is in train.jsonl:2",
    ):
        assert words in out
    assert "\x1b[31m" not in out


def test_inspect_exits_by_what_it_found(tmp_path: Path) -> None:
    assert inspect("nano:train?count=20", "--limit", "5")[0] == 0
    path = tmp_path / "p.jsonl"
    path.write_text('{"problem": "x", "answer": "see proof"}\n')
    assert inspect(str(path))[0] == 1
    code, out, error = inspect(str(tmp_path / "missing.jsonl"))
    assert (code, out, "No such file" in error) == (2, "", True)
