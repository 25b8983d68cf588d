"""`python -m ratchet.web.healthcheck`: is the service of this container ready? Exit status 0 or 1, and why not on stderr.

Reads the service's own variables: `RATCHET_SOCKET`, otherwise `RATCHET_PORT`; a search worker, which has no HTTP, is well
while its `RATCHET_READY_FILE` is fresh. Standard library only: it runs every few seconds in every container.
"""

import http.client
import os
import socket
import sys
import time
from pathlib import Path

ANSWER_SECONDS = 5.0
FRESH_SECONDS = 30.0
"""The worker touches its file every five seconds."""


def _worker(file: Path) -> str | None:
    try:
        age = time.time() - file.stat().st_mtime
    except OSError as error:
        return f"not ready: {error}"
    return None if age < FRESH_SECONDS else f"silent for {age:.0f} s"


def _service(path: str | None, port: int) -> str | None:
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
        reason = _worker(Path(ready_file))
    else:
        reason = _service(os.environ.get("RATCHET_SOCKET"), int(os.environ.get("RATCHET_PORT", "0")))
    if reason is not None:
        sys.exit(f"ratchet: {reason}")


if __name__ == "__main__":
    main()
