"""The tutorial: what its pages tell a reader to do is done, and comes out as they say."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from docs_site import ROOT
from tests.docs.tutorial import RUN, Reader, blocks, pages, says

TUTORIAL = dict(pages(ROOT / "docs" / "tutorial"))


@pytest.fixture
def reader(tmp_path: Path) -> Iterator[Reader]:
    """Somebody in an empty folder."""
    reader = Reader(tmp_path)
    yield reader
    reader.kill()


@pytest.mark.slow
@pytest.mark.timeout(5400)
@pytest.mark.parametrize("page", TUTORIAL)
def test_a_page_can_be_followed_from_top_to_bottom(page: str, reader: Reader) -> None:
    for block in TUTORIAL[page]:
        if block.reason is None:
            reader.follow(block)
    reader.leave()


@pytest.mark.parametrize("page", TUTORIAL)
def test_a_page_says_why_a_block_is_left_out(page: str) -> None:
    followed = [block for block in TUTORIAL[page] if block.reason is None]
    assert len(followed) >= 5
    assert sum(block.terminal for block in followed) == 1
    for block in TUTORIAL[page]:
        assert block.reason is None or len(block.reason) > 40, block.text


def test_what_is_expected_may_leave_things_open_and_no_more() -> None:
    output = "start\n╭─ Answer ─╮\n│ 564      │\n╰──────────╯\nsolved and verified.\nall done\n"
    assert says(output, "│ 564      │\n…\nsolved …\n")
    assert not says(output, "│ 565      │")
    assert not says(output, "│ 564      │\nsolved")


def test_a_block_of_which_nobody_knows_what_to_do_is_refused() -> None:
    with pytest.raises(ValueError, match="no language"):
        blocks("# Page\n\n```\nratchet up\n```\n")
    (left_out,) = blocks("*Not run by the test: it takes hours.*\n\n```bash\nsleep 1\n```\n")
    assert left_out.reason == "*Not run by the test: it takes hours.*"
    assert left_out.language in RUN
