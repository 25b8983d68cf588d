"""Routes of what serves: pairs of a policy and a PRM, promoted and rolled back without dropping a request."""

import contextlib
from collections.abc import AsyncIterator
from http import HTTPStatus
from typing import Annotated

from fastapi import APIRouter, Depends, Query, Request

from ratchet.clients import ServiceError
from ratchet.contracts.trainer import ModelKind, PairList, Rollback, ServedBy, ServingPair
from ratchet.states import IllegalTransitionError, ModelState
from ratchet.store.pairs import RollbackError, UnknownVersionError
from ratchet.web.app import ProblemError
from ratchet.web.unavailable import UNAVAILABLE, problems
from services.trainer.holding import Serving, hold_pairs, let_go
from services.trainer.model_routes import Version
from services.trainer.pairs import Pair
from services.trainer.promotion import prm_beside, roll_back, serve

_INVALID = problems(_422="The request is not valid; `errors` names the fields.")

router = APIRouter(tags=["pairs"])


async def what_serves(request: Request) -> Serving:
    """The app's pairs and services."""
    serving: Serving = request.app.state.serving
    return serving


Pairs = Annotated[Serving, Depends(what_serves)]


@router.get("/pairs", summary="Pairs that were made to serve", responses={**_INVALID, **UNAVAILABLE})
async def pairs(serving: Pairs, limit: Annotated[int, Query(ge=1, le=1000)] = 100) -> PairList:
    """The newest first: that one serves."""
    return PairList(pairs=await serving.pairs.history(limit))


@router.post(
    "/pairs/rollback",
    summary="Go back to the pair that served before",
    responses={
        **problems(_409="Nothing served before, another pair serves, or a service does not take it."),
        **_INVALID,
        **UNAVAILABLE,
    },
)
async def rollback(body: Rollback, serving: Pairs) -> ServingPair:
    """Serve the policy and the PRM again that served before the pair that is left. Leaving that one goes further back."""
    try:
        target = await serving.pairs.previous(body.pair)
        async with _changing(serving, target.policy, target.prm):
            return await roll_back(serving, body.pair)
    except RollbackError as error:
        raise ProblemError(HTTPStatus.CONFLICT, str(error)) from error


@router.post(
    "/models/{version:path}/serve",
    summary="Promote a version",
    responses={
        **problems(
            _404="There is no such version.",
            _409="It was rejected by its gate, its service does not take it, or it is a PRM and no policy serves.",
        ),
        **_INVALID,
        **UNAVAILABLE,
    },
)
async def promote(version: Version, serving: Pairs) -> ServingPair:
    """Serve this version from now on, without dropping a request; what serves is retired. The answer names the pair.

    A PRM serves beside the present policy. A policy serves with the PRM with which it last served; where it never did, with
    the present PRM if that was trained on this policy, and with PRM1 otherwise.
    """
    found = await serving.registry.get(version)
    if found is None:
        raise ProblemError(HTTPStatus.NOT_FOUND, f"There is no model version {version}.")
    if found.state is ModelState.REJECTED:
        raise ProblemError(HTTPStatus.CONFLICT, f"{version} was rejected by its gate and cannot be served.")
    if found.kind is ModelKind.POLICY:
        policy, prm = version, await prm_beside(serving, version)
    else:
        current = await serving.pairs.current()
        if current is None:
            raise ProblemError(HTTPStatus.CONFLICT, "No policy serves yet, and a PRM serves beside one.")
        policy, prm = current.policy, version
    async with _changing(serving, policy, prm):
        return await serve(serving, policy, prm, ServedBy.PERSON)


@contextlib.asynccontextmanager
async def _changing(serving: Serving, policy: str, prm: str) -> AsyncIterator[None]:
    """Around a change to this pair: it is held before, and what nobody needs is let go afterwards."""
    before, wanted = await serving.pairs.current(), Pair(policy, prm)
    try:
        # What cannot be held is not promoted, so that the registry says what is true.
        await hold_pairs(serving, [wanted])
        yield
    except (ServiceError, IllegalTransitionError, UnknownVersionError) as error:
        raise ProblemError(HTTPStatus.CONFLICT, f"{policy} with {prm} cannot be served: {error}") from error
    finally:
        let_go(serving, [wanted] if before is None else [wanted, Pair(before.policy, before.prm)])
