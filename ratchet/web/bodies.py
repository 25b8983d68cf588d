"""Bodies of requests: not larger than allowed, however their length is announced, and not slower."""

import asyncio
from http import HTTPStatus

from fastapi import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ratchet.web.problems import problem_response

BODY_SECONDS = 30.0
"""For a whole body. The largest, 4 MiB, comes in this time at 1.1 Mbit/s."""
CLOSED = {"Connection": "close"}
"""What is left of the body is not read, so the connection can serve nothing after it."""


class BodyLimit:
    """Refuses a body of more than `limit` bytes (413), counted as it comes, and one that takes too long (408)."""

    def __init__(self, app: ASGIApp, limit: int, seconds: float = BODY_SECONDS) -> None:
        self._app = app
        self._limit = limit
        self._seconds = seconds

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        announced = dict(scope["headers"]).get(b"content-length", b"")
        if announced.isdigit() and int(announced) > self._limit:
            response = problem_response(413, self._too_large, scope["path"], headers=CLOSED)
            await response(scope, receive, send)
            return
        await self._app(scope, self._limited(receive), send)

    def _limited(self, receive: Receive) -> Receive:
        seen = 0
        whole = False
        loop = asyncio.get_running_loop()
        deadline = loop.time() + self._seconds

        async def limited() -> Message:
            nonlocal seen, whole
            if whole:
                # What comes after the body is the news that the caller has gone.
                return await receive()
            try:
                async with asyncio.timeout_at(deadline):
                    message = await receive()
            except TimeoutError:
                raise HTTPException(
                    HTTPStatus.REQUEST_TIMEOUT, f"The body took longer than {self._seconds:g} s.", CLOSED
                ) from None
            seen += len(message.get("body", b""))
            whole = not message.get("more_body", False)
            if seen > self._limit:
                # Any other exception FastAPI takes for a body that it cannot read.
                raise HTTPException(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, self._too_large, CLOSED)
            return message

        return limited

    @property
    def _too_large(self) -> str:
        return f"The body exceeds {self._limit} bytes."
