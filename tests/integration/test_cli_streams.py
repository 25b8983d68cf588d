"""What the commands read from and write to: terminals of any encoding, pipes that close, files saved by any editor."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.cli_process import ENVIRONMENT, ratchet
from tests.http_double import serving
from tests.integration.search_double import search_double

INSPECT = [sys.executable, "-m", "ratchet.cli.main", "problems", "inspect"]
ASCII = {"LC_ALL": "C", "PYTHONIOENCODING": "ascii", "PYTHONUTF8": "0"}
WORDS = "Prove “it” for √2 🙂"


@pytest.fixture
def refused(tmp_path: Path) -> Path:
    """Enough that what is said of it does not fit into a pipe."""
    path = tmp_path / "problems.jsonl"
    lines = [{"problem": "1 + 1?", "answer": 2}, *[{"problem": WORDS, "answer": "see proof"}] * 1000]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


@pytest.mark.parametrize("options", [[], ["--json"]])
def test_a_terminal_that_knows_only_ascii_sees_escapes(refused: Path, options: list[str]) -> None:
    done = subprocess.run(
        [*INSPECT, str(refused), *options],
        env=ENVIRONMENT | ASCII,
        capture_output=True,
        check=True,
        timeout=60,
    )
    assert not done.stderr
    said = done.stdout.decode("ascii")
    assert r"Prove \u201cit\u201d for \u221a2" in said
    if options:
        assert json.loads(said)["refused"][0]["text"] == WORDS


@pytest.mark.parametrize("buffered", ["", "1"])
def test_a_pipe_that_closes_ends_a_command_without_a_word(refused: Path, buffered: str) -> None:
    environment = ENVIRONMENT | {"PYTHONUNBUFFERED": buffered}
    with subprocess.Popen(
        [*INSPECT, str(refused), "--json"], env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert os.read(process.stdout.fileno(), 1) == b"{"
        process.stdout.close()
        assert process.stderr.read() == b""


def test_a_byte_order_mark_on_stdin_is_no_part_of_the_problem() -> None:
    with serving() as serve:
        app, searches = search_double()
        url = serve(app)
        assert ratchet("solve", "-", "--url", url, "--json", stdin="\ufeffsay 42".encode()).returncode == 0
        assert [asked.problem for asked in searches.requests] == ["say 42"]


@pytest.mark.parametrize("command", [["problems", "inspect"], ["eval"]])
def test_what_is_no_problem_file_is_refused_before_anything_is_started(
    tmp_path: Path, command: list[str]
) -> None:
    for name, content in (
        ("data.json", '[\n {"problem": "x", "answer": 1}\n]\n'),
        ("pointer.jsonl", "version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 7\n"),
    ):
        path = tmp_path / name
        path.write_text(content)
        done = ratchet(*command, str(path), cwd=tmp_path)
        assert done.returncode == 2
        assert f"{path}, line 1: a " in "".join(done.stderr.splitlines())
