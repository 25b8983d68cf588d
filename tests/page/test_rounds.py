"""Rounds on the page: a real nano round as it runs and once it is over, quarantine, models, evaluations.

On a stack of its own: the round changes what serves.
"""

import json
import re
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from playwright.async_api import Page, expect

from ratchet.contracts.rounds import RoundView
from ratchet.states import RoundState
from tests.page.browser import PHONE, Watch, assert_accessible, assert_fits
from tests.page.conftest import OpenPage
from tests.small_rounds import FEW, Rounds, is_over, promoted_pair, running_rounds

RUN = "on-the-page"
ROUND_SECONDS = 900.0
"""A minute on a machine with nothing else to do."""


@pytest.fixture(scope="module")
async def rounds(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Rounds]:
    """A stack that has begun no round yet."""
    async with running_rounds(tmp_path_factory.mktemp("rounds")) as running:
        yield running


@pytest.fixture(scope="module")
async def over(rounds: Rounds) -> RoundView:
    """A round that was promoted."""
    found = await rounds.until(await rounds.begin(RUN, train=FEW), is_over, ROUND_SECONDS)
    assert found.state is RoundState.PROMOTED, found.reason
    return found


async def show(rounds: Rounds, page: Page, path: str, key: str | None = None) -> None:
    """A view of this stack's page, with the operator's key."""
    mark = "&" if "?" in path else "?"
    await page.goto(f"{rounds.stack.urls.search}/#{path}{mark}key={key or rounds.stack.urls.key}")
    await page.locator("main h1").first.wait_for()


async def test_before_the_first_round_it_says_how_to_begin_one(rounds: Rounds, page: Page) -> None:
    await show(rounds, page, "/rounds")
    await expect(page.get_by_role("heading", name="No round has been begun")).to_be_visible()
    await expect(page.get_by_text("ratchet rounds run")).to_be_visible()


async def test_a_round_under_way_is_seen_paused_and_resumed_and_told_once_it_is_over(
    rounds: Rounds, page: Page, figures: dict[str, Any]
) -> None:
    await show(rounds, page, "/rounds")
    view = await rounds.begin("watched")
    await page.reload()
    live = page.get_by_role("region", name="Round 1, under way")
    await expect(live.get_by_role("progressbar")).to_be_visible()
    await live.get_by_role("button", name="Pause").click()
    dialog = page.get_by_role("dialog", name="Pause this round?")
    await expect(dialog).to_contain_text("watched")
    await assert_accessible(page, figures)
    await dialog.get_by_role("button", name="Pause").click()
    await expect(dialog).to_have_count(0)
    await expect(live.get_by_text("Paused", exact=False).first).to_be_visible()
    assert (await rounds.until(view, lambda found: found.paused)).state not in ("promoted", "failed")
    await live.get_by_role("button", name="Resume").click()
    await page.get_by_role("dialog").get_by_role("button", name="Resume").click()
    await expect(live.get_by_role("button", name="Pause")).to_be_visible()
    await live.get_by_role("button", name="Cancel").click()
    await page.get_by_role("dialog").get_by_role("button", name="Cancel").click()
    await expect(page.get_by_role("table").get_by_text("Failed", exact=True)).to_be_visible(
        timeout=ROUND_SECONDS * 1000
    )
    await expect(page.get_by_text("cancelled on request")).to_be_visible()


async def test_the_curve_the_verdict_and_the_figures_of_a_round(
    rounds: Rounds, over: RoundView, page: Page
) -> None:
    await show(rounds, page, f"/rounds?run={RUN}")
    for chart in ("Accuracy on held-out problems", "Coverage of the training problems", "Quality of the PRM"):
        await expect(page.get_by_role("heading", name=chart)).to_be_visible()
    await expect(page.get_by_role("img", name="Accuracy on held-out problems")).to_be_visible()
    assert over.metrics.evaluation is not None
    measured = over.metrics.evaluation.candidate.measured["held_out.greedy"]
    await page.get_by_text("The figures as a table").first.click()
    figures = page.get_by_role("table", name="Accuracy on held-out problems")
    await expect(figures.get_by_role("row", name=re.compile("round 1"))).to_contain_text(
        f"{measured.accuracy:.1%}"
    )
    await page.get_by_role("link", name="Round 1").first.click()
    await expect(page.get_by_role("heading", name=re.compile("Round 1 Promoted"))).to_be_visible()
    await expect(page.get_by_role("region", name="The gate")).to_contain_text("Shown to be not worse")
    assert over.metrics.label is not None
    await expect(page.get_by_role("region", name="Data")).to_contain_text(
        f"{over.metrics.label.solved} of {over.metrics.label.problems}"
    )
    for version in promoted_pair(over).values():
        await expect(page.get_by_role("link", name=version).first).to_be_visible()


