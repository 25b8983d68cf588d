"""For whom the page is: without serious findings of axe-core, at a phone's width, in light and dark; and what it weighs."""

from dataclasses import dataclass
from typing import Any

import pytest
from playwright.async_api import Page, expect

from tests.page.browser import (
    DESKTOP,
    PHONE,
    Scheme,
    Transfer,
    assert_accessible,
    assert_fits,
    serious_findings,
)
from tests.page.conftest import OpenPage
from tests.page.site import Site

PROBLEM = "A hall has 12 rows of 15 chairs. 8 chairs are broken. How many are whole?"
SETTLE_MS = 400
"""Views load their parts one after another: the last of them a moment after their heading."""
GOAL_KB = 300.0
VIEWS = (
    "ask",
    "answer",
    "tree",
    "node",
    "history",
    "compare",
    "rounds",
    "models",
    "evaluations",
    "unknown",
)


@dataclass(frozen=True)
class Addresses:
    """Paths of the views, by name."""

    by_name: dict[str, str]


@pytest.fixture(scope="module")
async def addresses(site: Site) -> Addresses:
    """Views with something in them."""
    one = await site.solve(PROBLEM, strategy="mcts", parameters={"rollouts": 8})
    other = await site.solve(PROBLEM, strategy="best_of_n", parameters={"rollouts": 4})
    nodes = await site.stack.nodes(one.id)
    step = next(node["id"] for node in nodes if node["parent"] is not None)
    return Addresses(
        {
            "ask": "/",
            "answer": f"/search/{one.id}",
            "tree": f"/search/{one.id}/tree",
            "node": f"/search/{one.id}/node/{step}",
            "history": "/history",
            "compare": f"/compare?a={one.id}&b={other.id}",
            "rounds": "/rounds",
            "models": "/models",
            "evaluations": "/evaluations",
            "unknown": "/no/such/view",
        }
    )


async def show(site: Site, page: Page, path: str) -> None:
    """Open a view and wait until it has come to rest."""
    await page.goto(f"{site.url}/#{path}{'&' if '?' in path else '?'}key={site.key}")
    await expect(page.locator("main").get_by_role("heading").first).to_be_attached()
    await expect(page.locator(".spinner")).to_have_count(0)
    await page.wait_for_timeout(SETTLE_MS)


@pytest.mark.parametrize("view", VIEWS)
async def test_a_view_has_no_serious_finding_and_fits_a_phone(
    site: Site, page: Page, addresses: Addresses, figures: dict[str, Any], view: str
) -> None:
    figures.setdefault("axe_serious", 0)
    found: list[str] = []
    schemes: tuple[Scheme, ...] = ("light", "dark")
    await show(site, page, addresses.by_name[view])
    for width in (DESKTOP, PHONE):
        await page.set_viewport_size(width)
        # What folds is part of the view.
        await page.evaluate(
            "() => document.querySelectorAll('details:not(.tree *)').forEach((each) => { each.open = true; })"
        )
        for scheme in schemes:
            await page.emulate_media(color_scheme=scheme)
            await page.wait_for_timeout(SETTLE_MS)
            found += [f"{scheme}, {width['width']} px: {each}" for each in await serious_findings(page)]
    await assert_fits(page)
    figures["axe_serious"] += len(found)
    assert not found, "\n".join(found)


@pytest.mark.parametrize("scheme", ["light", "dark"])
async def test_dialogs_have_no_serious_finding(
    site: Site, open_page: OpenPage, addresses: Addresses, figures: dict[str, Any], scheme: Scheme
) -> None:
    """The others are looked at where they are used, in `test_rounds.py`."""
    page = await open_page(scheme, PHONE)
    await show(site, page, "/")
    await page.get_by_role("button", name="Key", exact=True).click()
    await expect(page.get_by_role("dialog", name="API key")).to_be_visible()
    await assert_accessible(page, figures)
    await page.keyboard.press("Escape")
    await expect(page.get_by_role("dialog")).to_have_count(0)
    await show(site, page, addresses.by_name["node"])
    await page.get_by_role("button", name="Branch from here").click()
    dialog = page.get_by_role("dialog", name="Branch from this step")
    for choice in ("Edit this step", "Forbid this step"):
        await dialog.get_by_label(choice).check()
        await assert_accessible(page, figures)


async def test_the_theme_follows_the_system_until_somebody_chooses(site: Site, open_page: OpenPage) -> None:
    page = await open_page("dark")
    await show(site, page, "/")
    background = "() => getComputedStyle(document.body).backgroundColor"
    dark = await page.evaluate(background)
    await page.emulate_media(color_scheme="light")
    light = await page.evaluate(background)
    assert dark != light
    await page.get_by_role("button", name="Change to the dark theme").click()
    assert await page.evaluate(background) == dark
    await page.reload()
    await expect(page.get_by_role("button", name="Change to the light theme")).to_be_visible()
    assert await page.evaluate(background) == dark


async def test_all_of_the_page_together_weighs_little(
    site: Site, page: Page, addresses: Addresses, figures: dict[str, Any]
) -> None:
    transfer = Transfer()
    await transfer.follow(page)
    await show(site, page, "/")
    figures["first_view_kb"] = round(transfer.kilobytes(f"{site.url}/"), 1)
    for path in addresses.by_name.values():
        await show(site, page, path)
    own = {url: size for url, size in transfer.by_url.items() if url == f"{site.url}/" or "/page/" in url}
    assert any(url.endswith("/tree/canvas.js") for url in own), "views were loaded"
    figures["page_kb"] = round(sum(own.values()) / 1024, 1)
    assert figures["page_kb"] <= GOAL_KB, sorted(own.items(), key=lambda each: -each[1])[:10]
