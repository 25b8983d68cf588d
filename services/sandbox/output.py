"""What a program prints, read outside the jail with a bound on what is kept.

Too much output is cut in its middle, not punished: its beginning and its end, where results and errors stand, are kept. Only a
flood, `FLOOD_FACTOR` times the bound, ends the program.
"""

import asyncio
import os
from collections.abc import Callable
from dataclasses import dataclass

FLOOD_FACTOR = 64
CHUNK = 65536
_CUT = b"\n[... cut ...]\n"


@dataclass(frozen=True, slots=True)
class Printed:
    """What was kept of a part of a stream."""

    text: str
    truncated: bool
    """There was more than is kept. `text` is then its beginning, a line that says so, and its end."""


class Capture:
    """One stream. `take` gives what came since the last `take`, so that steps can be told apart."""

    def __init__(self, limit: int, on_flood: Callable[[], None]) -> None:
        """`limit`: bytes kept of each part, half of them from its beginning and half from its end."""
        self._head_limit = limit // 2
        self._tail_limit = limit - self._head_limit
        self._flood = FLOOD_FACTOR * limit
        self._on_flood = on_flood
        self._head = bytearray()
        self._tail = bytearray()
        self._dropped = False
        self._total = 0
        self.truncated = False
        """Whether any part was cut."""
        self._loop = asyncio.get_running_loop()
        self._fd, self.write_end = os.pipe2(os.O_CLOEXEC)
        self.inode = os.fstat(self._fd).st_ino
        """The pipe's inode, the same at both ends."""
        os.set_blocking(self._fd, False)
        self._loop.add_reader(self._fd, self.drain)

    def drain(self) -> None:
        """Read what is there now."""
        while self._fd >= 0:
            try:
                data = os.read(self._fd, CHUNK)
            except BlockingIOError:
                return
            if not data:
                self._stop()
                return
            self._keep(data)
            if self._total > self._flood:
                self._on_flood()
                # A program that prints without end must not hold this loop.
                return

    def _keep(self, data: bytes) -> None:
        self._total += len(data)
        room = self._head_limit - len(self._head)
        self._head += data[:room]
        rest = data[room:] if room > 0 else data
        if rest:
            self._tail += rest
            if len(self._tail) > self._tail_limit:
                self._dropped = self.truncated = True
                del self._tail[: len(self._tail) - self._tail_limit]

    def take(self) -> Printed:
        """What was kept since the last call, as text. NUL, which stores refuse, becomes U+FFFD."""
        self.drain()
        kept = bytes(self._head) + (_CUT if self._dropped else b"") + bytes(self._tail)
        printed = Printed(kept.decode(errors="replace").replace("\x00", "\ufffd"), self._dropped)
        self._head.clear()
        self._tail.clear()
        self._dropped = False
        return printed

    def handed_over(self) -> None:
        """The program has its end now: close ours, so that the pipe ends with the program."""
        if self.write_end >= 0:
            os.close(self.write_end)
            self.write_end = -1

    def close(self) -> None:
        """Let go of the pipe."""
        self.handed_over()
        self._stop()

    def _stop(self) -> None:
        if self._fd >= 0:
            self._loop.remove_reader(self._fd)
            os.close(self._fd)
            self._fd = -1
