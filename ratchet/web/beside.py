"""Serve an app beside other work, in the event loop of a process that is no web service."""

import contextlib
import os
from collections.abc import Iterator

import structlog
import uvicorn
from fastapi import FastAPI

from ratchet.settings import Settings
from ratchet.web.app import bind, server_config

log = structlog.get_logger()


class _Server(uvicorn.Server):
    """A server that leaves the signals to the process."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """None are captured."""
        yield


async def serve_beside(app: FastAPI, settings: Settings) -> None:
    """Serve until cancelled, at the address of the settings."""
    with bind(settings) as sock:
        log.info("listening", address=str(settings.socket or sock.getsockname()), pid=os.getpid())
        await _Server(server_config(app, settings, lifespan="off")).serve(sockets=[sock])
