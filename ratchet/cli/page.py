"""Opens the page in this person's browser, with its key.

The key goes through no command line, which everybody on the machine can read: the browser is sent to an address of our own
that serves once, and that leads on to the page with the key behind its `#`, which browsers send to nobody.
"""

import asyncio
import os
import secrets
import sys
import threading
import webbrowser
from collections.abc import Callable
from urllib.parse import quote

OPEN_SECONDS = 60.0
"""For the browser to ask: a first start is slow."""


def page_url(search: str, key: str | None = None) -> str:
    """The page of the search API at this address, with a key that the page takes out of its own address."""
    page = f"{search.rstrip('/')}/"
    return page if key is None else f"{page}#/?key={quote(key, safe='')}"


def has_browser() -> bool:
    """Whether a window can open here: one in a terminal would take the terminal from us."""
    if os.environ.get("BROWSER") or sys.platform == "darwin":
        return True
    return bool(os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"))


async def open_page(search: str, key: str, say: Callable[[str], None]) -> None:
    """Open it, and say so; on a machine without a browser say the address that is to be opened elsewhere."""
    if not has_browser():
        say(f"There is no browser here. The page, with its key:\n\n  {page_url(search, key)}")
        return
    if not await _lead_on(page_url(search, key)):
        say(f"No browser opened. The page, with its key:\n\n  {page_url(search, key)}")


async def _lead_on(target: str) -> bool:
    """Whether a browser came for the address and was sent on to the target."""
    path = f"/{secrets.token_urlsafe(32)}"
    came = asyncio.Event()

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        line = await reader.readline()
        expected = line.split(b" ")[:2] == [b"GET", path.encode()] and not came.is_set()
        if expected:
            came.set()
        head = f"302 Found\r\nLocation: {target}" if expected else "404 Not Found"
        writer.write(
            f"HTTP/1.1 {head}\r\nCache-Control: no-store\r\nContent-Length: 0\r\nConnection: close\r\n\r\n".encode()
        )
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    async with server:
        port = server.sockets[0].getsockname()[1]
        # In a thread that ends with us: some browsers return only when they are closed.
        address = f"http://127.0.0.1:{port}{path}"
        threading.Thread(target=webbrowser.open, args=(address,), name="browser", daemon=True).start()
        try:
            async with asyncio.timeout(OPEN_SECONDS):
                await came.wait()
        except TimeoutError:
            return False
        # The answer is under way.
        await asyncio.sleep(0.5)
    return True
