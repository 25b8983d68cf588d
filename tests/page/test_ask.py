"""Ask: from a problem to an answer with what stands behind it; what is wrong stands beside its field; without a mouse."""

import re

from playwright.async_api import Locator, Page, expect

from tests.page.browser import Watch
from tests.page.site import Site

PROBLEM = "A shelf has 7 rows with 6 eggs in each row. How many eggs are on the shelf?"
BEGIN = "Begin the search"
MOST_TABS = 80


async def tab_to(page: Page, target: Locator) -> None:
    """Press Tab until the focus is there, as somebody without a mouse does."""
    for _ in range(MOST_TABS):
        if await target.evaluate("each => each === document.activeElement"):
            return
        await page.keyboard.press("Tab")
    focused = await page.evaluate("document.activeElement.outerHTML.slice(0, 200)")
    raise AssertionError(f"Tab does not come to {target}; the focus is on {focused}")


async def test_a_problem_is_asked_and_answered(site: Site, page: Page) -> None:
    await site.open(page)
    await page.get_by_label("Problem").fill(PROBLEM)
    await page.get_by_role("button", name=BEGIN).click()
    await expect(page).to_have_url(re.compile("#/search/[0-9a-f-]{36}$"))
    search_id = page.url.rpartition("/")[2]
    await expect(page.get_by_role("heading", level=1)).to_have_text(PROBLEM)
    answer = page.get_by_role("region", name="Answer", exact=True)
    await expect(answer).to_be_visible(timeout=60_000)
    result = await site.stack.result(search_id)
    assert result.answer is not None
    assert result.verification is not None
    await expect(answer).to_contain_text(result.answer)
    steps = page.get_by_role("region", name="Program").get_by_role("listitem")
    await expect(steps).to_have_count(len(result.steps))
    for number, step in enumerate(result.steps):
        await expect(steps.nth(number)).to_contain_text(step.text.splitlines()[-1])
        if step.stdout.strip():
            await expect(steps.nth(number)).to_contain_text(step.stdout.strip())
    behind = page.get_by_role("region", name="What stands behind the answer")
    await expect(behind).to_contain_text(f"{result.verification.votes} of {result.verification.total_votes}")
    cost = page.get_by_role("region", name="Cost and models")
    await expect(cost).to_contain_text(f"{result.usage.policy.tokens:,} token")
    await expect(cost).to_contain_text(result.models["policy"])
    async with page.expect_download() as download:
        await page.get_by_role("button", name="Download Proof").click()
    proof = (await (await download.value).path()).read_bytes()
    assert proof == (await site.stack.http.get(f"/search/{search_id}/proof")).content


async def test_what_is_wrong_is_said_beside_its_field_by_the_page_and_by_the_api(
    site: Site, page: Page, watch: Watch
) -> None:
    await site.open(page)
    await page.get_by_role("button", name=BEGIN).click()
    problem = page.get_by_label("Problem")
    await expect(problem).to_have_attribute("aria-invalid", "true")
    await expect(problem).to_be_focused()
    await expect(page.get_by_text("Write down a problem.")).to_be_visible()
    # What only the API knows to be wrong.
    watch.expect("status of 422")
    await problem.fill(PROBLEM)
    await page.locator("summary", has_text="Advanced").click()
    await page.get_by_label("Tokens").fill("-5")
    await page.get_by_label("Temperature").fill("warm")
    await page.get_by_label("Policy version").fill("no such version")
    await page.get_by_role("button", name=BEGIN).click()
    for name in ("Tokens", "Temperature", "Policy version"):
        field = page.get_by_label(name)
        await expect(field).to_have_attribute("aria-invalid", "true")
        described = (await field.get_attribute("aria-describedby") or "").split()
        said = await page.locator(f"#{described[-1]}").inner_text()
        assert len(said) > 8, name
        assert "[object" not in said
    await expect(page).to_have_url(re.compile("#/$"))
    await expect(problem).to_have_value(PROBLEM)


async def test_from_question_to_answer_to_tree_without_a_mouse(site: Site, page: Page) -> None:
    await site.open(page)
    problem = page.get_by_label("Problem")
    await tab_to(page, problem)
    await page.keyboard.type(PROBLEM)
    await tab_to(page, page.get_by_role("button", name=BEGIN))
    await page.keyboard.press("Enter")
    await expect(page.get_by_role("region", name="Answer", exact=True)).to_be_visible(timeout=60_000)
    await tab_to(
        page, page.get_by_role("navigation", name="Parts of the search").get_by_role("link", name="Tree")
    )
    await page.keyboard.press("Enter")
    outline = page.get_by_role("tree", name="Outline of the tree")
    await expect(outline.get_by_role("treeitem").nth(1)).to_be_visible()
    await tab_to(page, outline)
    await page.keyboard.press("ArrowDown")
    chosen = outline.get_by_role("treeitem", selected=True)
    await expect(chosen).to_have_attribute("aria-level", "2")
    await expect(page).to_have_url(re.compile("/node/"))
    step = (await chosen.locator(".tree-text").inner_text()).partition(" → ")[0]
    await expect(page.get_by_role("complementary", name="Selected node")).to_contain_text(step)
