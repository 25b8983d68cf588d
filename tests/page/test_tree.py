"""The tree of a search: map, outline and node share one selection; filters, pause, replay, addresses, and its file."""

import json
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from playwright.async_api import Browser, Locator, Page, expect

from ratchet.contracts.search import SearchResult
from tests.page.hostile import PROBLEM as HOSTILE
from tests.page.site import LONG, Site

PROBLEM = "A farmer has 17 sheep and buys 5 more each week for 4 weeks. How many sheep does he have?"


@pytest.fixture(scope="module")
async def searched(site: Site) -> SearchResult:
    """A search that is over, with a tree of several levels."""
    parameters = {"rollouts": 24, "early_stop": False, "temperature": 1.2, "top_p": 1.0}
    return await site.solve(PROBLEM, parameters=parameters, seed=5)


async def nodes_of(site: Site, search_id: str) -> dict[str, dict[str, Any]]:
    """The stored tree by ids, the root among them."""
    return {node["id"]: node for node in await site.stack.nodes(search_id)}


def outline_of(page: Page) -> Locator:
    """The list that folds."""
    return page.get_by_role("tree", name="Outline of the tree")


async def open_tree(site: Site, page: Page, search_id: str, end: str = "tree") -> Locator:
    """Open the tree's tab and wait for its first step; the outline."""
    await site.open(page, f"/search/{search_id}/{end}")
    outline = outline_of(page)
    await expect(outline.get_by_role("treeitem").nth(1)).to_be_visible()
    return outline


async def test_the_keyboard_walks_the_outline_and_the_address_follows(
    site: Site, page: Page, searched: SearchResult
) -> None:
    outline = await open_tree(site, page, searched.id)
    selected = outline.get_by_role("treeitem", selected=True)
    panel = page.get_by_role("complementary", name="Selected node")
    await outline.focus()
    await page.keyboard.press("ArrowDown")
    await expect(selected).to_have_attribute("aria-level", "2")
    await expect(panel.get_by_role("heading", name="Step 1")).to_be_visible()
    # The row that is meant is in the page, and is named.
    meant = await outline.get_attribute("aria-activedescendant")
    assert await page.locator(f"#{meant}").get_attribute("aria-selected") == "true"
    await page.wait_for_url("**/node/*")
    node_id = page.url.rsplit("/", 1)[1]
    assert node_id in await nodes_of(site, searched.id)
    first = await selected.get_attribute("aria-label")
    await page.keyboard.press("End")
    await expect(selected).not_to_have_attribute("aria-label", str(first))
    last = await selected.get_attribute("aria-label")
    await page.keyboard.press("Home")
    await expect(selected).to_have_attribute("aria-level", "1")
    rows = page.locator(".tree-rows")
    before = await rows.evaluate("rows => rows.offsetHeight")
    await page.keyboard.press("ArrowLeft")
    await expect(selected).to_have_attribute("aria-expanded", "false")
    assert await rows.evaluate("rows => rows.offsetHeight") < before
    await page.keyboard.press("ArrowRight")
    await expect(selected).to_have_attribute("aria-expanded", "true")
    await page.keyboard.press("End")
    await expect(selected).to_have_attribute("aria-label", str(last))


async def test_an_address_leads_to_its_node_with_all_that_is_known_of_it(
    site: Site, page: Page, searched: SearchResult
) -> None:
    nodes = await nodes_of(site, searched.id)
    node = max(nodes.values(), key=lambda each: (each["visits"] > 0, each["depth"]))
    outline = await open_tree(site, page, searched.id, f"node/{node['id']}")
    panel = page.get_by_role("complementary", name="Selected node")
    await expect(panel.get_by_role("heading", name=f"Step {node['depth']}")).to_be_visible()
    await expect(panel.get_by_role("region", name="Code of the step")).to_have_text(node["text"])
    await expect(panel.locator(".tree-facts")).to_contain_text(node["id"])
    await expect(panel.locator(".tree-facts")).to_contain_text(f"{node['prm_score']:.2f}")
    await expect(panel.locator(".tree-facts")).to_contain_text(f"Visits{node['visits']}")
    await expect(panel.get_by_role("region", name="Why it was chosen")).to_contain_text("Made by task")
    await expect(outline.get_by_role("treeitem", selected=True)).to_have_attribute(
        "aria-level", str(node["depth"] + 1)
    )


