"""Fixtures of the page's tests: one nano stack, one Chromium, a fresh page for each test, which has to stay without fault.

    async def test_something(site: Site, page: Page) -> None:
        search = await site.solve("1 + 1 = ?")            # asked past the page
        await site.open(page, f"/search/{search.id}")     # with the operator's key in the address
        await expect(page.get_by_role("heading", name="…")).to_be_visible()

Playwright's asynchronous API, in the session's loop, which the stack needs too. `open_page` makes pages of another width or
colour scheme; `watch.expect(pattern)` names an error of the console that a test causes; `figures` goes into the last line.
"""

import threading
from collections.abc import AsyncIterator, Awaitable, Iterator
from functools import partial
from http.server import ThreadingHTTPServer
from typing import Any, Protocol

import pytest
from playwright.async_api import Browser, Page, ViewportSize, async_playwright, expect

from tests.http_double import serving
from tests.page.browser import DESKTOP, Scheme, Watch, launch
from tests.page.hostile import PROGRAMS
from tests.page.modules import PAGE, Handler
from tests.page.report import Report
from tests.page.site import Site, running_site

PATIENCE_MS = 20_000
"""How long a test waits for what it expects: two slow cores share the stack and the browser."""

expect.set_options(timeout=PATIENCE_MS)


class OpenPage(Protocol):
    """Makes a page in a context of its own: no key, nothing cached."""

    def __call__(self, scheme: Scheme = "light", viewport: ViewportSize = DESKTOP) -> Awaitable[Page]: ...


def pytest_addoption(parser: pytest.Parser) -> None:
    """`--screenshots`: write docs/images."""
    parser.addoption("--screenshots", action="store_true", help="take the screenshots of docs/images anew")


@pytest.fixture(scope="session")
def figures(request: pytest.FixtureRequest) -> dict[str, Any]:
    """What was measured, by name: it stands in the last line of `make test-page`."""
    plugins = request.config.pluginmanager.get_plugins()
    return next((plugin.figures for plugin in plugins if isinstance(plugin, Report)), {})


@pytest.fixture(scope="session")
async def site(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Site]:
    """The running stack with nano, and the page that it serves."""
    with serving() as serve:
        async with running_site(tmp_path_factory.mktemp("page"), serve, PROGRAMS) as running:
            yield running


@pytest.fixture(scope="session")
async def browser() -> AsyncIterator[Browser]:
    """Chromium."""
    async with async_playwright() as playwright:
        chromium = await launch(playwright)
        yield chromium
        await chromium.close()


@pytest.fixture
def watch() -> Watch:
    """What goes wrong in the test's pages."""
    return Watch()


@pytest.fixture
async def open_page(browser: Browser, watch: Watch) -> AsyncIterator[OpenPage]:
    """Makes the test's pages. At its end there may be no exception, console error or violation of the CSP in any of them."""
    contexts = []

    async def make(scheme: Scheme = "light", viewport: ViewportSize = DESKTOP) -> Page:
        context = await browser.new_context(color_scheme=scheme, viewport=viewport, reduced_motion="reduce")
        contexts.append(context)
        context.set_default_timeout(PATIENCE_MS)
        await watch.follow(context)
        return await context.new_page()

    yield make
    for context in contexts:
        await context.close()
    assert not watch.faults


@pytest.fixture
async def page(open_page: OpenPage) -> Page:
    """A page at desktop width, light."""
    return await open_page()


@pytest.fixture(scope="module")
def files() -> Iterator[str]:
    """Where the page's files are served from the disk."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Handler, directory=str(PAGE)))
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()
