"""A real Chromium, and what a test sees of it: errors, violations of the CSP, bytes, accessibility, widths."""

import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass, field
from importlib import resources
from typing import Any, Literal

from playwright.async_api import (
    Browser,
    BrowserContext,
    ConsoleMessage,
    Error,
    Page,
    Playwright,
    ViewportSize,
)

Scheme = Literal["light", "dark"]

DISTRIBUTION = ("chromium", "chromium-browser", "google-chrome-stable", "google-chrome")
PHONE: ViewportSize = {"width": 360, "height": 740}
DESKTOP: ViewportSize = {"width": 1280, "height": 800}
SERIOUS = ("serious", "critical")
_REPORT_VIOLATIONS = """
document.addEventListener('securitypolicyviolation', (event) => {
  window.ratchetSawViolation(`${event.violatedDirective}: ${event.blockedURI || event.sample}`);
});
"""
_TOO_WIDE = """
() => {
  const wide = document.documentElement.clientWidth;
  const over = [...document.querySelectorAll('body *')].filter((each) => {
    const box = each.getBoundingClientRect();
    return box.width > 0 && box.right > wide + 1 && getComputedStyle(each).position !== 'fixed';
  });
  return document.documentElement.scrollWidth > wide
    ? over.slice(0, 5).map((each) => `${each.tagName}.${each.className} to ${each.getBoundingClientRect().right} of ${wide}`)
    : null;
}
"""
_OUT_OF_REACH = """
() => {
  const controls = 'a[href], button, input, select, textarea, summary, [tabindex="0"]';
  const lost = [];
  for (const each of document.querySelectorAll(controls)) {
    if (!each.checkVisibility({visibilityProperty: true, opacityProperty: true})) continue;
    each.focus({preventScroll: true});  // What is hidden until the keyboard comes to it.
    each.scrollIntoView({block: 'center', inline: 'center', behavior: 'instant'});
    const box = each.getBoundingClientRect();
    if (box.width <= 1 || box.height <= 1) continue;  // for screen readers alone
    const x = Math.max(box.left, 0) + (Math.min(box.right, innerWidth) - Math.max(box.left, 0)) / 2;
    const y = Math.max(box.top, 0) + (Math.min(box.bottom, innerHeight) - Math.max(box.top, 0)) / 2;
    const hit = document.elementFromPoint(x, y);
    const label = each.labels?.[0];
    if (hit && (each.contains(hit) || hit.contains(each) || label?.contains(hit))) continue;
    lost.push(`${each.tagName} "${(each.textContent || each.name || each.ariaLabel || '').trim().slice(0, 40)}"`);
  }
  document.activeElement.blur();
  scrollTo(0, 0);
  return lost;
}
"""


def find_chromium() -> str | None:
    """The distribution's browser; None: there is none, and Playwright's own is used."""
    return next((found for name in DISTRIBUTION if (found := shutil.which(name))), None)


async def launch(playwright: Playwright) -> Browser:
    """Start Chromium: the distribution's, otherwise Playwright's own, which is downloaded where it is missing."""
    # Chromium's own sandbox cannot be had as root.
    arguments = ["--no-sandbox"] if os.geteuid() == 0 else []
    try:
        return await playwright.chromium.launch(executable_path=find_chromium(), args=arguments)
    except Error as error:
        if "Executable doesn't exist" not in error.message:
            raise
    print("ratchet: no Chromium on the PATH; Playwright downloads its own (about 150 MB)", file=sys.stderr)
    done = subprocess.run([sys.executable, "-m", "playwright", "install", "chromium"], check=False)
    if done.returncode != 0:
        raise RuntimeError(
            "Chromium could not be downloaded. Install one (Debian, Ubuntu: apt install chromium) and try again."
        )
    return await playwright.chromium.launch(args=arguments)


@dataclass
class Watch:
    """What went wrong in a page: each of it fails the test, unless the test says that it expects it."""

    seen: list[str] = field(default_factory=list)
    _expected: list[re.Pattern[str]] = field(default_factory=list)

    def expect(self, pattern: str) -> None:
        """Chromium writes a failed request to the console: a test that causes one says so."""
        self._expected.append(re.compile(pattern))

    @property
    def faults(self) -> list[str]:
        """What nobody expected."""
        return [each for each in self.seen if not any(known.search(each) for known in self._expected)]

    async def follow(self, context: BrowserContext) -> None:
        """Watch all pages of a context."""

        def on_console(message: ConsoleMessage) -> None:
            if message.type == "error":
                self.seen.append(f"console: {message.text} ({message.location.get('url', '')})")

        await context.expose_function(
            "ratchetSawViolation", lambda text: self.seen.append(f"content security policy: {text}")
        )
        await context.add_init_script(_REPORT_VIOLATIONS)
        context.on("console", on_console)
        context.on("weberror", lambda error: self.seen.append(f"exception: {error.error}"))


@dataclass
class Transfer:
    """Bytes that the browser took from the network for a page, headers included."""

    by_url: dict[str, int] = field(default_factory=dict)
    _urls: dict[str, str] = field(default_factory=dict)

    async def follow(self, page: Page) -> None:
        """Count for this page from now on."""
        session = await page.context.new_cdp_session(page)
        session.on("Network.responseReceived", self._on_response)
        session.on("Network.loadingFinished", self._on_finished)
        await session.send("Network.enable")

    def kilobytes(self, part: str) -> float:
        """Of all URLs that hold `part`, in units of 1,024 bytes."""
        return sum(count for url, count in self.by_url.items() if part in url) / 1024

    def _on_response(self, event: dict[str, Any]) -> None:
        self._urls[event["requestId"]] = event["response"]["url"]

    def _on_finished(self, event: dict[str, Any]) -> None:
        url = self._urls.get(event["requestId"], "")
        self.by_url[url] = self.by_url.get(url, 0) + int(event["encodedDataLength"])


async def serious_findings(page: Page) -> list[str]:
    """What axe-core finds on the page as it stands, of the impact serious or critical."""
    if not await page.evaluate("() => 'axe' in window"):
        axe = resources.files("axe_playwright_python") / "axe.min.js"
        await page.evaluate(axe.read_text(encoding="utf-8"))
    found = await page.evaluate("() => axe.run(document, {resultTypes: ['violations']})")
    return [
        f"{each['impact']} {each['id']}: {each['help']} ({node['html'][:160]}; {node.get('failureSummary', '')[:300]})"
        for each in found["violations"]
        if each["impact"] in SERIOUS
        for node in each["nodes"]
    ]


async def assert_accessible(page: Page, figures: dict[str, Any]) -> None:
    """axe-core finds nothing serious on the page as it stands; what it finds is counted."""
    found = await serious_findings(page)
    figures["axe_serious"] = figures.get("axe_serious", 0) + len(found)
    assert not found, "\n".join(found)


async def assert_fits(page: Page) -> None:
    """No part of the page lies beyond its width, and no control is covered or out of reach."""
    assert (over := await page.evaluate(_TOO_WIDE)) is None, over
    assert not (lost := await page.evaluate(_OUT_OF_REACH)), lost
