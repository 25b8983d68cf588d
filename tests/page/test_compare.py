"""Compare: two searches side by side, only what differs; the same problem once more with another strategy."""

import re
from typing import Any

from playwright.async_api import Page, expect

from tests.page.browser import Watch
from tests.page.site import Site

PROBLEM = (
    "A library asks 29 dollars from adults and 5 dollars from children. 13 adults come. How much is that?"
)
BEST_OF_N: dict[str, Any] = {"strategy": "best_of_n", "parameters": {"rollouts": 6}, "seed": 1}
GREEDY: dict[str, Any] = {"strategy": "greedy", "parameters": {"rollouts": 6}, "seed": 1}

_DIFF = """
async ([a, b]) => {
  const {diffLines, linesOf} = await import(new URL('page/lib/compare.js', location.href).href);
  const step = (text) => ({text});
  const rows = diffLines(linesOf(a.map(step)), linesOf(b.map(step)));
  return rows.map((row) => [row.kind, row.a?.text ?? null, row.b?.text ?? null]);
}
"""


async def test_two_searches_stand_side_by_side_and_only_what_differs(site: Site, page: Page) -> None:
    one = await site.solve(PROBLEM, **BEST_OF_N)
    other = await site.solve(PROBLEM, **GREEDY)
    await site.open(page, "/history")
    for strategy in ("Best of N", "Greedy"):
        row = page.get_by_role("row").filter(has_text="29 dollars from adults").filter(has_text=strategy)
        await row.first.get_by_role("checkbox").check()
    await page.get_by_role("link", name="Compare", exact=True).last.click()
    await expect(page).to_have_url(re.compile(f"a={one.id}&b={other.id}"))
    settings = page.get_by_role("region", name="Settings")
    strategy_row = settings.get_by_role("row").filter(has_text="strategy")
    await expect(strategy_row).to_contain_text("Best of N")
    await expect(strategy_row).to_contain_text("Greedy")
    await expect(settings.get_by_role("row").filter(has_text="seed")).to_have_count(0)
    await settings.get_by_role("button", name=re.compile("the same")).click()
    await expect(settings.get_by_role("row").filter(has_text="seed")).to_be_visible()
    outcome = page.get_by_role("region", name="Outcome and cost")
    tokens = outcome.get_by_role("row").filter(has_text="Generated tokens")
    await expect(tokens).to_contain_text(f"{one.usage.policy.tokens:,}")
    await expect(tokens).to_contain_text(f"{other.usage.policy.tokens:,}")
    for name, result in (("A", one), ("B", other)):
        card = page.get_by_role("region", name=f"Search {name}")
        await expect(card).to_contain_text(result.answer or "No answer")
    trees = page.get_by_role("region", name="Trees")
    await expect(trees.locator("canvas")).to_have_count(2)
    await page.get_by_role("button", name="Swap").click()
    await expect(page).to_have_url(re.compile(f"a={other.id}&b={one.id}"))


async def test_a_search_is_run_with_another_strategy_and_compared_when_it_is_done(
    site: Site, page: Page
) -> None:
    one = await site.solve(PROBLEM, **BEST_OF_N)
    await site.open(page, f"/compare?a={one.id}")
    form = page.get_by_role("form", name="Compare A with another strategy")
    await form.get_by_label("Strategy").select_option("beam")
    await form.get_by_role("button", name="Run it").click()
    await expect(page).to_have_url(re.compile(f"a={one.id}&b=[0-9a-f-]{{36}}"))
    other_id = page.url.rpartition("b=")[2]
    other = await site.stack.until(other_id, lambda found: found.ended_at is not None)
    assert (other.problem, other.strategy, other.seed) == (one.problem, "beam", one.seed)
    assert one.asked is not None
    assert other.asked is not None
    assert (other.asked.budget, other.asked.parameters) == (one.asked.budget, one.asked.parameters)
    card = page.get_by_role("region", name="Search B")
    await expect(card.locator(".badge")).not_to_contain_text(re.compile("Running|Queued"), timeout=60_000)
    await expect(card).to_contain_text(other.answer or "No answer")


async def test_lines_that_both_programs_have_stand_beside_each_other(site: Site, page: Page) -> None:
    await site.open(page, "/compare")
    await expect(page.get_by_role("heading", name="Choose two searches")).to_be_visible()
    rows = await page.evaluate(
        _DIFF, [["a = 1\nb = 2", "c = a + b", "print(c)"], ["a = 1", "c = a - b", "print(c)\nx"]]
    )
    assert rows == [
        ["same", "a = 1", "a = 1"],
        ["changed", "b = 2", "c = a - b"],
        ["removed", "c = a + b", None],
        ["same", "print(c)", "print(c)"],
        ["added", None, "x"],
    ]


async def test_a_search_that_is_not_there_is_named(site: Site, page: Page, watch: Watch) -> None:
    watch.expect("status of 404")
    one = await site.solve(PROBLEM, **GREEDY)
    await site.open(page, f"/compare?a={one.id}&b=00000000-0000-7000-8000-000000000000")
    await expect(page.get_by_role("alert")).to_contain_text("Search B could not be loaded")
