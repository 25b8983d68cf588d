"""Branch from a node: an edited step, and one that is never taken again; the new search knows its parent."""

import re

import pytest
from playwright.async_api import Locator, Page, expect

from ratchet.contracts.search import NodeView, SearchResult
from tests.page.site import Site

PROBLEM = "A farmer has 17 sheep and buys 5 more each week for 4 weeks. How many sheep does he have?"
EDITED = "# Written by a person.\nsheep = 17 + 5 * 4"


@pytest.fixture(scope="module")
async def parent(site: Site) -> SearchResult:
    """A search that is over, with a tree."""
    return await site.solve(PROBLEM, parameters={"rollouts": 8, "early_stop": False}, seed=2)


@pytest.fixture(scope="module")
async def step(site: Site, parent: SearchResult) -> NodeView:
    """A first step that other steps follow."""
    nodes = [NodeView.model_validate(each) for each in await site.stack.nodes(parent.id)]
    root = next(node.id for node in nodes if node.parent is None)
    followed = {node.parent for node in nodes}
    return next(node for node in nodes if node.parent == root and node.id in followed)


async def open_dialog(site: Site, page: Page, search_id: str, node_id: str) -> Locator:
    """The dialog of a node, opened from its panel."""
    await site.open(page, f"/search/{search_id}/node/{node_id}")
    await page.get_by_role("button", name="Branch from here").click()
    dialog = page.get_by_role("dialog", name="Branch from this step")
    await expect(dialog).to_be_visible()
    return dialog


async def begin(page: Page, dialog: Locator, parent: SearchResult) -> str:
    """Begin the new search; its id."""
    await dialog.get_by_role("button", name="Begin the search").click()
    await expect(page).to_have_url(re.compile(f"#/search/(?!{parent.id})[0-9a-f-]{{36}}/tree"))
    found = re.search("search/([0-9a-f-]{36})", page.url)
    assert found is not None
    return found[1]


async def test_a_step_is_edited_and_the_search_goes_on_from_it(
    site: Site, page: Page, parent: SearchResult, step: NodeView
) -> None:
    dialog = await open_dialog(site, page, parent.id, step.id)
    await dialog.get_by_label("Edit this step").check()
    await dialog.get_by_label("The step", exact=True).fill(EDITED)
    child = await begin(page, dialog, parent)
    over = await site.stack.until(child, lambda found: found.ended_at is not None)
    assert over.parent is not None
    assert (over.parent.search, over.parent.node) == (parent.id, step.id)
    nodes = await site.stack.nodes(child)
    root = next(node["id"] for node in nodes if node["parent"] is None)
    assert EDITED in [node["text"].strip() for node in nodes if node["parent"] == root]
    await expect(page.get_by_role("treeitem").filter(has_text="sheep = 17 + 5 * 4").first).to_be_visible()
    await page.get_by_role("link", name="Branched from another search").click()
    await expect(page).to_have_url(re.compile(f"#/search/{parent.id}/node/{step.id}"))


async def test_a_step_that_is_forbidden_is_not_taken_again(
    site: Site, page: Page, parent: SearchResult, step: NodeView
) -> None:
    dialog = await open_dialog(site, page, parent.id, step.id)
    await dialog.get_by_label("Forbid this step").check()
    child = await begin(page, dialog, parent)
    await site.stack.until(child, lambda found: found.ended_at is not None)
    nodes = await site.stack.nodes(child)
    root = next(node["id"] for node in nodes if node["parent"] is None)
    assert step.text not in [node["text"] for node in nodes if node["parent"] == root]
    await site.open(page, "/history")
    row = page.get_by_role("row").filter(has_text="17 sheep").first
    await expect(row.get_by_role("link", name="branched from another search")).to_be_visible()
