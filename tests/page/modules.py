"""Modules of the page, run in Chromium as they are served: no stack, no build."""

import asyncio
from http.server import SimpleHTTPRequestHandler
from pathlib import Path
from typing import Any, Protocol

from playwright.async_api import Page

import services.search

PAGE = Path(services.search.__file__).parent / "page"


class Run(Protocol):
    """Runs a JavaScript function in a page that holds the modules' exports as `t`, and gives back what it returns."""

    async def __call__(self, function: str, argument: Any = None) -> Any: ...


class Handler(SimpleHTTPRequestHandler):
    def do_GET(self) -> None:
        """An empty page at `/`, the page's files below it."""
        if self.path != "/":
            return super().do_GET()
        self.send_response(200)
        self.send_header("Content-Type", "text/html")
        self.end_headers()
        self.wfile.write(b"<!doctype html><title>t</title><link rel=icon href=data:>")
        return None

    def log_message(self, *_: Any) -> None:
        """Say nothing."""


async def run_modules(page: Page, files: str, modules: str) -> Run:
    """See Run. `modules` is the function that loads them."""
    await page.goto(f"{files}/")
    await page.evaluate(modules)

    async def evaluate(function: str, argument: Any = None) -> Any:
        async with asyncio.timeout(60):
            return await page.evaluate(function, argument)

    return evaluate
