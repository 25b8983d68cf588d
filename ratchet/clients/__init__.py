"""Typed clients of the services, one class each: what can be asked, and how long it may take.

Every call to policy, PRM and sandbox is pure, and a search is created under an idempotency key, so each may be sent again;
`ratchet.service_client` does it.
"""

from ratchet.clients.models import ModelServiceClient, PolicyClient, PrmClient
from ratchet.clients.sandbox import SandboxClient, SandboxFailedError
from ratchet.clients.search import SearchClient
from ratchet.clients.trainer import TrainerClient
from ratchet.service_client import UNIX_SCHEME, ServiceError

__all__ = [
    "UNIX_SCHEME",
    "ModelServiceClient",
    "PolicyClient",
    "PrmClient",
    "SandboxClient",
    "SandboxFailedError",
    "SearchClient",
    "ServiceError",
    "TrainerClient",
]
