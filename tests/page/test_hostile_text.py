"""What a model writes and its programs print is text, whatever it says: nothing of it runs, and no view breaks.

The policy is a script for this one problem (hostile.py); jail, store, events and page are the real ones.
"""

import re

import pytest
from playwright.async_api import Page, expect

from ratchet.contracts.search import SearchResult
from tests.page.browser import PHONE, assert_fits
from tests.page.conftest import OpenPage
from tests.page.hostile import PIECES, PROBLEM
from tests.page.site import Site

_PLANTED = """
() => [...document.querySelectorAll('main script, main iframe, img[src="x"], svg[onload], a[href^="javascript"]')]
  .map((each) => each.outerHTML.slice(0, 100))
"""


@pytest.fixture(scope="module")
async def hostile(site: Site) -> SearchResult:
    """A search whose every text is an attack."""
    result = await site.solve(PROBLEM, strategy="best_of_n", parameters={"rollouts": 20, "early_stop": False})
    written = "".join(node["text"] + node["stdout"] for node in await site.stack.nodes(result.id))
    assert "<script>" in written
    assert "\u2028" in written
    assert "\u202e" in written
    return result


async def assert_harmless(page: Page) -> None:
    """Nothing of it has run, and none of it is an element."""
    assert await page.evaluate("() => window.hacked") is None
    assert await page.evaluate(_PLANTED) == []
    assert "[object Object]" not in await page.locator("body").inner_text()


async def test_every_view_shows_it_as_text(site: Site, page: Page, hostile: SearchResult) -> None:
    for path in (
        f"/search/{hostile.id}",
        "/history",
        f"/compare?a={hostile.id}&b={hostile.id}",
        f"/?from={hostile.id}",
    ):
        await site.open(page, path)
        shown = page.get_by_text("<script>").locator("visible=true").or_(page.locator("textarea"))
        await expect(shown.first).to_be_visible()
        await page.wait_for_timeout(500)
        await assert_harmless(page)


async def test_every_node_of_its_tree_is_looked_at(site: Site, page: Page, hostile: SearchResult) -> None:
    nodes = [node for node in await site.stack.nodes(hostile.id) if node["parent"] is not None]
    assert len(nodes) >= len(PIECES)
    await site.open(page, f"/search/{hostile.id}/tree")
    outline = page.get_by_role("tree", name="Outline of the tree")
    await expect(outline.get_by_role("treeitem").nth(1)).to_be_visible()
    await outline.focus()
    panel = page.get_by_role("complementary", name="Selected node")
    for _ in nodes:
        await page.keyboard.press("ArrowDown")
        await expect(outline.get_by_role("treeitem", selected=True)).to_be_attached()
        await assert_harmless(page)
    planted = next(node for node in nodes if PIECES[0] in node["text"])
    await site.open(page, f"/search/{hostile.id}/node/{planted['id']}")
    await expect(panel).to_contain_text(PIECES[0])
    await assert_harmless(page)


async def test_it_arrives_as_events_too(site: Site, page: Page) -> None:
    await site.open(page)
    await page.get_by_label("Problem").fill(PROBLEM)
    await page.get_by_role("button", name="Begin the search").click()
    await expect(page).to_have_url(re.compile("#/search/"))
    await expect(page.get_by_role("region", name="Program")).to_be_visible()
    await assert_harmless(page)
    await site.stack.until(page.url.rpartition("/")[2], lambda found: found.ended_at is not None)
    await assert_harmless(page)


async def test_it_does_not_make_a_phone_scroll_sideways(
    site: Site, open_page: OpenPage, hostile: SearchResult
) -> None:
    page = await open_page("dark", PHONE)
    for path in (
        f"/search/{hostile.id}",
        f"/search/{hostile.id}/tree",
        "/history",
        f"/compare?a={hostile.id}&b={hostile.id}",
    ):
        await site.open(page, path)
        await page.wait_for_timeout(700)
        await assert_fits(page)
