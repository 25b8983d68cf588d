"""Any file of the user's can be a problem set of a local stack: the trainer gets a copy in the folder that it reads."""

from pathlib import Path

import pytest
import typer

from ratchet.cli.problem_files import with_copied_files
from ratchet.contracts.rounds import ProblemSource, RoundConfig
from ratchet.problems import confined
from ratchet.stack.data_folder import problems_folder

LINE = '{"problem": "What is 6 * 7?", "answer": "42"}\n'


def config_of(train: Path, development: str = "nano:development") -> RoundConfig:
    return RoundConfig(
        train=ProblemSource(spec=str(train), count=1), development=ProblemSource(spec=development, count=1)
    )


def test_files_are_copied_once_and_other_sources_stay(tmp_path: Path) -> None:
    mine = tmp_path / "mine.jsonl"
    mine.write_text(LINE)
    data = tmp_path / "data"
    found = with_copied_files(config_of(mine), data)
    copy = Path(found.train.spec)
    assert (copy.read_text(), copy.suffix) == (LINE, ".jsonl")
    assert (found.development, found.held_out) == (config_of(mine).development, config_of(mine).held_out)
    # What it names now is what the trainer may read.
    assert confined(found.train.spec, problems_folder(data)) == str(copy)
    assert with_copied_files(config_of(mine), data) == found == with_copied_files(found, data)
    mine.write_text(LINE * 2)
    assert with_copied_files(config_of(mine), data).train.spec != found.train.spec
    assert copy.read_text() == LINE
    assert len(list(problems_folder(data).iterdir())) == 2


@pytest.mark.parametrize("spec", ["nowhere.jsonl", "/dev/zero"])
def test_a_file_that_cannot_be_read_is_a_mistake_of_the_command(tmp_path: Path, spec: str) -> None:
    with pytest.raises(typer.BadParameter, match=f"{spec}: (cannot be read|not a regular file)"):
        with_copied_files(config_of(Path(spec)), tmp_path)
