"""The trainer, for callers of the search API: the page shows rounds and models, and steers them, through one service.

A call goes on under the caller's own key. The trainer's door looks at it as it does at any other, so that nobody can do by
this way what they could not do there, and its audit names the caller.

Limits: both services need the same operator's key. Where a change is not answered nobody knows whether it was made.
"""

from http import HTTPStatus
from typing import Annotated, Final
from urllib.parse import quote

from fastapi import Depends, Request
from fastapi.responses import Response

from ratchet.contracts.base import Contract
from ratchet.on_behalf import CALLER, MAX_CALLER
from ratchet.service_client import Answer, ServiceClient, ServiceError
from ratchet.web.app import ProblemError
from ratchet.web.door.audit import leave_audit_to_another

READ_SECONDS: Final = 20.0
RETRY_SECONDS: Final = 0.5
"""For reads: as long as a restarted connection takes. The caller is told when to come back."""
CHANGE_SECONDS: Final = 300.0
"""A version that is promoted has to be loaded first."""
AWAY_SECONDS: Final = 2
UNKNOWN_KEY: Final = frozenset({HTTPStatus.UNAUTHORIZED, HTTPStatus.MISDIRECTED_REQUEST})
"""What the trainer's door says to whom it does not let in; nothing is then audited there."""


class _TrainerCalls(ServiceClient):
    service = "trainer"
    max_connections = 32

    async def call(
        self, answer: type[Answer], method: str, path: str, body: Contract | None, headers: dict[str, str]
    ) -> Answer:
        """Raises ServiceError."""
        return await self._call(answer, method, path, body, headers=headers)


class Trainer:
    """Passes calls on. Reads may be sent again; what changes something is sent once."""

    def __init__(self, url: str) -> None:
        self._reads = _TrainerCalls(url, attempt_seconds=READ_SECONDS, retry_seconds=RETRY_SECONDS)
        self._changes = _TrainerCalls(url, attempt_seconds=CHANGE_SECONDS, retry_seconds=0.0)

    async def aclose(self) -> None:
        """Close the connections."""
        await self._reads.aclose()
        await self._changes.aclose()

    async def pass_on(self, request: Request, answer: type[Answer], body: Contract | None = None) -> Response:
        """The trainer's answer to the same method and path. Raises ProblemError: its own, or 502 and 503 where it has none."""
        path = request.scope["path"]
        if {".", ".."} & set(path.split("/")):
            # An address would be read as another one.
            raise ProblemError(HTTPStatus.NOT_FOUND, "There is nothing of this name.")
        query = request.scope["query_string"].decode("latin-1")
        target = quote(path, safe="/@+") + (f"?{query}" if query else "")
        reading = request.method == "GET"
        calls = self._reads if reading else self._changes
        try:
            found = await calls.call(answer, request.method, target, body, _headers(request))
        except ServiceError as error:
            if error.status is not None and error.status < 500 and error.status not in UNKNOWN_KEY:
                leave_audit_to_another(request)
            raise _problem(error, reading=reading) from error
        leave_audit_to_another(request)
        return Response(found.model_dump_json(), media_type="application/json")


async def trainer(request: Request) -> Trainer:
    """The app's way to the trainer."""
    found: Trainer = request.app.state.trainer
    return found


ToTrainer = Annotated[Trainer, Depends(trainer)]


def _headers(request: Request) -> dict[str, str]:
    """The caller's key, and the name by which the trainer's log finds the caller."""
    sent = {CALLER: quote(request.state.caller.name, safe="")[:MAX_CALLER]}
    key = request.headers.get("authorization")
    return sent if key is None else {**sent, "authorization": key}


def _problem(error: ServiceError, *, reading: bool) -> ProblemError:
    if error.status is None:
        unsure = (
            "" if reading else " Whether it has done what was asked is not known: look before you ask again."
        )
        return _away(f"The trainer, which has rounds and models, {error.title}.{unsure}", error.retry_after)
    if error.status in UNKNOWN_KEY or error.status == HTTPStatus.FORBIDDEN:
        return ProblemError(
            HTTPStatus.BAD_GATEWAY,
            "The trainer does not let this caller in, and this service does: both need the same RATCHET_ADMIN_KEY_FILE and "
            f"database, and the trainer's name in RATCHET_TRAINER_URL has to be one of its own. It says: {error.detail}",
        )
    if error.status == HTTPStatus.SERVICE_UNAVAILABLE:
        return _away(error.detail or error.title, error.retry_after)
    if 400 <= error.status < 500 and error.status in set(HTTPStatus):
        after = {} if error.retry_after is None else {"Retry-After": f"{error.retry_after:.0f}"}
        detail = error.detail or error.title
        return ProblemError(HTTPStatus(error.status), detail, errors=list(error.errors), headers=after)
    return ProblemError(
        HTTPStatus.BAD_GATEWAY, f"The trainer failed on this: {error.title}. Its log has the reason."
    )


def _away(detail: str, retry_after: float | None) -> ProblemError:
    after = f"{retry_after or AWAY_SECONDS:.0f}"
    return ProblemError(HTTPStatus.SERVICE_UNAVAILABLE, detail, headers={"Retry-After": after})
