"""`ratchet up --open`: a browser gets the page with its key, and the command line does not."""

import os
import subprocess
import sys
from pathlib import Path

from ratchet.cli.page import page_url

KEY = "a-key/of+this=test"
OPENING = "import asyncio, sys; from ratchet.cli.page import open_page; asyncio.run(open_page(*sys.argv[1:], print))"
SEARCH = "http://127.0.0.1:8000"
BROWSER = f"""#!{sys.executable}
import http.client, pathlib, sys, urllib.parse
url = urllib.parse.urlsplit(sys.argv[1])
seen = [sys.argv[1]]
for _ in range(2):
    connection = http.client.HTTPConnection(url.netloc, timeout=10)
    try:
        connection.request("GET", url.path)
        answer = connection.getresponse()
        seen.append(f"{{answer.status}} {{answer.headers.get('location')}}")
    except OSError:
        seen.append("closed")
pathlib.Path(__file__).with_suffix(".seen").write_text("\\n".join(seen))
"""


def opened(environment: dict[str, str]) -> str:
    """What `open_page` says with this environment."""
    command = [sys.executable, "-c", OPENING, SEARCH, KEY]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True, timeout=60)
    return done.stdout


def test_a_browser_is_led_to_the_page_once_and_its_command_line_has_no_key(tmp_path: Path) -> None:
    browser = tmp_path / "browser"
    browser.write_text(BROWSER)
    browser.chmod(0o700)
    assert opened({**os.environ, "BROWSER": str(browser)}) == ""
    asked, first, second = browser.with_suffix(".seen").read_text().splitlines()
    assert KEY not in asked
    assert first == f"302 {page_url(SEARCH, KEY)}"
    assert page_url(SEARCH, KEY) == "http://127.0.0.1:8000/#/?key=a-key%2Fof%2Bthis%3Dtest"
    assert second in ("404 None", "closed")


def test_a_machine_without_a_browser_is_told_the_address() -> None:
    without = {n: v for n, v in os.environ.items() if n not in ("BROWSER", "DISPLAY", "WAYLAND_DISPLAY")}
    assert page_url(SEARCH, KEY) in opened(without)
