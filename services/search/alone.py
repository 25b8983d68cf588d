"""`python -m services.search.alone SEARCH`: the process that works on one search which may be what ended a worker.

The worker that started it (`apart.py`) listens for its beats.
"""

import asyncio
import contextlib
import ctypes
import os
import signal
import sys
from uuid import UUID

from ratchet import background
from ratchet.settings import SearchSettings, load
from ratchet.telemetry import configure_logging
from services.search.worker import open_worker

BEAT_SECONDS = 2.0
_PR_SET_PDEATHSIG = 1


async def main(settings: SearchSettings, search_id: UUID) -> None:
    """Work on the search until it is over. SIGTERM: give it back."""
    task = asyncio.current_task()
    assert task is not None
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
    # Its worker may be killed: then this process is told to stop as well.
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)

    async def beat() -> None:
        os.write(1, b".")

    async with (
        open_worker(settings, alone=True) as worker,
        background.running(background.repeat("beat", beat, BEAT_SECONDS)),
    ):
        await worker.run_search(search_id, asyncio.Event())


if __name__ == "__main__":
    _settings = load(SearchSettings)
    configure_logging(_settings)
    with contextlib.suppress(asyncio.CancelledError):
        asyncio.run(main(_settings, UUID(sys.argv[1])))
