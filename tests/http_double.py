"""Real HTTP servers for apps that stand in for a service: they speak its contract and compute nothing."""

import contextlib
import socket
import threading
import time
from collections.abc import Iterator
from typing import Protocol

import uvicorn
from fastapi import FastAPI


class Serve(Protocol):
    """Serves an app, on a free port unless a bound socket is given; returns its URL."""

    def __call__(self, app: FastAPI, sock: socket.socket | None = None) -> str: ...


def listening() -> socket.socket:
    """A socket that is bound to a free port of the loopback; it refuses connections until it is served."""
    sock = socket.socket()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    sock.bind(("127.0.0.1", 0))
    return sock


@contextlib.contextmanager
def serving() -> Iterator[Serve]:
    """A `Serve` whose servers, each in a thread of its own, end with the context."""
    running: list[tuple[uvicorn.Server, threading.Thread]] = []

    def start(app: FastAPI, sock: socket.socket | None = None) -> str:
        sock = sock or listening()
        server = uvicorn.Server(
            uvicorn.Config(
                app, log_level="error", lifespan="off", timeout_graceful_shutdown=1, timeout_keep_alive=75
            )
        )
        thread = threading.Thread(target=server.run, kwargs={"sockets": [sock]}, daemon=True)
        thread.start()
        running.append((server, thread))
        while not server.started and thread.is_alive():
            time.sleep(0.01)
        return f"http://127.0.0.1:{sock.getsockname()[1]}"

    yield start
    for server, _ in running:
        server.should_exit = True
    for _, thread in running:
        thread.join(timeout=5)
