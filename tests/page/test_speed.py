"""The tree of 5,000 nodes stays smooth while 50 a second arrive."""

from typing import Any

from playwright.async_api import Page

from tests.page import tree_speed
from tests.page.site import Site

GOAL_FPS = 50


async def test_a_tree_of_5000_nodes_is_smooth_while_it_grows(
    site: Site, page: Page, figures: dict[str, Any]
) -> None:
    found = await tree_speed.measure(page, site.url)
    figures["nodes_5000_fps"] = round(found["fps"], 1)
    figures["tree"] = found
    assert found["fps"] >= GOAL_FPS, found
