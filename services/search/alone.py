"""`python -m services.search.alone SEARCH`: one search in a process of its own.

A search that was in flight when a worker was lost, and had got no further, may be what ended that worker. It is run apart: if
it ends this process too, it takes no other search along. The worker that started it waits for it, and ends it when it says
nothing for long.
"""

import asyncio
import contextlib
import ctypes
import os
import signal
import sys
from uuid import UUID

import structlog

from ratchet import background
from ratchet.settings import SearchSettings, load
from ratchet.telemetry import configure_logging

log = structlog.get_logger()

BEAT_SECONDS = 2.0
SILENT_SECONDS = 60.0
"""A process that says nothing for so long hangs."""
STOP_SECONDS = 6.0
"""It has so long to give its search back; less than a worker has that stops."""
_PR_SET_PDEATHSIG = 1


async def run_apart(search_id: UUID) -> None:
    """Work on the search in a process of its own, until that ends. Cancelled: the process gives the search back and ends."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "services.search.alone",
        str(search_id),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
    )
    assert process.stdout is not None
    try:
        while await asyncio.wait_for(process.stdout.read(64), SILENT_SECONDS):
            pass
        await process.wait()
    except TimeoutError:
        log.error("a search that was run alone hangs; its process is ended")
    finally:
        if process.returncode is None:
            await _end(process)
    if process.returncode:
        log.error("a search that was run alone has ended its process", code=process.returncode)


async def _end(process: asyncio.subprocess.Process) -> None:
    with contextlib.suppress(ProcessLookupError):
        process.terminate()
        try:
            await asyncio.wait_for(process.wait(), STOP_SECONDS)
        except TimeoutError:
            process.kill()
            await process.wait()


async def _main(settings: SearchSettings, search_id: UUID) -> None:
    # Imported here: the worker imports this module.
    from services.search.worker import open_worker

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
        asyncio.run(_main(_settings, UUID(sys.argv[1])))
