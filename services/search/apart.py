"""A search in a process of its own, as the worker sees it that starts it (`alone.py` is that process).

A search that was in flight when a worker was lost, and had got no further, may be what ended that worker. It is run apart: if
it ends its process too, it takes no other search along. Its process is ended when it says nothing for long.
"""

import asyncio
import contextlib
import sys
from uuid import UUID

import structlog

log = structlog.get_logger()

SILENT_SECONDS = 60.0
"""A process that says nothing for so long hangs."""
STOP_SECONDS = 6.0
"""It has so long to give its search back; less than a worker has that stops."""


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
        heard = b" "
        while heard:
            async with asyncio.timeout(SILENT_SECONDS):
                heard = await process.stdout.read(64)
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
            async with asyncio.timeout(STOP_SECONDS):
                await process.wait()
        except TimeoutError:
            process.kill()
            await process.wait()
