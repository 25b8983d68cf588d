"""What every service's HTTP app has in common: problem documents, health, metrics, request limits, JSON logs.

`create_app` gives a FastAPI app to which a service adds its routes; `serve` runs it. A service says that it is ready
by answering `health()`; until then `GET /health` is 503 and the stack waits.
"""

import asyncio
import contextlib
import os
import socket
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from http import HTTPStatus
from pathlib import Path
from typing import Any

import structlog
import uvicorn
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import Response
from prometheus_client import Counter, Histogram
from starlette.exceptions import HTTPException as StarletteHTTPException
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ratchet import __version__
from ratchet.contracts.base import FieldError, ProblemDocument
from ratchet.settings import Settings
from ratchet.telemetry import configure_logging
from ratchet.web import probes

log = structlog.get_logger()

PROBLEM_JSON = "application/problem+json"

REQUESTS = Counter("ratchet_http_requests", "Requests by route and status.", ["service", "route", "status"])
LATENCY = Histogram("ratchet_http_seconds", "Seconds from request to response.", ["service", "route"])


class ProblemError(Exception):
    """Raise it anywhere under a route; the caller gets an RFC 9457 problem document."""

    def __init__(
        self,
        status: HTTPStatus,
        detail: str,
        *,
        errors: list[FieldError] | None = None,
        headers: dict[str, str] | None = None,
    ) -> None:
        super().__init__(detail)
        self.status = status
        self.detail = detail
        self.errors = errors or []
        self.headers = headers


def invalid(field: str, message: str) -> ProblemError:
    """A request that cannot be served for what one of its fields says (422), worded like a refusal by its types."""
    return ProblemError(
        HTTPStatus.UNPROCESSABLE_ENTITY,
        f"The request is not valid. {field}: {message}",
        errors=[FieldError(field=field, message=message)],
    )


def problem_response(
    status: int,
    detail: str | None,
    instance: str,
    errors: list[FieldError] | None = None,
    headers: dict[str, str] | None = None,
) -> Response:
    """An RFC 9457 problem document as a response."""
    body = ProblemDocument(
        title=HTTPStatus(status).phrase, status=status, detail=detail, instance=instance, errors=errors or []
    )
    return Response(body.model_dump_json(), status_code=status, media_type=PROBLEM_JSON, headers=headers)


def _field_path(location: tuple[int | str, ...]) -> str:
    # The first part says body, query or path; a reader wants the field itself.
    parts = location[1:] if len(location) > 1 else location
    return ".".join(str(part) for part in parts)


async def _on_invalid(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    errors = [FieldError(field=_field_path(tuple(e["loc"])), message=e["msg"]) for e in error.errors()]
    named = "; ".join(f"{e.field}: {e.message}" for e in errors[:5])
    return problem_response(422, f"The request is not valid. {named}", request.url.path, errors)


async def _on_http_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, StarletteHTTPException)
    detail = error.detail if isinstance(error.detail, str) else None
    return problem_response(error.status_code, detail, request.url.path, headers=dict(error.headers or {}))


async def _on_problem(request: Request, error: Exception) -> Response:
    assert isinstance(error, ProblemError)
    return problem_response(error.status, error.detail, request.url.path, error.errors, error.headers)


async def _on_gone(request: Request, error: Exception) -> Response:
    # Nobody reads it; 499 is what proxies log for a caller who left.
    return Response(status_code=499)


async def _on_unexpected(request: Request, error: Exception) -> Response:
    log.error("request failed", path=request.url.path, exc_info=error)
    return problem_response(
        500, "The service failed on this request; its log has the reason.", request.url.path
    )


class _BodyLimit:
    """Refuses a body that is larger than allowed, whether or not its length was announced."""

    def __init__(self, app: ASGIApp, limit: int) -> None:
        self._app = app
        self._limit = limit

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        announced = dict(scope["headers"]).get(b"content-length", b"0")
        seen = 0

        async def limited() -> Message:
            nonlocal seen
            message = await receive()
            seen += len(message.get("body", b""))
            if seen > self._limit:
                raise ProblemError(
                    HTTPStatus.REQUEST_ENTITY_TOO_LARGE, f"The body exceeds {self._limit} bytes."
                )
            return message

        if announced.isdigit() and int(announced) > self._limit:
            response = problem_response(413, f"The body exceeds {self._limit} bytes.", scope["path"])
            await response(scope, receive, send)
            return
        await self._app(scope, limited, send)


async def _measure(request: Request, call_next: Callable[[Request], Awaitable[Response]]) -> Response:
    """Count the request and its seconds by its route, so that ids in paths make no series of their own."""
    began = time.perf_counter()
    response = await call_next(request)
    service, route = request.app.state.service, getattr(request.scope.get("route"), "path", "unmatched")
    LATENCY.labels(service, route).observe(time.perf_counter() - began)
    REQUESTS.labels(service, route, response.status_code).inc()
    return response


PROBLEM_RESPONSES: dict[int | str, dict[str, Any]] = {
    "4XX": {
        "description": "The request cannot be served as it is (RFC 9457).",
        "content": {PROBLEM_JSON: {"schema": {"$ref": "#/components/schemas/ProblemDocument"}}},
    },
    "5XX": {
        "description": "The service cannot serve now (RFC 9457).",
        "content": {PROBLEM_JSON: {"schema": {"$ref": "#/components/schemas/ProblemDocument"}}},
    },
}


