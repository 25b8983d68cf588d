"""`ratchet up`: the local stack in the foreground, with a live table of its parts, until Ctrl-C."""

import asyncio
import contextlib
import json
import shlex
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

if TYPE_CHECKING:
    from rich.table import Table

    from ratchet.stack.config import StackConfig, StackUrls
    from ratchet.stack.local import OnStatus
    from ratchet.stack.supervisor import ChildStatus

PREFERRED_PORT = 8000
EXAMPLE = "A farmer has 17 sheep and buys 5 more each week for 4 weeks. How many sheep does he have?"


def register(app: typer.Typer) -> None:
    """Add the command to the app."""
    app.command("up")(up)


def up(
    data: Annotated[
        Path | None, typer.Option(help="Folder of all state. Default: $RATCHET_DATA, otherwise ./.ratchet")
    ] = None,
    model: Annotated[
        str | None,
        typer.Option(
            help="Model: nano, small, medium, a local folder, or a hub id; default: the one last named in the data folder, "
            "otherwise medium, or small where memory is short."
        ),
    ] = None,
    engine: Annotated[str | None, typer.Option(help="Policy engine: auto, vllm, transformers.")] = None,
    port: Annotated[
        int | None,
        typer.Option(min=1, max=65535, help="Port of the search API. Default: 8000, or a free one."),
    ] = None,
    host: Annotated[
        str,
        typer.Option(
            help="Address that the search API binds; the rest stays on loopback. RATCHET_ALLOWED_HOSTS: more names of it."
        ),
    ] = "127.0.0.1",
    services: Annotated[
        str | None, typer.Option(help="Only these, comma-separated; an empty list: the databases alone.")
    ] = None,
    workers: Annotated[int, typer.Option(min=1, max=64, help="Search workers.")] = 1,
    sandbox: Annotated[
        Literal["process", "docker"],
        typer.Option(help="Sandbox: a process here, or a container of the Docker engine that is here."),
    ] = "process",
    open_: Annotated[
        bool, typer.Option("--open", help="Open the page in the browser, with its key, once it is up.")
    ] = False,
) -> None:
    """Start everything on this machine: databases, the five services, search workers. Ctrl-C stops it."""
    from ratchet.stack.config import SERVICES, StackConfig, default_data
    from ratchet.stack.errors import StackError
    from ratchet.stack.ports import is_free

    if port is None and is_free(PREFERRED_PORT, host):
        port = PREFERRED_PORT
    elif port is None:
        print(f"Port {PREFERRED_PORT} is taken: the search API gets a free one.", flush=True)
    config = StackConfig(
        data=data or default_data(),
        model=model,
        engine=engine,
        ports={"search": port} if port else {},
        host=host,
        search_workers=workers,
        sandbox=sandbox,
        services=SERVICES if services is None else tuple(name for name in services.split(",") if name),
    )
    try:
        asyncio.run(_until_signal(config, open_))
    except StackError as error:
        print(f"ratchet: {error}", file=sys.stderr, flush=True)
        raise typer.Exit(1) from None


async def _until_signal(config: "StackConfig", opened: bool) -> None:
    """Run the stack until SIGINT, SIGTERM or SIGHUP; a second signal ends it at once."""
    work = asyncio.create_task(_run(config, opened))
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        loop.add_signal_handler(number, work.cancel)
    with contextlib.suppress(asyncio.CancelledError):
        await work
    print("Stopped.", flush=True)


async def _run(config: "StackConfig", opened: bool) -> None:
    from ratchet.cli.page import open_page
    from ratchet.stack.local import local_stack

    with _shown() as (show, say):
        async with local_stack(config, show) as urls:
            say(_welcome(urls, config))
            if opened and "search" in config.services:
                await open_page(urls.search, urls.key, say)
            await asyncio.Event().wait()


def _welcome(urls: "StackUrls", config: "StackConfig") -> str:
    from ratchet.cli.page import page_url
    from ratchet.secret_files import ADMIN_HEADER, ADMIN_KEY
    from ratchet.stack.data_folder import SECRETS

    body = json.dumps({"problem": EXAMPLE, "wait": 300})
    data = config.data.expanduser().resolve()
    header = shlex.quote(f"@{data / SECRETS / ADMIN_HEADER}")
    if "search" not in config.services:
        return f"Ratchet is up, without a search API. Logs: {data / 'logs'}\n\nCtrl-C stops it."
    return (
        f"Ratchet is up. The page: {page_url(urls.search)} (its key: {data / SECRETS / ADMIN_KEY}; `--open` opens it with it)\n"
        f"Search API: {urls.search} (described at {urls.search}/openapi.json). Logs: {data / 'logs'}\n\n"
        f"  curl -s {urls.search}/search -H {header} -H 'content-type: application/json' -d '{body}'\n\n"
        "Ctrl-C stops it."
    )


@contextlib.contextmanager
def _shown() -> "Iterator[tuple[OnStatus, Callable[[str], None]]]":
    """How to show the children's status and a message: a live table on a terminal, plain lines elsewhere."""
    from rich.console import Console
    from rich.live import Live

    console = Console()
    if not console.is_terminal:
        yield _plain_lines(), lambda text: print(text, flush=True)
        return
    with Live(console=console, auto_refresh=False) as live:

        def show(children: "Sequence[ChildStatus]") -> None:
            live.update(_table(children), refresh=True)

        def say(text: str) -> None:
            # Above the table, unwrapped: so it stays in the scroll-back and can be copied.
            live.console.print(text, soft_wrap=True, markup=False, highlight=False)

        yield show, say


def _plain_lines() -> "OnStatus":
    """One line for each change of a child's state."""
    known: dict[str, tuple[str, int]] = {}

    def show(children: "Sequence[ChildStatus]") -> None:
        for child in children:
            now = (child.state.value, child.restarts)
            if known.get(child.name) == now or (child.name not in known and child.state == "waiting"):
                continue
            known[child.name] = now
            where = child.url or (f"port {child.port}" if child.port else "")
            note = child.note if child.state in ("backing off", "failed") else ""
            print(" ".join(filter(None, [f"{child.name}: {child.state.value}", where, note])), flush=True)

    return show


_COLOURS = {"ready": "green", "done": "green", "failed": "red", "backing off": "red", "starting": "yellow"}


def _table(children: "Sequence[ChildStatus]") -> "Table":
    from rich.table import Table
    from rich.text import Text

    table = Table(expand=True, box=None, pad_edge=False)
    for heading in ("name", "state", "pid", "where"):
        table.add_column(heading, no_wrap=True)
    for heading in ("restarts", "uptime", "memory"):
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_column("", ratio=1, no_wrap=True, overflow="ellipsis")
    for child in children:
        table.add_row(
            child.name,
            Text(child.state.value, style=_COLOURS.get(child.state.value, "dim")),
            str(child.pid or ""),
            child.url or (f"127.0.0.1:{child.port}" if child.port else ""),
            str(child.restarts or ""),
            "" if child.uptime is None else _duration(child.uptime),
            f"{child.memory / 2**20:.0f} MB" if child.memory else "",
            Text(child.note, style="dim"),
        )
    return table


def _duration(seconds: float) -> str:
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
