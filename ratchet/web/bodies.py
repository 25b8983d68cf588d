"""Bodies of requests: not larger than allowed, however their length is announced, and not slower.

What is left of a body that is refused is read and forgotten for a while (`connections.py`): a connection that is closed under
a client that still sends is reset, and the client never sees the answer.
"""

import asyncio
from http import HTTPStatus

from fastapi import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ratchet.web.problems import problem_response

BODY_SECONDS = 30.0
"""For a whole body. The largest, 4 MiB, comes in this time at 1.1 Mbit/s."""


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
            await problem_response(413, self._too_large, scope["path"])(scope, receive, send)
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
                    HTTPStatus.REQUEST_TIMEOUT, f"The body took longer than {self._seconds:g} s."
                ) from None
            seen += len(message.get("body", b""))
            whole = not message.get("more_body", False)
            if seen > self._limit:
                # Any other exception FastAPI takes for a body that it cannot read.
                raise HTTPException(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, self._too_large)
            return message

        return limited

    @property
    def _too_large(self) -> str:
        return f"The body exceeds {self._limit} bytes."
