"""The page in a real browser, against a real stack: `make test-page`.

Arguments are pytest's, and `--screenshots`, which takes those of docs/images anew and nothing else. The last line is JSON:
`{"passed": …, "failed": 0, "nodes_5000_fps": …, "first_node_ms": …, "page_kb": …, "axe_serious": 0}`; the exit code is
pytest's.
"""

import json
import sys
from pathlib import Path

import pytest

from tests.page.report import Report

HERE = Path(__file__).parent
SCREENSHOTS = "--screenshots"


def main(arguments: list[str]) -> int:
    """Run the tests and print what they came to."""
    tests = [str(HERE / "test_screenshots.py") if SCREENSHOTS in arguments else str(HERE)]
    named = any(argument.startswith("tests/") for argument in arguments)
    report = Report()
    code = pytest.main(["-p", "no:cacheprovider", *([] if named else tests), *arguments], plugins=[report])
    print(json.dumps(report.line()), flush=True)
    return int(code)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
