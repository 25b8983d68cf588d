"""Has the log say for whom a service is asked (`ratchet/on_behalf.py`)."""

import string

import structlog
from starlette.types import ASGIApp, Receive, Scope, Send

from ratchet.on_behalf import CALLER, MAX_CALLER

_PLAIN = frozenset(string.ascii_letters + string.digits + "-_.~%")


class OnBehalf:
    """The caller that a request names is in every line that is logged about it."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        caller = _caller_of(scope) if scope["type"] == "http" else None
        if caller is None:
            await self._app(scope, receive, send)
            return
        with structlog.contextvars.bound_contextvars(caller=caller):
            await self._app(scope, receive, send)


def _caller_of(scope: Scope) -> str | None:
    found = str(dict(scope["headers"]).get(CALLER.encode(), b""), "latin-1")
    # A log line has room for an id, and for nothing else that somebody would like to see in it.
    return found if found and len(found) <= MAX_CALLER and _PLAIN.issuperset(found) else None
