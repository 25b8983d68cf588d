"""The page as a person reaches it: a nano stack that can be restarted, behind a proxy that can lose connections."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
from playwright.async_api import Page

from ratchet.contracts.search import SearchResult
from ratchet.stack.ports import free_ports
from ratchet.states import SEARCH_TRANSITIONS, is_end
from tests.http_double import Serve
from tests.page.proxy import Proxy, proxying
from tests.page.scripted_policy import Programs, scripted_policy
from tests.running_stack import Running, running_stack

NANO = Path("nano")
LONG: dict[str, Any] = {
    # No natural end within a test.
    "strategy": "majority",
    "parameters": {"rollouts": 4096, "early_stop": False, "temperature": 1.3, "top_p": 1.0},
    "budget": {"tokens": 10_000_000, "seconds": 300, "nodes": 1_000_000},
}


@dataclass
class Site:
    """A running stack with the page. `url` stays the same when the stack is restarted."""

    data: Path
    ports: dict[str, int]
    policy_url: str
    proxy: Proxy
    _running: Running | None = None
    _held: AsyncExitStack = field(default_factory=AsyncExitStack)

    @property
    def url(self) -> str:
        """Where the browser asks: the proxy."""
        return self.proxy.url

    @property
    def stack(self) -> Running:
        """The stack that runs now. `stack.http` asks the API past the proxy, with the operator's key."""
        assert self._running is not None, "the stack is stopped"
        return self._running

    @property
    def key(self) -> str:
        """The operator's key, of the scope admin."""
        return self.stack.urls.key

    async def start(self) -> None:
        """Bring the stack up, with what it knew before."""
        self._running = await self._held.enter_async_context(
            running_stack(
                self.data,
                NANO,
                ports=self.ports,
                policy_url=self.policy_url,
                poll_seconds="0.2",
                lease_seconds="3",
            )
        )

    async def stop(self) -> None:
        """End the stack as Ctrl-C does."""
        self._running = None
        await self._held.aclose()

    async def restart(self) -> None:
        """Stop it and start it."""
        await self.stop()
        await self.start()

    async def open(self, page: Page, path: str = "/", *, with_key: bool = True) -> None:
        """Show a view of the page, such as `/history`; wait until it has its heading."""
        mark = "&" if "?" in path else "?"
        await page.goto(f"{self.url}/#{path}{f'{mark}key={self.key}' if with_key else ''}")
        await page.locator("main h1").first.wait_for()

    async def begin(self, problem: str, **changes: Any) -> str:
        """Id of a new search, begun past the page."""
        return await self.stack.begin(problem, **changes)

    async def solve(self, problem: str, **changes: Any) -> SearchResult:
        """A search up to its end, past the page."""
        return await self.stack.solve(problem, **changes)

    async def cancel(self, search_id: str) -> None:
        """Call a search off and wait for its end, so that the next test has the worker."""
        response = await self.stack.http.delete(f"/search/{search_id}")
        assert response.status_code in (200, 202), response.text
        await self.stack.until(search_id, lambda found: is_end(SEARCH_TRANSITIONS, found.state))


@contextlib.asynccontextmanager
async def running_site(data: Path, serve: Serve, programs: Programs) -> AsyncIterator[Site]:
    """The page of a nano stack in the folder `data`; problems in `programs` are answered by the script."""
    search, policy = free_ports(2)
    tap = serve(scripted_policy(f"http://127.0.0.1:{policy}", programs))
    async with proxying("127.0.0.1", search) as proxy:
        site = Site(data, {"search": search, "policy": policy}, tap, proxy)
        await site.start()
        try:
            await _models_known(site)
            yield site
        finally:
            await site.stop()


async def _models_known(site: Site) -> None:
    """Wait until the trainer knows what serves: a round could not begin before."""
    stack = site.stack
    async with (
        httpx.AsyncClient(
            base_url=stack.urls.trainer, auth=stack.keys, timeout=60, trust_env=False
        ) as trainer,
        asyncio.timeout(60),
    ):
        while not (await trainer.get("/models", params={"state": "serving"})).json()["models"]:
            await asyncio.sleep(0.1)