async def test_a_problem_that_was_set_aside_is_looked_through_and_overruled(
    rounds: Rounds, over: RoundView, page: Page, figures: dict[str, Any]
) -> None:
    aside = await rounds.set_aside(over)
    await show(rounds, page, f"/rounds/{over.id}/quarantine")
    card = page.get_by_role("article", name=f"Problem {aside}")
    await expect(card).to_contain_text("3 independent finds")
    await card.get_by_text("Look at the programs").click()
    await expect(card.get_by_role("region", name="Program").first).to_contain_text("print")
    await card.get_by_role("button", name="Trust the reference answer").click()
    dialog = page.get_by_role("dialog", name="Trust the reference answer?")
    await expect(dialog.get_by_role("button", name="Trust it")).to_be_disabled()
    await assert_accessible(page, figures)
    await dialog.get_by_label("Why the reference answer is right").fill("I have counted <b>them</b>.")
    await dialog.get_by_role("button", name="Trust it").click()
    await expect(card).to_contain_text("Overruled: trained on again")
    await expect(card).to_contain_text("I have counted <b>them</b>.")
    listed = (await rounds.trainer.get(f"/runs/{RUN}/quarantine")).json()["problems"]
    assert [each["overruled_because"] for each in listed] == ["I have counted <b>them</b>."]


async def test_lineage_and_going_back_to_what_served_before(
    rounds: Rounds, over: RoundView, page: Page, figures: dict[str, Any]
) -> None:
    policy = promoted_pair(over)["policy"]
    assert over.metrics.models is not None
    await show(rounds, page, f"/models?version={policy}")
    lineage = page.get_by_role("region", name="Where it comes from")
    await expect(lineage).to_contain_text(over.metrics.models.base)
    assert over.metrics.selection is not None
    if policy != over.metrics.models.base:
        await expect(lineage).to_contain_text(over.metrics.selection.sha256)
    await page.get_by_role("link", name="All models").click()
    await page.get_by_role("button", name="Roll back").click()
    dialog = page.get_by_role("dialog", name="Roll back?")
    await expect(dialog).to_contain_text(over.metrics.models.policy)
    await assert_accessible(page, figures)
    await dialog.get_by_role("button", name="Roll back").click()
    await expect(dialog).to_have_count(0)
    await expect(page.get_by_role("region", name="What serves")).to_contain_text("Rolled back to")
    assert await rounds.served() == {"policy": over.metrics.models.policy, "prm": over.metrics.models.prm}


def result_file(path: Path, outcomes: str) -> Path:
    """A result file of `ratchet eval`, as far as the page reads it."""
    lines = [
        {"id": f"{place:016x}", "correct": one == "1", "source": f"mine.jsonl:{place}", "reference": "7"}
        for place, one in enumerate(outcomes)
    ]
    path.write_text("".join(json.dumps(line | {"answer": "9", "search": None}) + "\n" for line in lines))
    return path


async def test_two_evaluations_are_compared_of_a_round_and_of_files(
    rounds: Rounds, over: RoundView, page: Page, watch: Watch, tmp_path: Path
) -> None:
    # A file beside a round of other problems is refused until the other side is a file, too.
    watch.expect("status of 422")
    await show(rounds, page, f"/rounds/{over.id}")
    await page.get_by_role("link", name="Compare problem by problem").click()
    said = page.get_by_role("region", name="Comparison")
    await expect(said).to_contain_text("What the test says")
    first = page.get_by_role("region", name="First", exact=True)
    second = page.get_by_role("region", name="Second", exact=True)
    (tmp_path / "notes.jsonl").write_text("not a result\n")
    await first.get_by_label("Or result files").set_input_files(tmp_path / "notes.jsonl")
    await expect(first).to_contain_text("notes.jsonl, line 1")
    for side, outcomes in ((first, "1100000000"), (second, "0111111000")):
        file = result_file(tmp_path / f"{outcomes}.jsonl", outcomes)
        await side.get_by_label("Or result files").set_input_files(file)
        await expect(side).to_contain_text("10 problems")
    await expect(said).to_contain_text("The second solves 40.0 points more than the first.")
    # Exact McNemar of 5 against 1.
    await expect(said).to_contain_text("0.22")
    await expect(said.get_by_role("row", name=re.compile("mine.jsonl:0"))).to_contain_text("not solved")


@pytest.mark.parametrize("scheme", ["light", "dark"])
async def test_every_view_fits_a_phone_and_is_accessible(
    rounds: Rounds, over: RoundView, open_page: OpenPage, figures: dict[str, Any], scheme: Any
) -> None:
    page = await open_page(scheme, PHONE)
    assert over.metrics.models is not None
    measured = "held_out.greedy"
    for path in (
        f"/rounds?run={RUN}",
        f"/rounds/{over.id}",
        f"/rounds/{over.id}/quarantine",
        "/models",
        f"/models?version={promoted_pair(over)['policy']}",
        f"/evaluations?a={over.id}.incumbent.{measured}&b={over.id}.candidate.{measured}",
    ):
        await show(rounds, page, path)
        await expect(page.get_by_role("status").filter(has_text="Loading")).to_have_count(0)
        await assert_accessible(page, figures)
        await assert_fits(page)


async def test_a_key_that_may_only_search_is_told_how_to_get_another(
    rounds: Rounds, page: Page, watch: Watch
) -> None:
    watch.expect("status of 403")
    made = await rounds.stack.http.post("/keys", json={"name": "searcher"})
    for path in ("/rounds", "/models", "/evaluations"):
        await show(rounds, page, path, made.json()["key"])
        alert = page.get_by_role("alert")
        await expect(alert.first).to_contain_text("keys of the scope admin")
        await expect(alert.first).to_contain_text("ratchet keys create NAME --scope admin")
