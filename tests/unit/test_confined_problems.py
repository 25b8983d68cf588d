"""What a spec that came over HTTP may have the trainer read, and what a refusal says of it."""

import json
import os
import threading
from pathlib import Path

import pytest

from ratchet.contracts.rounds import ProblemSource, RoundConfig
from ratchet.problems import ProblemFileError, confined, load
from services.trainer.stages.context import RoundFailedError
from services.trainer.stages.prepare import load_problems

LINE = '{"problem": "What is 6 * 7?", "answer": "42"}\n'
SECRET = "root:x:0:0"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "problems" / "sets").mkdir(parents=True)
    (tmp_path / "problems" / "sets" / "a.jsonl").write_text(LINE)
    (tmp_path / "outside.jsonl").write_text(LINE)
    return tmp_path / "problems"


def test_a_file_below_the_folder_is_named_by_its_path_there_or_its_whole_path(folder: Path) -> None:
    file = folder / "sets" / "a.jsonl"
    assert confined("sets/a.jsonl", folder) == confined(str(file), folder) == str(file)
    (folder / "link.jsonl").symlink_to(file)
    assert confined("link.jsonl", folder) == str(file)
    assert len(load(confined("sets/a.jsonl", folder)).problems) == 1


@pytest.mark.parametrize("spec", ["nano:train?count=3", "hub:gsm8k", "reasoning-gym:chain_sum"])
def test_what_is_no_file_needs_no_folder(spec: str) -> None:
    assert confined(spec, None) == spec


@pytest.mark.parametrize(
    "spec",
    [
        "../outside.jsonl",
        "sets/../../outside.jsonl",
        "{parent}/outside.jsonl",
        "link.jsonl",
        "away/outside.jsonl",
        "/etc/passwd",
        "/dev/zero",
        "missing.jsonl",
        "../missing.jsonl",
        "sets",
        "a\0b.jsonl",
        "n" * 900 + ".jsonl",
        "loop.jsonl",
        "s3:bucket/a.jsonl",
    ],
)
def test_every_other_file_is_refused_in_the_same_words(folder: Path, spec: str) -> None:
    (folder / "link.jsonl").symlink_to(folder.parent / "outside.jsonl")
    (folder / "away").symlink_to(folder.parent)
    (folder / "loop.jsonl").symlink_to(folder / "loop.jsonl")
    named = spec.format(parent=folder.parent)
    with pytest.raises(ProblemFileError) as told:
        confined(named, folder)
    assert str(told.value).removeprefix(named).startswith(": there is no such file")
    with pytest.raises(ProblemFileError, match="reads no problem files"):
        confined(named, None)


def test_a_pipe_or_a_device_is_refused_and_not_waited_for(folder: Path) -> None:
    os.mkfifo(folder / "pipe.jsonl")
    (folder / "endless.jsonl").symlink_to("/dev/zero")
    told: list[str] = []

    def read() -> None:
        for spec in (str(folder / "pipe.jsonl"), str(folder / "endless.jsonl"), "/dev/zero"):
            try:
                load(spec)
            except ProblemFileError as error:
                told.append(str(error))
        try:
            confined("pipe.jsonl", folder)
        except ProblemFileError as error:
            told.append(str(error))

    reading = threading.Thread(target=read, daemon=True)
    reading.start()
    reading.join(timeout=30)
    assert not reading.is_alive(), "it waits for a pipe, or reads a device"
    assert len(told) == 4
    assert all("not a regular file" in each for each in told)


def test_a_file_that_is_too_large_is_refused_before_it_is_read(folder: Path) -> None:
    with (folder / "large.jsonl").open("wb") as file:
        file.truncate(3 * 2**30)
    with pytest.raises(ProblemFileError, match=r"3\.0 GiB, more than 2"):
        load(str(folder / "large.jsonl"))


@pytest.mark.parametrize(
    "content",
    [
        json.dumps({SECRET: 1}),
        json.dumps({"problem": SECRET}),
        json.dumps({"problem": "What?", "answer": f"It depends on {SECRET}."}),
        json.dumps({"problem": f"{SECRET}?", "answer": "It depends."}),
        SECRET,
        f'{{"problem": "{SECRET}',
    ],
)
def test_a_round_quotes_nothing_of_a_file_that_it_cannot_use(folder: Path, content: str) -> None:
    (folder / "b.jsonl").write_text(content + "\n")
    source = ProblemSource(spec="b.jsonl", count=1)
    config = RoundConfig(train=source, development=source, held_out=source)
    with pytest.raises(RoundFailedError) as told:
        load_problems(config, folder)
    assert SECRET not in str(told.value)
    assert "b.jsonl" in str(told.value)
