"""The tutorial's pages as scripts: their blocks of commands, what these should say, and how they are run.

A block of `bash` or `python` is run, in the order of the page; a block of `text` right after one is what its output has, in
which "…" stands for anything. A block whose title is TERMINAL runs beside the others, from the moment at which its output
is there. A block after a paragraph that begins with LEFT_OUT is left out, for the reason that the paragraph gives.
"""

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

LEFT_OUT = "*Not run by the test"
TERMINAL = "a terminal of its own"
RUN = ("bash", "python")
SHOWN = ("json",)
"""Languages of blocks that are neither run nor compared."""

UP_SECONDS = 900
BLOCK_SECONDS = 3000

_BLOCK = re.compile(
    r'^```(?P<language>\w*)(?: title="(?P<title>[^"]*)")?\n(?P<text>.*?)^```$', re.MULTILINE | re.DOTALL
)


@dataclass(frozen=True)
class Block:
    """One block that is run, or left out for `reason`."""

    language: str
    text: str
    terminal: bool
    reason: str | None
    expected: str | None = None


def blocks(page: str) -> list[Block]:
    """The page's blocks in order. Raises ValueError for one of which it is not clear what is to be done with it."""
    found: list[Block] = []
    for each in _BLOCK.finditer(page):
        language = each["language"]
        if language in RUN:
            before = page[: each.start()].rstrip().rpartition("\n\n")[2]
            reason = before if before.startswith(LEFT_OUT) else None
            found.append(Block(language, each["text"], each["title"] == TERMINAL, reason))
        elif language == "text" and found and found[-1].expected is None:
            found[-1] = replace(found[-1], expected=each["text"])
        elif language not in SHOWN:
            raise ValueError(f"a block of {language or 'no language'}: {each['text'][:60]!r}")
    return found


def says(output: str, expected: str) -> bool:
    """Whether the output has the expected lines, next to one another but for what "…" stands for."""
    pattern = r"[\s\S]*?".join(re.escape(part) for part in expected.strip().split("…"))
    return re.search(pattern, output) is not None


class Reader:
    """Somebody who follows a page in an empty folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._terminals: list[tuple[subprocess.Popen[bytes], Path]] = []
        self._address: str | None = None
        scripts = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        kept = {name: value for name, value in os.environ.items() if not name.startswith("RATCHET_")}
        self._environment = kept | {"PATH": scripts, "COLUMNS": "80", "PYTHONUNBUFFERED": "1"}

    def follow(self, block: Block) -> str:
        """Do what the block says; returns what was said. Raises AssertionError where that is not what the page says."""
        if block.terminal:
            output = self._begin(block)
        else:
            done = subprocess.run(
                self._command(block), cwd=self.folder, env=self._environment, stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL, timeout=BLOCK_SECONDS, check=False,
            )  # fmt: skip
            output = done.stdout.decode()
            assert done.returncode == 0, (
                f"{block.text}\nended with {done.returncode}:\n{output}{self._last_words()}"
            )
            # Within a line it is one of a model's program, which an event tells.
            assert not re.search("^Traceback", output, re.MULTILINE), output
        if block.expected is not None:
            expected = self._here(block.expected)
            assert says(output, expected), f"{block.text}\nsaid\n{output}\nand not\n{expected}"
        return output

    def leave(self) -> None:
        """Press Ctrl-C in each terminal; all of it has to stop in good order."""
        for process, said in self._terminals:
            process.send_signal(signal.SIGINT)
            assert process.wait(120) == 0, said.read_text()
            assert "Stopped." in said.read_text()

    def kill(self) -> None:
        """End what a failed test has left."""
        for process, _ in self._terminals:
            if process.poll() is None:
                process.send_signal(signal.SIGINT)
                process.wait(120)

    def _command(self, block: Block) -> list[str]:
        text = self._here(block.text)
        return (
            [sys.executable, "-c", text]
            if block.language == "python"
            else ["bash", "-euo", "pipefail", "-c", text]
        )

    def _here(self, text: str) -> str:
        """The page says to write the port that was printed where 8000 is taken."""
        return text if self._address is None else text.replace("127.0.0.1:8000", self._address)

    def _begin(self, block: Block) -> str:
        """Start it, and wait until it says what is expected of it."""
        assert block.expected is not None, "a page has to say what a terminal says when it is ready"
        said = self.folder / f"terminal-{len(self._terminals)}.log"
        with said.open("wb") as out:
            # `exec`, so that Ctrl-C reaches the program and not the shell alone.
            process = subprocess.Popen(
                ["bash", "-c", f"exec {block.text}"], cwd=self.folder, env=self._environment,
                stdin=subprocess.DEVNULL, stdout=out, stderr=subprocess.STDOUT,
            )  # fmt: skip
        self._terminals.append((process, said))
        end = time.monotonic() + UP_SECONDS
        while process.poll() is None and time.monotonic() < end:
            output = said.read_text()
            if address := re.search(r"Search API: http://(127\.0\.0\.1:\d+)", output):
                self._address = address[1]
                return output
            time.sleep(0.2)
        raise AssertionError(f"{block.text} is not up:\n{said.read_text()}")

    def _last_words(self) -> str:
        return "".join(f"\n--- {said.name}\n{said.read_text()[-2000:]}" for _, said in self._terminals)


def pages(folder: Path) -> Iterator[tuple[str, list[Block]]]:
    """All pages of the tutorial with their blocks."""
    for file in sorted(folder.glob("*.md")):
        yield file.stem, blocks(file.read_text())