async def test_what_is_clicked_on_the_map_is_selected_in_the_outline(
    site: Site, page: Page, searched: SearchResult
) -> None:
    outline = await open_tree(site, page, searched.id)
    canvas = page.locator(".tree-canvas canvas")
    await canvas.focus()
    await page.keyboard.press("ArrowRight")
    selected = outline.get_by_role("treeitem", selected=True)
    await expect(selected).to_have_attribute("aria-level", "2")
    # From far enough away to see all of it, a click somewhere meets a node: the root is at the left edge.
    await page.keyboard.press("0")
    await page.wait_for_timeout(200)
    box = await canvas.bounding_box()
    assert box is not None
    for part in range(2, 99):
        await canvas.click(position={"x": 28, "y": box["height"] * part / 100})
        if await selected.get_attribute("aria-level") == "1":
            break
    await expect(selected).to_have_attribute("aria-level", "1")


async def test_a_filter_says_how_many_it_means_and_goes_through_them(
    site: Site, page: Page, searched: SearchResult
) -> None:
    nodes = await nodes_of(site, searched.id)
    answered = [each for each in nodes.values() if each["answer"] is not None and each["state"] != "failed"]
    outline = await open_tree(site, page, searched.id)
    rows = page.locator(".tree-rows")
    height = await rows.evaluate("rows => rows.offsetHeight")
    await page.get_by_role("button", name="With answer").click()
    bar = page.get_by_role("search", name="Find and filter nodes")
    await expect(bar.get_by_role("status")).to_have_text(f"{len(answered)} found")
    await page.get_by_role("button", name="Next node that was found").click()
    await expect(bar.get_by_role("status")).to_have_text(f"1 of {len(answered)} found")
    label = await outline.get_by_role("treeitem", selected=True).get_attribute("aria-label")
    assert label is not None
    assert "matches the filter" in label
    # Nothing is laid out anew: what is not meant is dimmed.
    assert await rows.evaluate("rows => rows.offsetHeight") == height
    assert await page.locator(".tree-row.dim").count() > 0
    await page.get_by_role("button", name="With answer").click()
    await page.get_by_label("PRM below").press_sequentially("0.30")
    low = [each for each in nodes.values() if each["prm_score"] is not None and each["prm_score"] < 0.3]
    await expect(bar.get_by_role("status")).to_contain_text(f"{len(low)} found" if low else "None found")
    await bar.get_by_role("button", name="Clear").click()
    await expect(page.locator(".tree-row.dim")).to_have_count(0)
    await expect(page.get_by_label("PRM below")).to_have_value("")


async def test_the_replay_grows_the_tree_as_its_journal_tells(
    site: Site, page: Page, searched: SearchResult
) -> None:
    nodes = await nodes_of(site, searched.id)
    journal = (await site.stack.http.get(f"/search/{searched.id}/journal", params={"limit": 500})).json()[
        "tasks"
    ]
    outline = await open_tree(site, page, searched.id)
    await page.get_by_role("button", name="Replay").click()
    moment = page.get_by_role("slider", name="Moment of the search")
    await expect(moment).to_have_attribute("aria-valuetext", f"After {len(journal)} of {len(journal)} tasks")
    visits = outline.get_by_role("treeitem").first.locator(".tree-visits")
    # Told again, the tasks come to the counts that the search had.
    await expect(visits).to_have_text(f"{nodes['root']['visits']}×")
    await moment.focus()
    await page.keyboard.press("Home")
    await expect(outline.get_by_role("treeitem")).to_have_count(1)
    await page.keyboard.press("ArrowRight")
    await expect(outline.get_by_role("treeitem")).to_have_count(1 + len(journal[0]["made"]))
    await expect(visits).to_have_text("1×")
    await page.get_by_label("Speed").select_option("100")
    await page.get_by_role("button", name="Play", exact=True).click()
    await expect(moment).to_have_attribute("aria-valuetext", f"After {len(journal)} of {len(journal)} tasks")
    await page.get_by_role("button", name="End replay").click()
    await expect(page.get_by_role("button", name="Replay", exact=True)).to_be_visible()


