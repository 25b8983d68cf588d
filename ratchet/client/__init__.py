"""The Python client: `solve`, `stream`, `batch`, and proofs that are checked on this machine (docs/how-to/python-client.md).

    with ratchet.Client("http://127.0.0.1:8000", key="rk_…") as client:
        print(client.solve("6 rows of 7 seats. How many seats are there?").answer)

`AsyncClient` does the work (`asynchronous.py`), `Client` is the same for code without asyncio (`synchronous.py`). Calls are
retried as in `ratchet.service_client`; what is refused, or cannot be reached, raises ServiceError.
"""

from ratchet.client.asynchronous import AsyncClient, ProofFindings
from ratchet.client.batch import BatchProgress, BatchReport
from ratchet.client.events import AnswerFound, Ended, EventsLost, StateChanged, StepFound, StreamEvent
from ratchet.client.options import BranchOptions, ExtendOptions, ListOptions, SolveOptions
from ratchet.client.synchronous import Client
from ratchet.contracts.search import SearchResult
from ratchet.service_client import ServiceError

__all__ = [
    "AnswerFound",
    "AsyncClient",
    "BatchProgress",
    "BatchReport",
    "BranchOptions",
    "Client",
    "Ended",
    "EventsLost",
    "ExtendOptions",
    "ListOptions",
    "ProofFindings",
    "SearchResult",
    "ServiceError",
    "SolveOptions",
    "StateChanged",
    "StepFound",
    "StreamEvent",
]
