"""History: found again by text, state, level and model; cancelled and tried again in the row; there after a restart."""

import re

from playwright.async_api import Page, expect

from tests.page.browser import Watch
from tests.page.site import LONG, Site

SEATS = "A train has 6 cars with 40 seats in each car. 175 seats are taken. How many seats are free?"
SHORT = {"strategy": "best_of_n", "parameters": {"rollouts": 4}}


async def test_searches_are_found_by_text_and_state_and_the_filters_stand_in_the_address(
    site: Site, page: Page
) -> None:
    found = await site.solve(
        "A hall has 9 rows of 14 chairs. 5 chairs are broken. How many are whole?", **SHORT
    )
    await site.solve(SEATS, **SHORT)
    await site.open(page, "/history")
    rows = page.get_by_role("row")
    await expect(rows.filter(has_text="A train has 6 cars").first).to_be_visible()
    await page.get_by_role("searchbox").fill("ROWS OF 14")
    await expect(rows.filter(has_text="A train has 6 cars")).to_have_count(0)
    await expect(page).to_have_url(re.compile(r"#/history\?text=ROWS"))
    await page.get_by_label("State").select_option(found.state)
    await expect(page).to_have_url(re.compile(rf"state={found.state}"))
    await page.reload()
    await expect(page.get_by_role("searchbox")).to_have_value("ROWS OF 14")
    await expect(rows.filter(has_text="9 rows of 14 chairs").first).to_be_visible()
    other = "failed" if found.state != "failed" else "cancelled"
    await page.get_by_label("State").select_option(other)
    await expect(page.get_by_role("heading", name="No search is like that")).to_be_visible()
    await page.get_by_role("link", name="Show all").click()
    await expect(rows.filter(has_text="A train has 6 cars").first).to_be_visible()


async def test_a_running_search_is_cancelled_in_its_row(site: Site, page: Page) -> None:
    search = await site.begin("Count to a very large number, in row 77.", **LONG)
    await site.open(page, "/history")
    row = page.get_by_role("row").filter(has_text="in row 77")
    await row.get_by_role("button", name="Cancel").click()
    await expect(row.get_by_text("Cancelled")).to_be_visible()
    await expect(row.get_by_role("button", name="Cancel")).to_have_count(0)
    assert (await site.stack.result(search)).state == "cancelled"


async def test_a_new_search_and_a_new_state_show_without_a_reload(site: Site, page: Page) -> None:
    await site.open(page, "/history")
    await expect(page.get_by_role("table")).to_be_visible()
    result = await site.solve("A box has 3 red and 11 blue pens, seen as news. How many pens?", **SHORT)
    row = page.get_by_role("row").filter(has_text="seen as news")
    await expect(row).to_be_visible()
    await expect(row.locator("time")).to_be_visible()
    await expect(row.locator(".badge").first).not_to_have_text("Running")
    if result.answer is not None:
        await expect(row.locator("code")).to_have_text(result.answer)


async def test_earlier_searches_come_by_scrolling_and_each_once(site: Site, page: Page) -> None:
    mark = "endless list"
    for number in range(56):
        search = await site.begin(f"{mark}: what is {number} + 1?", **SHORT)
        await site.stack.http.delete(f"/search/{search}")
    await site.open(page, f"/history?text={mark}")
    rows = page.get_by_role("row").filter(has_text=mark)
    await expect(rows).to_have_count(50)
    await page.mouse.wheel(0, 20_000)
    await page.keyboard.press("End")
    await expect(rows).to_have_count(56)
    await expect(page.get_by_text("56 searches")).to_be_visible()


async def test_history_outlives_a_restart_of_the_stack(site: Site, page: Page, watch: Watch) -> None:
    result = await site.solve("A pond has 8 ducks and gets 6 more, before the restart. How many?", **SHORT)
    await site.open(page, "/history")
    row = page.get_by_role("row").filter(has_text="before the restart")
    await expect(row).to_be_visible()
    watch.expect("Failed to load resource")
    await site.restart()
    await page.reload()
    await expect(row).to_be_visible()
    await row.get_by_role("link").first.click()
    await expect(page).to_have_url(re.compile(f"#/search/{result.id}"))
    await expect(page.get_by_role("heading", level=1)).to_contain_text("before the restart")
