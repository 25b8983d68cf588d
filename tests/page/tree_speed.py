"""How fast the tree is: 5,000 nodes on the screen while 50 a second arrive, on a search that is made up.

The events feed the model that the live page feeds from the stream, and the tab is the page's own; the stream and the API are no
part of it. The whole tree is in sight and every arrival moves it, which is the hardest that there is to draw.
"""

from pathlib import Path
from typing import Any

from playwright.async_api import Page

SOURCE = Path(__file__).with_suffix(".js")
NODES = 5000
RATE = 50
"""Nodes a second."""
SECONDS = 10


async def measure(page: Page, base_url: str) -> dict[str, Any]:
    """`{fps, p95_frame_ms, layout_ms, first_node_ms, …}` of the page at `base_url`: frames a second, milliseconds (95th
    percentile, median, once)."""
    # With movement: nodes glide to their places.
    await page.emulate_media(reduced_motion="no-preference")
    await page.goto(base_url)
    arguments = {"nodes": NODES, "rate": RATE, "seconds": SECONDS}
    found: dict[str, Any] = await page.evaluate(SOURCE.read_text(encoding="utf-8"), arguments)
    return found
