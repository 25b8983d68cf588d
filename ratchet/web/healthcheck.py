"""`python -m ratchet.web.healthcheck`: is the service of this container ready? Exit status 0 or 1, and why not on stderr.

Reads the service's own variables: `RATCHET_SOCKET`, otherwise `RATCHET_PORT`. A search worker has no HTTP; it is ready
while its `RATCHET_READY_FILE` is fresh. Standard library only: it runs every few seconds in every container.
"""

import http.client
import os
import socket
import sys
import time
from pathlib import Path

ANSWER_SECONDS = 5.0
"""A service that says nothing for so long is not ready."""
FRESH_SECONDS = 30.0
"""A file that is older was left by a worker that is gone: a worker touches it every five seconds."""


def worker_problem(file: Path) -> str | None:
    """Why the worker that touches this file is not ready; None when it is."""
    try:
        age = time.time() - file.stat().st_mtime
    except OSError as error:
        return f"not ready: {error}"
    return None if age < FRESH_SECONDS else f"silent for {age:.0f} s"


def service_problem(path: str | None, port: int) -> str | None:
    """Why the service on this Unix socket, or on this port of this machine, is not ready; None when it is."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=ANSWER_SECONDS)
    if path:
        connection.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        connection.sock.settimeout(ANSWER_SECONDS)
    try:
        if path:
            connection.sock.connect(path)
        connection.request("GET", "/health")
        response = connection.getresponse()
        body = response.read().decode(errors="replace")
    except OSError as error:
        return f"no answer: {error}"
    finally:
        connection.close()
    return None if response.status == 200 else f"status {response.status}: {body}"


def main() -> None:
    """Exit with 0 where the service is ready."""
    ready_file = os.environ.get("RATCHET_READY_FILE")
    if ready_file:
        reason = worker_problem(Path(ready_file))
    else:
        reason = service_problem(os.environ.get("RATCHET_SOCKET"), int(os.environ.get("RATCHET_PORT", "0")))
    if reason is not None:
        sys.exit(f"ratchet: {reason}")


if __name__ == "__main__":
    main()
