"""Which policy and which PRM will answer a search that has not begun: those it is pinned to, otherwise those that serve."""

import contextlib

from ratchet.clients import ModelServiceClient, ServiceError
from ratchet.contracts.search import SearchRequest
from ratchet.contracts.serving import PRM1
from services.search.search import Backends


async def models_of(request: SearchRequest, backends: Backends) -> tuple[str, str] | None:
    """Versions of policy and PRM; None where a service does not say what it serves."""
    policy = request.models.policy or await _serving(backends.policy)
    prm = request.models.prm or await _serving(backends.prm)
    if policy is None or prm is None:
        return None
    # PRM1 is as new as the policy that it reads, and says so in its version.
    return policy, f"{PRM1}@{policy}" if prm == PRM1 else prm


async def _serving(service: ModelServiceClient) -> str | None:
    with contextlib.suppress(ServiceError):
        version = (await service.health()).detail.get("model")
        return version if isinstance(version, str) else None
    return None
