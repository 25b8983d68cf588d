"""Requests and their seconds as Prometheus metrics, those that end in an unhandled error too."""

import time

from prometheus_client import Counter, Histogram
from starlette.types import ASGIApp, Message, Receive, Scope, Send

REQUESTS = Counter("ratchet_http_requests", "Requests by route and status.", ["service", "route", "status"])
LATENCY = Histogram("ratchet_http_seconds", "Seconds from request to response.", ["service", "route"])
UNHANDLED = 500


class Measured:
    """Counts by route, so that ids in paths make no series of their own. Seconds are up to the head of the response."""

    def __init__(self, app: ASGIApp, service: str) -> None:
        self._app = app
        self._service = service

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        began = time.perf_counter()
        status: int | None = None

        async def noting(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                self._count(scope, status, time.perf_counter() - began)
            await send(message)

        try:
            await self._app(scope, receive, noting)
        except Exception:
            # The error handler around us answers it.
            if status is None:
                self._count(scope, UNHANDLED, time.perf_counter() - began)
            raise

    def _count(self, scope: Scope, status: int, seconds: float) -> None:
        route = getattr(scope.get("route"), "path", "unmatched")
        LATENCY.labels(self._service, route).observe(seconds)
        REQUESTS.labels(self._service, route, status).inc()
