"""`python -m ratchet.web.healthcheck`: is the process of this container ready? Exit status 0 or 1, and why not on stderr.

Reads the service's own variables: `RATCHET_SOCKET`, otherwise `RATCHET_PORT`. A process that hangs (`/livez` says so, or
nothing, for HANG_SECONDS) is killed: the container ends, and its engine starts it anew. Standard library only: it runs every
few seconds in every container.

Limits: how long it has hung is kept as the age of a file, so a process counts as hung only after it has been well once.
"""

import contextlib
import http.client
import os
import signal
import socket
import sys
import tempfile
import time
from pathlib import Path

ANSWER_SECONDS = 5.0
"""A service that says nothing for so long is not ready."""
HANG_SECONDS = 60.0
"""A process that was alive, and has not been for so long, hangs."""
SILENT, NOT_ALIVE = "no answer", '"alive":false'
INITS = ("docker-init", "tini")
"""What `init: true` makes a container's first process."""
ALIVE = Path(tempfile.gettempdir()) / "ratchet-alive"
"""Touched whenever the process says that it is alive."""


def problem(route: str, path: str | None, port: int) -> str | None:
    """Why what is on this Unix socket, or on this port of this machine, does not answer the route with 200; None: it does."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=ANSWER_SECONDS)
    if path:
        connection.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        connection.sock.settimeout(ANSWER_SECONDS)
    try:
        if path:
            connection.sock.connect(path)
        connection.request("GET", route)
        response = connection.getresponse()
        body = response.read().decode(errors="replace")
    except OSError as error:
        return f"{SILENT}: {error}"
    finally:
        connection.close()
    return None if response.status == 200 else f"status {response.status}: {body}"


def hangs(reason: str | None, alive: Path = ALIVE) -> bool:
    """Whether the process, not alive for this reason (None: it is), has not been for HANG_SECONDS."""
    if reason is None:
        alive.touch()
        return False
    with contextlib.suppress(OSError):
        return time.time() - alive.stat().st_mtime > HANG_SECONDS
    return False


def kill_children_of_init(proc: Path = Path("/proc"), init: int = 1) -> list[int]:
    """Kill what the container's init has started, which is the service; their numbers."""
    killed = []
    for entry in proc.iterdir():
        with contextlib.suppress(OSError, ValueError):
            parent = int((entry / "stat").read_text(errors="replace").rpartition(")")[2].split()[1])
            if parent == init and int(entry.name) not in (init, os.getpid()):
                os.kill(int(entry.name), signal.SIGKILL)
                killed.append(int(entry.name))
    return killed


def main() -> None:
    """Exit with 0 where the service is ready."""
    where = os.environ.get("RATCHET_SOCKET"), int(os.environ.get("RATCHET_PORT", "0"))
    said = problem("/livez", *where)
    # A service that takes no more connections answers 503 too, and lives.
    dead = said if said and (said.startswith(SILENT) or NOT_ALIVE in said) else None
    # Only under a container's own init: elsewhere the first process is not there for one service alone.
    if hangs(dead) and Path("/proc/1/comm").read_text().strip() in INITS:
        ALIVE.unlink(missing_ok=True)
        sys.exit(f"ratchet: it hangs ({dead}); killed {kill_children_of_init()}")
    reason = said or problem("/readyz", *where)
    if reason is not None:
        sys.exit(f"ratchet: {reason}")


if __name__ == "__main__":
    main()
