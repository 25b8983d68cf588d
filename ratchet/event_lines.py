"""The lines of a stream of server-sent events."""

from collections.abc import AsyncIterator

import httpx


async def event_lines(response: httpx.Response) -> AsyncIterator[str]:
    """The lines, without their ends. httpx's own also end where a text does so for Unicode, and model text may."""
    rest = ""
    async for text in response.aiter_text():
        *whole, rest = (rest + text).split("\n")
        for line in whole:
            yield line.removesuffix("\r")
