"""A search as it runs: its nodes as they come, through lost connections, up to a cancel."""

import asyncio
import re
import statistics
from typing import Any

from playwright.async_api import Page, expect

from tests.page.browser import Watch
from tests.page.conftest import OpenPage
from tests.page.site import LONG, Site

COUNTED = "Count sheep, 17 and 5 more each week, for ever. How many are there?"
LOST = "Failed to load resource"
RUNS = 3
_FIRST_NODE = """
() => new Promise((resolve) => {
  const begin = [...document.querySelectorAll('button')].find((each) => each.type === 'submit');
  const there = () => document.querySelector('.answer-steps > li');
  let clicked = 0;
  const seen = () => there() && requestAnimationFrame(() => resolve(performance.now() - clicked));
  new MutationObserver(seen).observe(document.body, {childList: true, subtree: true});
  clicked = performance.now();
  begin.click();
})
"""
"""From the click to the frame after the first step is in the page."""
_FOLLOW = """
async ({searchId, seconds}) => {
  const {follow} = await import(new URL('page/lib/events.js', location.href).href);
  const {createSearchModel} = await import(new URL('page/lib/search-model.js', location.href).href);
  const model = createSearchModel();
  const [ids, states] = [[], []];
  const left = new AbortController();
  const ended = follow(searchId, {
    signal: left.signal,
    onEvent: (event) => { ids.push(event.id); model.apply(event); },
    onState: (state) => states.push(state),
  });
  await Promise.race([ended, new Promise((resolve) => setTimeout(resolve, seconds * 1000))]);
  left.abort();
  return {ids, states, over: model.over, gap: model.gap, nodes: [...model.nodes.keys()]};
}
"""
"""The page's own reader of events and its model, as a view uses them."""


async def shown_nodes(page: Page) -> int:
    """How many nodes the outline has, the problem not among them."""
    return int(await page.locator(".tree-rows").evaluate("rows => Math.round(rows.offsetHeight / 28) - 1"))


async def assert_all_shown(site: Site, page: Page, search_id: str) -> None:
    """The outline has as many rows as the stored tree has nodes, and the problem's."""
    nodes = {node["id"] for node in await site.stack.nodes(search_id) if node["parent"] is not None}
    rows = "count => document.querySelector('.tree-rows').offsetHeight / 28 - 1 === count"
    await page.wait_for_function(rows, arg=len(nodes))


async def test_nodes_appear_while_the_search_runs(site: Site, page: Page) -> None:
    search_id = await site.begin(COUNTED, **LONG)
    await site.open(page, f"/search/{search_id}/tree")
    await expect(page.get_by_text("Live", exact=True)).to_be_visible()
    await expect(page.get_by_role("treeitem").nth(1)).to_be_visible()
    first = await shown_nodes(page)
    await page.wait_for_function(
        "least => document.querySelector('.tree-rows').offsetHeight / 28 - 1 > least", arg=first
    )
    assert not (await site.stack.result(search_id)).state.startswith("solved"), "it runs on"
    await site.cancel(search_id)
    await expect(page.get_by_text("Cancelled").first).to_be_visible()
    await assert_all_shown(site, page, search_id)


async def test_a_search_is_cancelled_and_keeps_its_best_answer(site: Site, page: Page) -> None:
    search_id = await site.begin(COUNTED, **LONG)
    await site.open(page, f"/search/{search_id}")
    await expect(page.get_by_role("region", name="Program")).to_be_visible()
    await page.get_by_role("button", name="Cancel").click()
    await expect(page.get_by_text("The search was cancelled")).to_be_visible()
    await expect(page.get_by_role("button", name="Cancel")).to_have_count(0)
    result = await site.stack.result(search_id)
    assert result.state == "cancelled"
    if result.answer is not None:
        await expect(page.get_by_role("region", name="Answer", exact=True)).to_contain_text(result.answer)


async def test_a_search_that_is_over_goes_on_with_twice_its_budget(site: Site, page: Page) -> None:
    budget = {**LONG["budget"], "tokens": 2_000_000}
    search_id = await site.begin(COUNTED, **LONG | {"budget": budget})
    await site.open(page, f"/search/{search_id}/tree")
    await expect(page.get_by_role("treeitem").nth(1)).to_be_visible()
    await site.cancel(search_id)
    await expect(page.get_by_text("Cancelled").first).to_be_visible()
    first = len(await site.stack.nodes(search_id))
    await page.get_by_role("button", name="Search on").click()
    await expect(page.get_by_text("Live", exact=True)).to_be_visible()
    await page.wait_for_function(
        "least => document.querySelector('.tree-rows').offsetHeight / 28 > least", arg=first
    )
    asked = (await site.stack.result(search_id)).asked
    assert asked is not None
    assert (asked.budget.tokens, asked.budget.seconds) == (4_000_000, 600)
    await site.cancel(search_id)
    await assert_all_shown(site, page, search_id)


async def test_a_dropped_stream_is_taken_up_where_it_ended(site: Site, page: Page, watch: Watch) -> None:
    watch.expect(LOST)
    search_id = await site.begin(COUNTED, **LONG)
    await site.open(page, f"/search/{search_id}/tree")
    await expect(page.get_by_role("treeitem").nth(1)).to_be_visible()
    for _ in range(3):
        await expect(page.get_by_text("Live", exact=True)).to_be_visible()
        site.proxy.away()
        await expect(page.get_by_text("Reconnecting", exact=True)).to_be_visible()
        await asyncio.sleep(0.5)
        await site.proxy.listen()
    await expect(page.get_by_text("Live", exact=True)).to_be_visible()
    await site.cancel(search_id)
    await expect(page.get_by_text("Cancelled").first).to_be_visible()
    await assert_all_shown(site, page, search_id)


async def test_of_a_stream_that_is_cut_again_and_again_no_event_is_lost_and_none_comes_twice(
    site: Site, page: Page, watch: Watch
) -> None:
    watch.expect(LOST)
    search_id = await site.begin(COUNTED, **LONG)
    await site.open(page)
    reading = asyncio.ensure_future(page.evaluate(_FOLLOW, {"searchId": search_id, "seconds": 60}))
    cuts = 0
    while cuts < 5:
        await asyncio.sleep(1)
        # Two ends of each connection.
        cuts += site.proxy.cut() > 0
    await site.cancel(search_id)
    told: dict[str, Any] = await reading
    assert told["over"]
    assert not told["gap"]
    assert told["states"].count("connected") >= 3, told["states"]
    ids = [tuple(map(int, each.split("-"))) for each in told["ids"] if each is not None]
    assert ids == sorted(set(ids)), "each event once, and in its order"
    stored = {node["id"] for node in await site.stack.nodes(search_id)}
    assert set(told["nodes"]) - {"root"} == stored - {"root"}


async def test_the_first_node_is_soon_on_the_screen(
    site: Site, open_page: OpenPage, figures: dict[str, Any]
) -> None:
    times = []
    for _ in range(RUNS):
        page = await open_page()
        await site.open(page)
        await page.get_by_label("Problem").fill("A bus starts with 54 people. 44 get off. How many are left?")
        times.append(float(await page.evaluate(_FIRST_NODE)))
        await site.cancel(re.sub(".*/", "", page.url))
    figures["first_node_ms"] = round(statistics.median(times))
    assert statistics.median(times) < 10_000