async def test_a_paused_tree_counts_what_waits(site: Site, page: Page) -> None:
    search_id = await site.begin("How many? 12 + 30", **LONG)
    try:
        outline = await open_tree(site, page, search_id)
        await page.get_by_role("button", name="Pause", exact=True).click()
        size = "rows => rows.offsetHeight"
        rows = page.locator(".tree-rows")
        await expect(page.get_by_text("waiting")).to_be_visible()
        paused = await rows.evaluate(size)
        await page.wait_for_timeout(1500)
        assert await rows.evaluate(size) == paused
        await page.get_by_role("button", name="Go on").click()
        await page.wait_for_function(
            f"before => ({size})(document.querySelector('.tree-rows')) > before", arg=paused
        )
        await expect(outline).to_be_visible()
    finally:
        await site.cancel(search_id)


async def test_texts_that_events_cut_are_loaded_whole_when_they_are_looked_at(site: Site, page: Page) -> None:
    search_id = await site.begin(
        HOSTILE, strategy="best_of_n", parameters={"rollouts": 14, "early_stop": False}
    )
    outline = await open_tree(site, page, search_id)
    await expect(page.locator(".search-head")).to_contain_text("Answered")
    nodes = await nodes_of(site, search_id)
    long = next(each for each in nodes.values() if "W" * 3000 in each["text"])
    await page.get_by_label("Find nodes by text").fill("W" * 200)
    await page.get_by_label("Find nodes by text").press("Enter")
    await expect(outline.get_by_role("treeitem", selected=True)).to_have_attribute(
        "aria-level", str(long["depth"] + 1)
    )
    code = page.get_by_role("region", name="Code of the step")
    await expect(code).to_have_text(long["text"])


async def test_the_file_shows_the_tree_without_a_server_and_keeps_no_key(
    site: Site, page: Page, browser: Browser, tmp_path: Path
) -> None:
    result = await site.solve(HOSTILE, strategy="best_of_n", parameters={"rollouts": 16, "early_stop": False})
    nodes = await nodes_of(site, result.id)
    await open_tree(site, page, result.id)
    async with page.expect_download() as download:
        await page.get_by_role("button", name="Save as file").click()
    file = tmp_path / "tree.html"
    await (await download.value).save_as(file)
    text = file.read_text(encoding="utf-8")
    assert site.key not in text
    assert json.dumps(site.url)[1:-1] not in text

    context = await browser.new_context(offline=True, viewport={"width": 1280, "height": 800})
    try:
        alone = await context.new_page()
        faults: list[str] = []
        asked: set[str] = set()
        alone.on("console", lambda message: faults.append(message.text) if message.type == "error" else None)
        alone.on("pageerror", lambda error: faults.append(str(error)))
        alone.on("request", lambda request: asked.add(urlsplit(request.url).scheme))
        await alone.goto(file.as_uri())
        outline = outline_of(alone)
        await expect(outline.get_by_role("treeitem").nth(1)).to_be_visible()
        assert await alone.locator(".tree-rows").evaluate("rows => rows.offsetHeight / 28") == len(nodes)
        # The layout came from a worker: the map has a node that can be walked to.
        await alone.wait_for_function("() => performance.getEntriesByName('tree-first-node').length > 0")
        assert len(alone.workers) == 1
        await outline.focus()
        await alone.keyboard.press("End")
        await expect(alone.get_by_role("region", name="Code of the step")).to_be_visible()
        await expect(alone.get_by_role("button", name="Branch from here")).to_have_count(0)
        await alone.get_by_role("button", name="Replay").click()
        await alone.get_by_role("slider", name="Moment of the search").press("Home")
        await expect(outline.get_by_role("treeitem")).to_have_count(1)
        assert await alone.evaluate("() => window.hacked") is None
        assert not faults
        assert asked <= {"file", "blob"}
    finally:
        await context.close()
