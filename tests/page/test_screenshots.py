"""Screenshots for README and docs, from the real stack: `make screenshots` writes docs/images anew.

They are no part of `make test-page`: what nano finds differs a little from run to run, and so would the files.
"""

import io
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from PIL import Image
from playwright.async_api import Browser, Page, expect

from tests.page.browser import DESKTOP, Scheme
from tests.page.site import Site
from tests.running_stack import ROOT
from tests.small_rounds import FEW, Rounds, running_rounds

IMAGES = ROOT / "docs" / "images"
MOST_BYTES = 1_500_000
"""Of all of them together."""
SCALE = 1.5
COLOURS = 96
"""Of a file's palette: enough for anti-aliased text in a dozen colours."""
SETTLE_MS = 1500
ROUNDS, ROUND_SECONDS = 2, 900.0
SCHEMES: tuple[Scheme, ...] = ("light", "dark")
EXAMPLE = "What is the least common multiple of 12 and 47?"
"""Of a kind that nano was made for."""
WIDE = {"rollouts": 48, "early_stop": False}


@pytest.fixture(scope="module", autouse=True)
def _asked_for(request: pytest.FixtureRequest) -> None:
    if not request.config.getoption("--screenshots"):
        pytest.skip("make screenshots takes them")


@dataclass(frozen=True)
class Camera:
    """Takes a view in light and dark, as a PNG with a small palette."""

    browser: Browser

    async def take(self, name: str, address: str, key: str) -> None:
        """Write docs/images/NAME-light.png and NAME-dark.png."""
        for scheme in SCHEMES:
            context = await self.browser.new_context(
                color_scheme=scheme, viewport=DESKTOP, device_scale_factor=SCALE, reduced_motion="reduce"
            )
            page = await context.new_page()
            mark = "&" if "?" in address else "?"
            await page.goto(f"{address}{mark}key={key}")
            await self._settled(page)
            picture = await page.screenshot()
            await context.close()
            image = Image.open(io.BytesIO(picture)).convert("RGB")
            small = image.quantize(colors=COLOURS, method=Image.Quantize.MEDIANCUT, dither=Image.Dither.NONE)
            small.save(IMAGES / f"{name}-{scheme}.png", optimize=True)

    async def _settled(self, page: Page) -> None:
        await expect(page.locator("main h1").first).to_be_attached()
        await expect(page.locator(".spinner")).to_have_count(0)
        await page.wait_for_timeout(SETTLE_MS)
        for fit in await page.get_by_role("button", name="Fit", exact=True).all():
            await fit.click()
        await page.evaluate("() => { document.activeElement?.blur(); scrollTo(0, 0); }")


@pytest.fixture(scope="module")
async def camera(browser: Browser) -> Camera:
    """Ready to write."""
    IMAGES.mkdir(parents=True, exist_ok=True)
    return Camera(browser)


@pytest.fixture(scope="module")
async def rounds(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Rounds]:
    """A stack that has run some small rounds of nano."""
    async with running_rounds(tmp_path_factory.mktemp("rounds")) as running:
        for _ in range(ROUNDS):
            view = await running.begin("nano", train=FEW)
            await running.until(view, lambda found: found.ended_at is not None, ROUND_SECONDS)
        yield running


@pytest.mark.timeout(900)
async def test_ask_answer_tree_compare(site: Site, camera: Camera) -> None:
    solved = await site.solve(EXAMPLE, parameters=WIDE, seed=3)
    other = await site.solve(EXAMPLE, strategy="best_of_n", parameters={"rollouts": 16}, seed=3)
    nodes = await site.stack.nodes(solved.id)
    ends = [node for node in nodes if node["answer"] is not None and node["answer"] == solved.answer]
    shown = max(ends or nodes, key=lambda node: node["visits"])["id"]
    await camera.take("ask", f"{site.url}/#/?from={solved.id}", site.key)
    await camera.take("answer", f"{site.url}/#/search/{solved.id}", site.key)
    await camera.take("tree", f"{site.url}/#/search/{solved.id}/node/{shown}", site.key)
    await camera.take("compare", f"{site.url}/#/compare?a={solved.id}&b={other.id}", site.key)


@pytest.mark.timeout(3600)
async def test_rounds(rounds: Rounds, camera: Camera) -> None:
    await camera.take("rounds", f"{rounds.stack.urls.search}/#/rounds", rounds.stack.urls.key)


def test_all_of_them_are_small() -> None:
    sizes = {path.name: path.stat().st_size for path in Path(IMAGES).glob("*.png")}
    assert len(sizes) == 5 * len(SCHEMES)
    assert sum(sizes.values()) <= MOST_BYTES, sizes
