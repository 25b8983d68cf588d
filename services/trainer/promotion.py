"""Which pair serves: the registry says so, and the services are made to follow it without dropping a request.

The registry is changed first, in one transaction for each kind. A service may then be behind: a trainer died in between, or the
service was restarted and came up with its base model. `keep_serving` brings it up to date.
"""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from uuid import UUID

import structlog

from ratchet.clients import ModelServiceClient, PolicyClient, PrmClient, ServiceError
from ratchet.contracts.serving import PRM1, HeldModel, LoadModel
from ratchet.contracts.trainer import ModelKind, ModelRegistration, ModelView
from ratchet.states import ROUND_ENDS, IllegalTransitionError, ModelState
from ratchet.store.engine import StoreUnavailableError
from ratchet.store.registry import Registry, VersionConflictError
from ratchet.store.rounds import RoundStore

log = structlog.get_logger()

EVERY_SECONDS = 3.0

Reconcile = Callable[[ModelServiceClient, Registry], Awaitable[None]]

_swapping = asyncio.Lock()
"""Held while registry and service change one after the other. A look in between would take the model that still serves for
one that a person chose, and undo the swap."""


async def serve(registry: Registry, client: ModelServiceClient, version: str) -> None:
    """Make a version the serving one, in the registry and in its service."""
    model = await registry.get(version)
    if model is None:
        raise ValueError(f"There is no model version {version}.")
    async with _swapping:
        if model.state is not ModelState.SERVING:
            await registry.set_state(version, ModelState.SERVING)
        await follow(client, model)


async def follow(client: ModelServiceClient, model: ModelView) -> None:
    """Have the service hold the version and serve it. Raises ServiceError."""
    await client.load(model.version, LoadModel(uri=model.uri, sha256=model.sha256))
    await client.serve(model.version)


async def let_go(client: ModelServiceClient, versions: set[str], keep: set[str]) -> None:
    """Unload versions that nobody needs any more; one that cannot be unloaded only costs memory."""
    for version in versions - keep:
        with contextlib.suppress(ServiceError):
            await client.unload(version)


async def versions_in_rounds(rounds: RoundStore, apart: UUID | None = None) -> set[str]:
    """Versions that the rounds under way work with, without those of the round `apart`; and PRM1, which is always held."""
    needed = {PRM1}
    for each in await rounds.rounds():
        if each.id != str(apart) and each.state not in ROUND_ENDS:
            metrics = each.metrics
            if metrics.models is not None:
                needed |= {metrics.models.base, metrics.models.policy, metrics.models.prm}
            needed |= {made.version for made in (metrics.policy, metrics.prm) if made is not None}
    return needed


async def keep_serving(policy: PolicyClient, prm: PrmClient, registry: Registry) -> None:
    """Have services and registry agree, for as long as the trainer runs. A service that is away is tried again later."""
    while True:
        await _look(policy, registry, reconcile_policy)
        await _look(prm, registry, reconcile_prm)
        await asyncio.sleep(EVERY_SECONDS)


async def _look(client: ModelServiceClient, registry: Registry, reconcile: Reconcile) -> None:
    try:
        # Asked before the lock is taken: no swap of the other service waits for one that is away.
        await client.models()
        async with _swapping:
            await reconcile(client, registry)
    except (ServiceError, StoreUnavailableError) as error:
        log.debug("serving models not looked up", error=str(error))
    except (VersionConflictError, IllegalTransitionError) as error:
        # Two checkpoints under one version, or a version that was rejected: a person has to look.
        log.error("the served model does not fit the registry", error=str(error))


async def reconcile_policy(policy: ModelServiceClient, registry: Registry) -> None:
    """Serve the promoted policy again after a restart, or register one that a person chose.

    The policy service starts with the model that its settings name. If the registry's serving version descends from that
    model, it is served. Otherwise the settings were changed, and the registry follows them.
    """
    served = next((each for each in await policy.models() if each.serving), None)
    if served is None or served.sha256 is None:
        return
    registered = await registry.models(ModelKind.POLICY, ModelState.SERVING, 1)
    if registered and registered[0].version == served.version:
        return
    if registered and await _descends(registry, registered[0], served.version):
        await follow(policy, registered[0])
        log.info("serving again", model=registered[0].version)
    else:
        await _register_served(registry, served)


async def _register_served(registry: Registry, served: HeldModel) -> None:
    found = await registry.get(served.version)
    if found is None:
        assert served.sha256 is not None
        registration = ModelRegistration(
            version=served.version, kind=ModelKind.POLICY, uri=served.uri, sha256=served.sha256
        )
        found = (await registry.register(registration)).model
    if found.state is not ModelState.SERVING:
        await registry.set_state(served.version, ModelState.SERVING)
        log.info("serving", model=served.version)


async def reconcile_prm(prm: ModelServiceClient, registry: Registry) -> None:
    """Serve the trained PRM beside its own policy, and beside descendants and ancestors of that; PRM1 beside any other."""
    trained = await registry.models(ModelKind.PRM, ModelState.SERVING, 1)
    policies = await registry.models(ModelKind.POLICY, ModelState.SERVING, 1)
    served = next((each for each in await prm.models() if each.serving), None)
    if served is None or not policies:
        return
    fits = trained and (
        await _descends(registry, trained[0], policies[0].version)
        or (trained[0].parent is not None and await _descends(registry, policies[0], trained[0].parent))
    )
    if trained and fits:
        if served.version != trained[0].version:
            await follow(prm, trained[0])
            log.info("serving again", model=trained[0].version)
        return
    if trained:
        # Another policy was chosen: the PRM of the old one does not know its steps.
        await registry.set_state(trained[0].version, ModelState.RETIRED)
    if not served.version.startswith(PRM1):
        await prm.serve(PRM1)


async def _descends(registry: Registry, model: ModelView, ancestor: str) -> bool:
    """Whether `ancestor` is the model itself, or one that it was trained from, directly or not."""
    current: ModelView | None = model
    while current is not None:
        if current.version == ancestor:
            return True
        current = await registry.get(current.parent) if current.parent is not None else None
    return False
