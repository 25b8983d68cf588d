"""Errors of the API in words: a wrong key, what is not there, a service that goes away and comes back."""

import re

from playwright.async_api import Page, expect

from tests.page.browser import Watch
from tests.page.site import LONG, Site

UNKNOWN = "00000000-0000-7000-8000-000000000000"
REFUSED = "status of 401"
AWAY = "Failed to load resource"


async def test_a_wrong_key_is_asked_for_again_and_the_view_comes_once_it_is_right(
    site: Site, page: Page, watch: Watch
) -> None:
    watch.expect(REFUSED)
    await page.goto(f"{site.url}/#/history?key=wrong")
    dialog = page.get_by_role("dialog", name="API key")
    await expect(dialog).to_be_visible()
    assert "wrong" not in page.url, "a key stays in no address"
    await dialog.get_by_label("Key").fill("still-wrong")
    await dialog.get_by_role("button", name="Use this key").click()
    await expect(dialog).to_contain_text("This key is not in force here.")
    await dialog.get_by_label("Key").fill(site.key)
    await dialog.get_by_role("button", name="Use this key").click()
    await expect(dialog).to_have_count(0)
    await expect(page.get_by_role("alert")).to_have_count(0)
    await expect(page.get_by_role("heading", name="History")).to_be_visible()
    await page.reload()
    await expect(page.get_by_role("heading", name="History")).to_be_visible()
    await expect(dialog).to_have_count(0)


async def test_without_a_key_it_is_asked_for(site: Site, page: Page, watch: Watch) -> None:
    watch.expect(REFUSED)
    await page.goto(f"{site.url}/#/history")
    await expect(page.get_by_role("dialog", name="API key")).to_be_visible()


async def test_what_is_not_there_is_said_with_a_way_on(site: Site, page: Page, watch: Watch) -> None:
    watch.expect("status of 4(04|22)")
    for path in (f"/search/{UNKNOWN}", "/search/not-an-id", f"/search/{UNKNOWN}/tree"):
        await site.open(page, path)
        await expect(page.get_by_role("heading", name="There is no such search")).to_be_visible()
        await expect(page.get_by_role("link", name="All searches")).to_be_visible()
    await page.goto(f"{site.url}/#/no/such/view")
    await expect(page.get_by_role("heading", name="There is no such view")).to_be_visible()


async def test_what_was_typed_outlives_a_service_that_is_away(site: Site, page: Page, watch: Watch) -> None:
    watch.expect(AWAY)
    await site.open(page)
    problem = "A pond has 3 ducks while nobody answers. 4 more come. How many are there?"
    await page.get_by_label("Problem").fill(problem)
    begin = page.get_by_role("button", name="Begin the search")
    site.proxy.away()
    try:
        await begin.click()
        await expect(page.get_by_role("alert")).to_contain_text("Is it running")
        await expect(page.get_by_label("Problem")).to_have_value(problem)
    finally:
        await site.proxy.listen()
    await begin.click()
    await expect(page).to_have_url(re.compile("#/search/[0-9a-f-]{36}"))
    await site.cancel(page.url.rpartition("/")[2])


async def test_the_list_stays_while_the_service_is_away_and_goes_on_when_it_is_back(
    site: Site, page: Page, watch: Watch
) -> None:
    watch.expect(AWAY)
    few = {"strategy": "greedy"}
    await site.solve("What is 4 + 9, asked before it went away?", **few)
    await site.open(page, "/history")
    before = page.get_by_role("row").filter(has_text="before it went away")
    await expect(before.first).to_be_visible()
    site.proxy.away()
    try:
        await site.solve("What is 5 + 9, asked while it was away?", **few)
        async with page.expect_event("requestfailed"):
            pass
        await expect(before.first).to_be_visible()
        await page.get_by_label("State").select_option("failed")
        await expect(page.get_by_role("alert")).to_contain_text("The searches could not be loaded")
    finally:
        await site.proxy.listen()
    await page.get_by_role("button", name="Try again").click()
    await expect(page.get_by_role("alert")).to_have_count(0)
    await page.get_by_label("State").select_option("")
    await expect(page.get_by_role("row").filter(has_text="while it was away").first).to_be_visible()


async def test_a_search_api_that_dies_is_back_and_its_followers_go_on(
    site: Site, page: Page, watch: Watch
) -> None:
    watch.expect(AWAY)
    search_id = await site.begin("Count for ever while the API dies. How many are there?", **LONG)
    await site.open(page, f"/search/{search_id}")
    await expect(page.get_by_text("Live", exact=True)).to_be_visible()
    await site.stack.kill("search")
    await expect(page.get_by_text("Live", exact=True)).to_be_visible(timeout=60_000)
    await site.cancel(search_id)
    await expect(page.get_by_text("The search was cancelled")).to_be_visible()
