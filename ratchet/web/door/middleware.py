"""The door itself: an ASGI middleware that lets a request through to its route, or answers in its place."""

import math
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any, Final

from fastapi.responses import Response
from starlette.routing import Match
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ratchet.contracts.keys import KeyScope
from ratchet.store.errors import StoreUnavailableError
from ratchet.store.key_records import AuditedCall
from ratchet.store.text import replace_unstorable
from ratchet.web.door import OPEN
from ratchet.web.door.audit import Audit, is_audited_elsewhere
from ratchet.web.door.callers import Caller, Callers
from ratchet.web.door.origins import is_navigation, is_own_host, is_own_origin
from ratchet.web.door.rates import Rates
from ratchet.web.problems import problem_response

READING: Final = frozenset({"GET", "HEAD", "OPTIONS"})
"""Methods that change nothing (RFC 9110, section 9.2.1)."""
UNMATCHED: Final = "unmatched"
MAX_TARGET_CHARS: Final = 500
_BEARER: Final = "bearer "

Owns = Callable[[Caller, Mapping[str, Any]], Awaitable[bool]]
"""Whether what the parameters of a path name is the caller's own."""


async def _owns_nothing(_caller: Caller, _parameters: Mapping[str, Any]) -> bool:
    return False


@dataclass(frozen=True)
class SolveAccess:
    """What a key of the scope `solve` may ask for: these routes (`GET /search/{search_id}`), and only for what is its own."""

    routes: frozenset[str] = frozenset()
    owns: Owns = _owns_nothing


@dataclass(frozen=True)
class _Refusal:
    """Why a request does not come in."""

    status: HTTPStatus
    detail: str
    headers: Mapping[str, str] = field(default_factory=dict)

    def response(self, path: str) -> Response:
        """The problem document."""
        return problem_response(self.status, self.detail, path, headers=self.headers)


_FOREIGN_HOST = _Refusal(
    HTTPStatus.MISDIRECTED_REQUEST,
    "This service does not go by the name in the Host header. RATCHET_ALLOWED_HOSTS adds names.",
)
_FOREIGN_ORIGIN = _Refusal(HTTPStatus.FORBIDDEN, "Pages of other sites may not call this service.")
_NOBODY = _Refusal(
    HTTPStatus.UNAUTHORIZED,
    "Send a key that is in force: Authorization: Bearer KEY.",
    {"WWW-Authenticate": 'Bearer realm="ratchet"'},
)
_STORE_AWAY = _Refusal(
    HTTPStatus.SERVICE_UNAVAILABLE,
    "Keys cannot be checked: the database is not available now. Try again later.",
    {"Retry-After": "2"},
)


class Door:
    """Checks each request as the package says. `request.state.caller` is who was let in."""

    def __init__(
        self,
        app: ASGIApp,
        *,
        service: str,
        hosts: frozenset[str],
        callers: Callers,
        solve: SolveAccess,
        audit: Audit | None,
    ) -> None:
        self._app = app
        self._service = service
        self._hosts = hosts
        self._callers = callers
        self._solve = solve
        self._audit = audit
        self._rates = Rates()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        if scope["type"] != "http":
            # No service speaks WebSocket.
            await send({"type": "websocket.close", "code": 1008})
            return
        headers: dict[bytes, bytes] = dict(scope["headers"])
        path, parameters = _route_of(scope)
        route = f"{scope['method']} {path}"
        caller: Caller | None = None
        refusal = self._check_site(headers, route)
        if refusal is None and route not in OPEN:
            try:
                caller = await self._callers.find(_bearer(headers))
                refusal = _NOBODY if caller is None else await self._check_rights(caller, route, parameters)
            except StoreUnavailableError:
                refusal = _STORE_AWAY
            scope.setdefault("state", {})["caller"] = caller
        send = self._audited(scope, send, caller, path)
        if refusal is None:
            await self._app(scope, receive, send)
        else:
            await refusal.response(scope["path"])(scope, receive, send)

    def _check_site(self, headers: Mapping[bytes, bytes], route: str) -> _Refusal | None:
        if not is_own_host(headers, self._hosts):
            return _FOREIGN_HOST
        # A link in somebody's message may lead to the page: the browser then shows it, and the other site reads nothing.
        if is_own_origin(headers) or (route in OPEN and is_navigation(headers)):
            return None
        return _FOREIGN_ORIGIN

    async def _check_rights(
        self, caller: Caller, route: str, parameters: Mapping[str, Any]
    ) -> _Refusal | None:
        most = caller.limits.requests_per_minute
        if caller.key_id is not None and most is not None:
            wait = self._rates.seconds_to_wait(caller.key_id, most)
            if wait > 0:
                return _Refusal(
                    HTTPStatus.TOO_MANY_REQUESTS,
                    f"The key {caller.name} may send {most} requests a minute.",
                    {"Retry-After": str(math.ceil(wait))},
                )
        if caller.scope is KeyScope.ADMIN:
            return None
        if route not in self._solve.routes:
            return _Refusal(
                HTTPStatus.FORBIDDEN,
                f"The key {caller.name} has the scope {caller.scope}; this needs a key of the scope admin.",
                {"WWW-Authenticate": 'Bearer realm="ratchet", error="insufficient_scope", scope="admin"'},
            )
        if parameters and not await self._solve.owns(caller, parameters):
            # As if it were not there: which ids there are is nobody else's business.
            return _Refusal(HTTPStatus.NOT_FOUND, f"The key {caller.name} has begun nothing of this id.")
        return None

    def _audited(self, scope: Scope, send: Send, caller: Caller | None, path: str) -> Send:
        """`send`, which notes the status of a call that is meant to change something."""
        audit = self._audit
        if audit is None or caller is None or scope["method"] in READING:
            return send

        async def noting(message: Message) -> None:
            if message["type"] == "http.response.start" and not is_audited_elsewhere(scope):
                audit.note(
                    AuditedCall(
                        caller.name,
                        caller.key_id,
                        self._service,
                        scope["method"],
                        path,
                        replace_unstorable(scope["path"])[:MAX_TARGET_CHARS],
                        message["status"],
                    )
                )
            await send(message)

        return noting


def _bearer(headers: Mapping[bytes, bytes]) -> str | None:
    """The key of the Authorization header (RFC 6750, section 2.1). One of another scheme is no key that we know."""
    sent = headers.get(b"authorization")
    if sent is None:
        return None
    text = sent.decode("latin-1")
    return text[len(_BEARER) :].strip() if text.lower().startswith(_BEARER) else ""


def _route_of(scope: Scope) -> tuple[str, Mapping[str, Any]]:
    """The path of the route that will serve the request, with the names of its parameters, and their values."""
    for route in scope["app"].router.routes:
        match, child = route.matches(scope)
        if match is Match.FULL:
            return getattr(route, "path_format", UNMATCHED), child.get("path_params", {})
    return UNMATCHED, {}
