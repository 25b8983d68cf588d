"""Ratchet: a math solver that searches over executed steps, verifies its answers, and improves itself.

`ratchet.Client` and `ratchet.AsyncClient` ask a running service (docs/how-to/python-client.md); they are imported when they are
first used, so that `import ratchet` is light.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ratchet.client import AsyncClient, Client

__version__ = "0.2.0"
__all__ = ["AsyncClient", "Client", "__version__"]


def __getattr__(name: str) -> Any:
    """The clients. Raises AttributeError for other names."""
    if name in ("AsyncClient", "Client"):
        from ratchet import client

        return getattr(client, name)
    raise AttributeError(f"module 'ratchet' has no attribute {name!r}")
