"""For whom a service is asked: a header names the search, or the run of rounds, whose work it is.

One id then finds a search in the logs of all services. The sandbox shares its queue by it.
"""

from typing import Final
from urllib.parse import quote

import structlog

CALLER: Final = "x-caller"
MAX_CALLER: Final = 200


def caller_header() -> dict[str, str]:
    """The header that says for whom this task works; none where the task's log lines do not."""
    known = structlog.contextvars.get_contextvars()
    caller = known.get("search") or known.get("run") or known.get("caller")
    return {} if caller is None else {CALLER: quote(str(caller), safe="")[:MAX_CALLER]}
