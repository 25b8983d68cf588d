"""Log files of children: rotation at start, and the lines that a person wants to see first."""

import json
import os
from pathlib import Path

ROTATE_BYTES = 10 * 2**20
KEEP = 3


def rotate(log: Path, limit: int = ROTATE_BYTES, keep: int = KEEP) -> None:
    """Move a log that has grown beyond the limit aside: LOG.1 is the newest of `keep` older ones."""
    if not log.is_file() or log.stat().st_size < limit:
        return
    for number in range(keep - 1, 0, -1):
        older = Path(f"{log}.{number}")
        if older.exists():
            older.replace(f"{log}.{number + 1}")
    log.replace(f"{log}.1")


def _end(log: Path, since: int, size: int) -> list[str]:
    try:
        with log.open("rb") as file:
            end = file.seek(0, os.SEEK_END)
            file.seek(max(since, end - size))
            text = file.read().decode(errors="replace")
    except OSError:
        return []
    # A progress bar rewrites its line with carriage returns.
    return [
        line.rpartition("\r")[2]
        for line in text.replace("\r\n", "\n").rstrip("\r\n").split("\n")
        if line.strip()
    ]


def tail(log: Path, lines: int = 15, since: int = 0) -> str:
    """The last lines written after byte `since`, indented; tells so if there are none."""
    found = _end(log, since, 16_384)[-lines:]
    return "\n".join("  " + line[:400] for line in found) or "  (its log is empty)"


def last_line(log: Path, since: int = 0) -> str:
    """The last line, short; of a structured line the event and what goes with it."""
    found = _end(log, since, 4096)
    if not found:
        return ""
    line = found[-1].strip()
    if line.startswith("{"):
        try:
            entry = json.loads(line)
        except ValueError:
            return line
        if isinstance(entry, dict) and "event" in entry:
            shown = {key: value for key, value in entry.items() if key not in ("event", "level", "timestamp")}
            return " ".join([str(entry["event"]), *(f"{key}={value}" for key, value in shown.items())])
    return line
