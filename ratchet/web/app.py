"""What every service's HTTP app has in common: the door, problem documents, probes, metrics, request limits, JSON logs.

`create_app` gives a FastAPI app to which a service adds its routes; `serve` runs it. A service says that it is ready
by answering `health()`; until then `GET /health` is 503 and the stack waits.
"""

import asyncio
import contextlib
import os
import resource
import socket
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager
from http import HTTPStatus
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import structlog
import uvicorn
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import Response
from starlette.exceptions import HTTPException as StarletteHTTPException
from starlette.requests import ClientDisconnect

from ratchet import __version__
from ratchet.contracts.base import FieldError, ProblemDocument
from ratchet.settings import Settings, StoreSettings
from ratchet.telemetry import configure_logging
from ratchet.web import probes
from ratchet.web.bodies import BodyLimit
from ratchet.web.connections import TimedConnection
from ratchet.web.door import OPEN
from ratchet.web.door.audit import Audit
from ratchet.web.door.callers import OPERATOR, SERVICE, Callers
from ratchet.web.door.middleware import Door, SolveAccess
from ratchet.web.door.origins import allowed_hosts, is_loopback
from ratchet.web.measured import Measured
from ratchet.web.on_behalf import OnBehalf
from ratchet.web.problems import PROBLEM_JSON, problem_response

if TYPE_CHECKING:
    # Services without a store have no database driver.
    from ratchet.store.keys import KeyStore

log = structlog.get_logger()


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
    keys: "KeyStore | None" = None,
    solve: SolveAccess | None = None,
) -> FastAPI:
    """The app of one service, with what all have in common. `health` is called on every `GET /health`.

    `keys`: whose callers have keys of their own, with `solve` for those of this scope; None: all send the services' token.
    """
    audit = None if keys is None else Audit(keys)

    @contextlib.asynccontextmanager
    async def audited(app: FastAPI) -> AsyncIterator[None]:
        async with lifespan(app), contextlib.nullcontext() if audit is None else audit.writing():
            yield

    app = FastAPI(
        title=f"Ratchet {service}",
        summary=summary,
        version=__version__,
        lifespan=audited,
        responses=PROBLEM_RESPONSES,
        openapi_url="/openapi.json",
        # FastAPI's pages load scripts from another site.
        docs_url=None,
        redoc_url=None,
    )
    app.add_exception_handler(RequestValidationError, _on_invalid)
    app.add_exception_handler(StarletteHTTPException, _on_http_error)
    app.add_exception_handler(ProblemError, _on_problem)
    app.add_exception_handler(ClientDisconnect, _on_gone)
    app.add_exception_handler(Exception, _on_unexpected)
    callers = Callers(settings.door_key, SERVICE if keys is None else OPERATOR, keys)
    # The last one is the outermost.
    app.add_middleware(BodyLimit, limit=settings.max_body_bytes)
    app.add_middleware(
        Door,
        service=service,
        hosts=allowed_hosts(settings.host, settings.allowed_hosts),
        callers=callers,
        solve=solve or SolveAccess(),
        audit=audit,
    )
    app.add_middleware(Measured, service=service)
    app.add_middleware(OnBehalf)
    app.state.service = service
    app.state.health = health
    app.state.callers = callers
    app.include_router(probes.router)
    _complete_document(app)
    return app


def _complete_document(app: FastAPI) -> None:
    """Say in the OpenAPI document that keys are asked for, and put the problem document in place of FastAPI's own schema."""
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
        document["components"]["securitySchemes"] = {"key": {"type": "http", "scheme": "bearer"}}
        document["security"] = [{"key": []}]
        for path, operations in document["paths"].items():
            for method, operation in operations.items():
                if f"{method.upper()} {path}" in OPEN:
                    operation["security"] = []
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
    if settings.door_key is None and not is_loopback(settings.host):
        file = (
            "RATCHET_ADMIN_KEY_FILE" if isinstance(settings, StoreSettings) else "RATCHET_SERVICE_TOKEN_FILE"
        )
        sys.exit(
            f"ratchet: {settings.host} is more than loopback, and no key is asked for. Set {file} to a file with a secret, "
            "or bind 127.0.0.1."
        )
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


def server_config(
    app: FastAPI, settings: Settings, *, lifespan: Literal["on", "off"] = "on"
) -> uvicorn.Config:
    """uvicorn's configuration: limits of connections, and patience with clients that has an end."""
    return uvicorn.Config(
        app,
        http=TimedConnection,
        limit_concurrency=settings.max_connections,
        # As many wait in the kernel; it takes fewer where its own limit (net.core.somaxconn) is lower.
        backlog=settings.max_connections,
        log_config=None,
        access_log=False,
        timeout_graceful_shutdown=10,
        timeout_keep_alive=75,
        lifespan=lifespan,
    )


def serve(app: FastAPI, settings: Settings) -> None:
    """Run the app until SIGTERM or SIGINT; requests under way get ten seconds to end."""
    configure_logging(settings)
    config = server_config(app, settings)
    sock = bind(settings)
    if settings.door_key is None:
        log.warning("no key is asked for: whoever can connect may do everything")
    # Each connection takes a descriptor, and each snapshot of the sandbox two.
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
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
