"""Which pair serves: the newest row of `serving_pairs` says so, and the services follow it without dropping a request.

The registry is changed first, in one transaction for policy and PRM. A service may then be behind: a trainer died in between,
or the service was restarted and came up with the model of its settings. `keep_serving` brings it up to date.
"""

import asyncio
from collections.abc import Awaitable, Callable

import structlog

from ratchet import background
from ratchet.clients import ServiceError
from ratchet.contracts.serving import PRM1, HeldModel
from ratchet.contracts.trainer import ModelKind, ModelRegistration, ServedBy, ServingPair
from ratchet.states import IllegalTransitionError
from ratchet.store.errors import StoreUnavailableError
from ratchet.store.pairs import UnknownVersionError
from ratchet.store.registry import Registry, VersionConflictError
from ratchet.store.rounds import RoundClaim
from services.trainer.holding import Serving, hold

log = structlog.get_logger()

EVERY_SECONDS = 3.0
LOOKS_AT_START = 10
"""In that time, as long as the services do not serve the pair."""
SILENT_SECONDS = 3600.0

_swapping = asyncio.Lock()
"""Held while registry and service change one after the other. A look in between would take the model that still serves for
one that the settings name, and undo the swap."""


async def serve(
    serving: Serving, policy: str, prm: str, why: ServedBy, claim: RoundClaim | None = None
) -> ServingPair:
    """Make a pair serve, in the registry and in the services. Raises what `PairStore.serve` raises, and ServiceError."""
    async with _swapping:
        pair = await serving.pairs.serve(policy, prm, why, claim)
        await _follow(serving, pair)
    return pair


async def roll_back(serving: Serving, leaving: int) -> ServingPair:
    """Make the pair serve again that served before. Raises what `PairStore.rollback` raises, and ServiceError."""
    async with _swapping:
        pair = await serving.pairs.rollback(leaving)
        await _follow(serving, pair)
    return pair


async def prm_beside(serving: Serving, policy: str) -> str:
    """The PRM to serve beside a policy: the one with which it last served, else the present one where that was trained on
    this policy, else PRM1."""
    last = await serving.pairs.last_with(policy)
    if last is not None:
        return last.prm
    current = await serving.pairs.current()
    trained = None if current is None else await serving.registry.get(current.prm)
    return trained.version if trained is not None and trained.parent == policy else PRM1


async def keep_serving(serving: Serving) -> None:
    """Have services and registry agree, for as long as the trainer runs. A service that is away is tried again later."""

    async def turn() -> None:
        # Those who have just started everything wait for it.
        looks = 1 if serving.settled.is_set() else LOOKS_AT_START
        for _ in range(looks):
            if await _follows(serving):
                serving.settled.set()
                return
            await asyncio.sleep(EVERY_SECONDS / LOOKS_AT_START)

    # A service that loads a large model answers late, and is no loop that hangs.
    await background.repeat("serving", turn, EVERY_SECONDS, silent_seconds=SILENT_SECONDS)


async def _follows(serving: Serving) -> bool:
    """Whether both services serve the pair, now that they were told to."""
    policy = await _look(serving, ModelKind.POLICY, reconcile_policy)
    # After the policy: one of other settings begins a new pair.
    prm = await _look(serving, ModelKind.PRM, reconcile_prm)
    return policy and prm


async def _look(serving: Serving, kind: ModelKind, reconcile: Callable[[Serving], Awaitable[bool]]) -> bool:
    try:
        # Asked before the lock is taken: no swap of the other service waits for one that is away.
        await serving.services[kind].models()
        async with _swapping:
            return await reconcile(serving)
    except (ServiceError, StoreUnavailableError) as error:
        log.debug("serving models not looked up", error=str(error))
    except (VersionConflictError, IllegalTransitionError, UnknownVersionError) as error:
        # Two checkpoints under one version, or a version that was rejected: a person has to look.
        log.error("the served model does not fit the registry", error=str(error))
    return False


async def reconcile_policy(serving: Serving) -> bool:
    """Have the policy service serve the pair's policy, or the pair follow the settings of the service; whether that is so now.

    A service that was restarted serves the model of its settings. If these name it and the pair's policy does not descend
    from it, they were changed, and it begins a new pair, with PRM1. Otherwise the pair's policy is served again: a model that
    nobody has named, but was chosen for this machine, takes nobody's place.
    """
    served = next((each for each in await serving.services[ModelKind.POLICY].models() if each.serving), None)
    if served is None or served.sha256 is None:
        return False
    pair = await serving.pairs.current()
    if pair is None or (
        served.configured and not await _descends(serving.registry, pair.policy, served.version)
    ):
        await _register(serving.registry, served)
        await serving.pairs.serve(served.version, PRM1, ServedBy.SETTINGS)
        log.info("serving", model=served.version)
    elif served.version != pair.policy:
        await _follow_one(serving, ModelKind.POLICY, pair.policy)
        log.info("serving again", model=pair.policy)
    return True


async def _register(registry: Registry, served: HeldModel) -> None:
    if await registry.get(served.version) is None:
        assert served.sha256 is not None
        await registry.register(
            ModelRegistration(
                version=served.version, kind=ModelKind.POLICY, uri=served.uri, sha256=served.sha256
            )
        )


async def reconcile_prm(serving: Serving) -> bool:
    """Have the PRM service serve the pair's PRM; whether it does now."""
    pair = await serving.pairs.current()
    served = next((each for each in await serving.services[ModelKind.PRM].models() if each.serving), None)
    if served is None or pair is None:
        return False
    if served.version != pair.prm:
        await _follow_one(serving, ModelKind.PRM, pair.prm)
        log.info("serving again", model=pair.prm)
    return True


async def _follow(serving: Serving, pair: ServingPair) -> None:
    """Have both services serve the pair. Raises ServiceError."""
    await _follow_one(serving, ModelKind.POLICY, pair.policy)
    await _follow_one(serving, ModelKind.PRM, pair.prm)


async def _follow_one(serving: Serving, kind: ModelKind, version: str) -> None:
    await hold(serving, kind, version)
    await serving.services[kind].serve(version)


async def _descends(registry: Registry, version: str, ancestor: str) -> bool:
    """Whether `ancestor` is the version itself, or one that it was trained from, directly or not."""
    current: str | None = version
    while current is not None:
        if current == ancestor:
            return True
        model = await registry.get(current)
        current = None if model is None else model.parent
    return False
