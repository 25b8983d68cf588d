"""API keys over HTTP, for the scope admin: make, list, revoke; and the audit of what callers did."""

from http import HTTPStatus
from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Depends, Path, Query, Request

from ratchet.contracts.keys import (
    MAX_NAME_CHARS,
    NAME_PATTERN,
    AuditPage,
    CreatedKey,
    KeyList,
    KeyRequest,
    KeyView,
)
from ratchet.store.ids import new_id
from ratchet.store.keys import KeyNameTakenError, KeyStore
from ratchet.web.app import ProblemError, invalid
from ratchet.web.door.callers import RESERVED_NAMES, Callers
from ratchet.web.door.secrets import digest, new_key
from ratchet.web.unavailable import UNAVAILABLE, problems

router = APIRouter(tags=["keys"])

_INVALID = problems(_422="The request is not valid; `errors` names the fields.")
KeyName = Annotated[str, Path(pattern=NAME_PATTERN, max_length=MAX_NAME_CHARS)]


async def key_store(request: Request) -> KeyStore:
    """The app's store of keys."""
    store: KeyStore = request.app.state.keys
    return store


async def known_callers(request: Request) -> Callers:
    """Whom the app's door knows."""
    callers: Callers = request.app.state.callers
    return callers


Keys = Annotated[KeyStore, Depends(key_store)]
Known = Annotated[Callers, Depends(known_callers)]


@router.post(
    "/keys",
    summary="Make a key",
    status_code=HTTPStatus.CREATED,
    response_description="The key. It is shown this once.",
    responses={**problems(_409="A key of this name is in force."), **_INVALID, **UNAVAILABLE},
)
async def create_key(body: KeyRequest, keys: Keys, callers: Known) -> CreatedKey:
    """Make a key of 256 random bits. What is kept of it is its SHA-256."""
    if body.name in RESERVED_NAMES:
        raise invalid("name", f"{body.name} is what the audit calls a caller without a key of its own")
    key_id = new_id()
    key = new_key(key_id)
    try:
        made = await keys.create(key_id, body, digest(key))
    except KeyNameTakenError as error:
        raise ProblemError(HTTPStatus.CONFLICT, str(error)) from error
    callers.forget()
    return CreatedKey(**dict(made), key=key)


@router.get("/keys", summary="All keys", responses=UNAVAILABLE)
async def list_keys(keys: Keys) -> KeyList:
    """The newest first, those that were revoked too. Secrets are not among them."""
    return KeyList(keys=await keys.all())


@router.delete(
    "/keys/{name}",
    summary="Revoke a key",
    responses={**problems(_404="No key has this name."), **_INVALID, **UNAVAILABLE},
)
async def revoke_key(name: KeyName, keys: Keys, callers: Known) -> KeyView:
    """Refuse the key from now on; other processes do two seconds later. Its searches go on."""
    revoked = await keys.revoke(name)
    if revoked is None:
        raise ProblemError(HTTPStatus.NOT_FOUND, f"No key has the name {name}.")
    callers.forget()
    return revoked


@router.get("/audit", summary="Who did what", responses={**_INVALID, **UNAVAILABLE})
async def audit(
    keys: Keys,
    limit: Annotated[int, Query(ge=1, le=1000)] = 100,
    before: Annotated[UUID | None, Query(description="`next` of the page before.")] = None,
    key: Annotated[
        str | None,
        Query(max_length=MAX_NAME_CHARS, pattern=NAME_PATTERN, description="Only calls with this key."),
    ] = None,
) -> AuditPage:
    """Calls that were meant to change something, the newest first, with what they were answered."""
    return await keys.audit(limit, before, key)
