"""Keeps the registry true: the policy version that is being served stands in it, as serving.

Limits: it learns of a version when the policy says so, a few seconds after the fact. PRM1 has no weights of its own and is
not listed; its version names the policy that it reads.
"""

import asyncio

import structlog

from ratchet.clients import PolicyClient, ServiceError
from ratchet.contracts.trainer import ModelKind, ModelRegistration
from ratchet.states import IllegalTransitionError, ModelState
from ratchet.store.engine import StoreUnavailableError
from ratchet.store.registry import Registry, VersionConflictError

log = structlog.get_logger()

EVERY_SECONDS = 5.0


async def keep_served_registered(policy: PolicyClient, registry: Registry) -> None:
    """Look for ever; what is away is looked for again at the next turn."""
    known: str | None = None
    while True:
        try:
            served = await _served(policy)
            if served is not None and served.version != known:
                await _register(registry, served)
                known = served.version
        except (ServiceError, StoreUnavailableError) as error:
            log.debug("served model not looked up", error=str(error))
        except (VersionConflictError, IllegalTransitionError) as error:
            # Two checkpoints under one version, or a version that was rejected: a person has to look.
            log.error("the served model does not fit the registry", error=str(error))
            known = served.version if served is not None else None
        await asyncio.sleep(EVERY_SECONDS)


async def _served(policy: PolicyClient) -> ModelRegistration | None:
    health = await policy.health()
    version, uri, sha256 = (health.detail.get(name) for name in ("model", "uri", "sha256"))
    if not health.ready or not (
        isinstance(version, str) and isinstance(uri, str) and isinstance(sha256, str)
    ):
        return None
    return ModelRegistration(version=version, kind=ModelKind.POLICY, uri=uri, sha256=sha256)


async def _register(registry: Registry, served: ModelRegistration) -> None:
    found = (await registry.register(served)).model
    if found.state is not ModelState.SERVING:
        await registry.set_state(served.version, ModelState.SERVING)
        log.info("serving", model=served.version)
