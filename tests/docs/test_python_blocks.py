"""The Python of the README and of the client's guide runs as it stands there, against a stack on nano."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from docs_site import ROOT
from ratchet.stack.data_folder import running_stack
from tests.docs.tutorial import Block, Reader

UP = Block("bash", "ratchet up --model nano", terminal=True, reason=None, expected="Ratchet is up.")
PLACEHOLDER = "rk_…"
"""What stands where the reader's own key goes."""


@pytest.fixture(scope="module")
def reader(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Reader]:
    """Somebody whose stack runs, with a file of problems beside."""
    folder = tmp_path_factory.mktemp("python")
    problems = (
        {"problem": f"{boxes} boxes hold 12 cups each. 5 are lost. How many are left?"} for boxes in (4, 5)
    )
    (folder / "problems.jsonl").write_text("".join(json.dumps(each) + "\n" for each in problems))
    reader = Reader(folder)
    reader.follow(UP)
    yield reader
    reader.leave()


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("page", ["README.md", "docs/how-to/python-client.md"])
def test_the_python_of_a_page_runs(page: str, reader: Reader) -> None:
    (program,) = (ROOT / page).read_text().split("```python\n")[1:]
    program = program.split("```")[0]
    assert PLACEHOLDER in program
    running = running_stack(reader.folder / ".ratchet")
    assert running is not None
    said = reader.follow(
        Block("python", program.replace(PLACEHOLDER, running.key), terminal=False, reason=None)
    )
    assert "Ended" in said
    solved = Path(reader.folder / "solved.jsonl").read_text().splitlines()
    assert [json.loads(line)["result"]["answer"] is not None for line in solved] == [True, True]