def create_app(
    *,
    service: str,
    summary: str,
    settings: Settings,
    lifespan: Callable[[FastAPI], AbstractAsyncContextManager[None]],
    health: probes.HealthSource,
) -> FastAPI:
    """The app of one service, with what all have in common. `health` is called on every `GET /health`."""
    app = FastAPI(
        title=f"Ratchet {service}",
        summary=summary,
        version=__version__,
        lifespan=lifespan,
        responses=PROBLEM_RESPONSES,
        openapi_url="/openapi.json",
    )
    app.add_exception_handler(RequestValidationError, _on_invalid)
    app.add_exception_handler(StarletteHTTPException, _on_http_error)
    app.add_exception_handler(ProblemError, _on_problem)
    app.add_exception_handler(ClientDisconnect, _on_gone)
    app.add_exception_handler(Exception, _on_unexpected)
    app.add_middleware(_BodyLimit, limit=settings.max_body_bytes)
    app.middleware("http")(_measure)
    app.state.service = service
    app.state.health = health
    app.include_router(probes.router)
    _document_problems(app)
    return app


def _document_problems(app: FastAPI) -> None:
    """Put the problem document into the OpenAPI components and replace FastAPI's own validation schema by it."""
    plain_openapi = app.openapi

    def openapi() -> dict[str, Any]:
        if app.openapi_schema:
            return app.openapi_schema
        document = plain_openapi()
        schemas = document.setdefault("components", {}).setdefault("schemas", {})
        problem = ProblemDocument.model_json_schema(ref_template="#/components/schemas/{model}")
        schemas.update(problem.pop("$defs", {}))
        schemas["ProblemDocument"] = problem
        schemas.pop("HTTPValidationError", None)
        schemas.pop("ValidationError", None)
        for path in document["paths"].values():
            for operation in path.values():
                responses = operation.get("responses", {})
                if PROBLEM_JSON not in responses.get("422", {}).get("content", {}):
                    responses.pop("422", None)
        return document

    app.openapi = openapi  # type: ignore[method-assign]


EXIT_FAILED = 70
"""Exit status of a service that cannot go on without a fresh start (EX_SOFTWARE)."""


def leave(message: str) -> None:
    """End the process now, whatever its threads and children are doing."""
    print(f"ratchet: {message}", file=sys.stderr, flush=True)  # noqa: T201 - the last words, for people
    os._exit(EXIT_FAILED)


def bind(settings: Settings) -> socket.socket:
    """A listening socket; a port of 0 takes a free one. Exits with a message where it cannot be had."""
    if settings.socket is not None:
        return _bind_path(settings.socket)
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    # Named TCP, or asyncio leaves Nagle's algorithm on, and every small answer waits 40 ms for an acknowledgement.
    sock = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        sock.bind((settings.host, settings.port))
    except OSError as error:
        sys.exit(
            f"ratchet: cannot listen on {settings.host}:{settings.port}: {error.strerror}. Choose another RATCHET_PORT."
        )
    return sock


def _bind_path(path: Path) -> socket.socket:
    """A Unix socket for this user alone; one that a service which was killed has left is replaced."""
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe, contextlib.suppress(OSError):
            probe.connect(str(path))
            sys.exit(f"ratchet: {path} is in use by another service. Choose another RATCHET_SOCKET.")
        path.unlink(missing_ok=True)
        sock.bind(str(path))
        path.chmod(0o600)
    except OSError as error:
        sys.exit(f"ratchet: cannot listen on {path}: {error}. Choose another RATCHET_SOCKET.")
    return sock


def serve(app: FastAPI, settings: Settings) -> None:
    """Run the app until SIGTERM or SIGINT; requests under way get ten seconds to end."""
    configure_logging(settings)
    config = uvicorn.Config(
        app,
        log_config=None,
        access_log=False,
        timeout_graceful_shutdown=10,
        timeout_keep_alive=75,
        lifespan="on",
    )
    sock = bind(settings)
    if settings.socket is not None:
        log.info("listening", socket=str(settings.socket), pid=os.getpid())
    else:
        log.info("listening", host=settings.host, port=sock.getsockname()[1], pid=os.getpid())
    server = uvicorn.Server(config)
    asyncio.run(server.serve(sockets=[sock]))
    if not server.started:
        sys.exit(3)


@contextlib.asynccontextmanager
async def cancelled_on_disconnect(request: Request) -> AsyncIterator[None]:
    """Cancel the work inside when the caller goes away, so that nobody computes for nobody.

    Raises ClientDisconnect then, not CancelledError: a route that ends by a bare cancellation gives no response, which
    the middleware around it reports as an error of the service.
    """
    task = asyncio.current_task()
    assert task is not None
    gone = False

    async def watch() -> None:
        nonlocal gone
        while True:
            message = await request.receive()
            if message["type"] == "http.disconnect":
                gone = True
                task.cancel()
                return

    watcher = asyncio.create_task(watch())
    try:
        yield
    except asyncio.CancelledError:
        # A second cancellation from elsewhere (the service is stopping) stays one.
        if gone and task.uncancel() == 0:
            raise ClientDisconnect from None
        raise
    finally:
        watcher.cancel()
