"""How a command reaches the services, and how it ends.

`connected` gives the service at `--url`, else the running stack of the data folder, else a local stack that lives as
long as the command, of the services that the command asks: to look at what is stored loads no model, and begins no work.
`run` turns every way in which a command can end into an exit code and a message, never a
traceback: 2 the command was used wrongly, 3 the system failed, 130 interrupted; 0 and 1 are the command's own.
"""

import asyncio
import contextlib
import logging
import os
import signal
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path
from urllib.parse import urlsplit

import structlog
import typer
from rich.console import Console

from ratchet.cli.display import clean
from ratchet.clients import PolicyClient, PrmClient, SearchClient, ServiceError, TrainerClient
from ratchet.settings import read_secret
from ratchet.stack.config import SERVICES, StackConfig, StackUrls, default_data
from ratchet.stack.data_folder import running_stack
from ratchet.stack.errors import StackError
from ratchet.stack.local import local_stack
from ratchet.stack.supervisor import ChildState, ChildStatus

EXIT_USAGE = 2
EXIT_SYSTEM = 3
EXIT_INTERRUPTED = 130
PIPED_WIDTH = 1000
"""Columns of a table that no terminal shows."""

_SETTLED = (ChildState.READY, ChildState.DONE)


@dataclass(frozen=True)
class Endpoint:
    """Where the services of a session are."""

    search: str
    sandbox: str | None
    """None for a service at a given URL: its sandbox is not ours to call."""
    model: str | None
    """Version of the policy's model, where it is known."""
    prm: str | None = None
    """Version of the PRM, likewise."""
    trainer: str | None = None
    """None for a service at a given URL."""
    key: str | None = None
    """For search and trainer."""
    token: str | None = None
    """For the sandbox."""


class Interrupts:
    """SIGINT and SIGTERM: inside `caught` the first one sets an event; any other cancels the command."""

    def __init__(self, command: "asyncio.Task[int]") -> None:
        self._command = command
        self._event: asyncio.Event | None = None

    def on_signal(self) -> None:
        """The signal handler."""
        if self._event is not None and not self._event.is_set():
            self._event.set()
        else:
            self._command.cancel()

    @contextlib.contextmanager
    def caught(self) -> Iterator[asyncio.Event]:
        """An event that says that the person wants to stop; what is inside ends in good order."""
        self._event = asyncio.Event()
        try:
            yield self._event
        finally:
            self._event = None


def run(command: Callable[[Interrupts], Awaitable[int]]) -> None:
    """Run an async command and leave with its exit code. Raises typer.Exit, or typer.BadParameter for wrong use."""

    # structlog's default prints to stdout, which belongs to the command's result.
    structlog.configure(
        wrapper_class=structlog.make_filtering_bound_logger(logging.ERROR),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
    )

    async def main() -> int:
        task = asyncio.current_task()
        assert task is not None
        interrupts = Interrupts(task)
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, interrupts.on_signal)
        return await command(interrupts)

    try:
        code = asyncio.run(main())
    except (asyncio.CancelledError, KeyboardInterrupt):
        complain("interrupted")
        code = EXIT_INTERRUPTED
    except ServiceError as error:
        complain(describe(error))
        code = EXIT_USAGE if error.refused and error.status == 422 else EXIT_SYSTEM
    except StackError as error:
        complain(str(error))
        code = EXIT_SYSTEM
    raise typer.Exit(code)


def complain(message: str) -> None:
    """Say on stderr what went wrong."""
    print(f"ratchet: {clean(message)}", file=sys.stderr)


def table_console() -> Console:
    """For tables on stdout. What a program or a file reads has whole lines, however long, so that no name is cut."""
    console = Console()
    return console if console.is_terminal else Console(width=PIPED_WIDTH)


def describe(error: ServiceError) -> str:
    """A ServiceError in words, with the fields that were wrong and what can be done."""
    lines = [str(error), *(f"  {wrong.field}: {wrong.message}" for wrong in error.errors)]
    if error.status == HTTPStatus.UNAUTHORIZED:
        lines.append("The environment variable RATCHET_KEY holds the key for a service at --url.")
    if error.status is None:
        lines.append("Is it running? `ratchet up` starts a local one; `--url` names another.")
    return "\n".join(lines)


@contextlib.asynccontextmanager
async def connected(
    *,
    url: str | None,
    data: Path | None,
    model: str | None,
    console: Console,
    workers: int = 1,
    services: Sequence[str] = SERVICES,
    rounds: bool = False,
) -> AsyncIterator[Endpoint]:
    """The services of this session.

    A stack that is started here has these services, so many search workers where they have all that they need, and works on
    rounds only if `rounds` says so: a short command would take one up and leave it at once.
    Raises typer.BadParameter, ServiceError, StackError.
    """
    if url is not None:
        if urlsplit(url).scheme not in {"http", "https"} or not urlsplit(url).hostname:
            raise typer.BadParameter(f"{url} is no http:// or https:// address.", param_hint="--url")
        if model is not None:
            raise typer.BadParameter(
                "a service at --url has its model already; leave one of the two out.", param_hint="--model"
            )
        await _require_reachable(url)
        yield Endpoint(search=url, sandbox=None, model=None, key=key_from_environment())
        return
    running = running_stack(data)
    if running is not None:
        serving, prm = await _serving_versions(running)
        if model is not None and serving is not None and model not in {serving, serving.partition("@")[0]}:
            raise typer.BadParameter(
                f"the running stack serves {serving}, not {model}. Stop it, or choose another folder with --data.",
                param_hint="--model",
            )
        yield _endpoint(running, serving, prm)
        return
    config = StackConfig(
        data=data or default_data(),
        model=model,
        search_workers=workers,
        services=tuple(services),
        env={"RATCHET_WORK_ON_ROUNDS": "true" if rounds else "false"},
    )
    async with contextlib.AsyncExitStack() as stack:
        with _progress(console) as on_status:
            urls = await stack.enter_async_context(local_stack(config, on_status=on_status))
        yield _endpoint(urls, *(await _serving_versions(urls) if "policy" in services else (None, None)))


def _endpoint(urls: StackUrls, model: str | None, prm: str | None) -> Endpoint:
    return Endpoint(
        search=urls.search,
        sandbox=urls.sandbox,
        model=model,
        prm=prm,
        trainer=urls.trainer,
        key=urls.key,
        token=urls.token,
    )


def key_from_environment() -> str | None:
    """The key for services at a given URL: `RATCHET_KEY`, otherwise what is in the file `RATCHET_ADMIN_KEY_FILE`.

    Raises typer.BadParameter where that file cannot be read.
    """
    if key := os.environ.get("RATCHET_KEY"):
        return key
    file = os.environ.get("RATCHET_ADMIN_KEY_FILE")
    try:
        return read_secret(Path(file)) if file else None
    except ValueError as error:
        raise typer.BadParameter(f"RATCHET_ADMIN_KEY_FILE: {error}.", param_hint="--url") from None


def say_nobody_works(what: str) -> None:
    """Say that what was asked for has to wait."""
    complain(f"no stack is up, so the {what} waits until `ratchet up` starts one.")


def nobody_works(url: str | None, data: Path | None) -> bool:
    """Whether a command finds no stack, so that it starts the one service that it asks; to be asked before that."""
    return url is None and running_stack(data) is None


@contextlib.asynccontextmanager
async def looking(url: str | None, data: Path | None) -> AsyncIterator[SearchClient]:
    """The search API of this session, for what is stored. Raises what `connected` raises."""
    async with (
        connected(
            url=url, data=data, model=None, console=Console(stderr=True), services=("search",)
        ) as endpoint,
        SearchClient(endpoint.search, key=endpoint.key) as client,
    ):
        yield client


@contextlib.asynccontextmanager
async def trainer_of(
    url: str | None,
    data: Path | None,
    console: Console,
    *,
    model: str | None = None,
    workers: int = 1,
    services: Sequence[str] = ("trainer",),
    rounds: bool = False,
) -> AsyncIterator[TrainerClient]:
    """The trainer of this session, at `url` or of the local stack; the rest as for `connected`, which says what is raised."""
    key = key_from_environment() if url is not None else None
    async with contextlib.AsyncExitStack() as stack:
        if url is None:
            endpoint = await stack.enter_async_context(
                connected(
                    url=None,
                    data=data,
                    model=model,
                    console=console,
                    workers=workers,
                    services=services,
                    rounds=rounds,
                )
            )
            assert endpoint.trainer is not None
            url, key = endpoint.trainer, endpoint.key
        yield await stack.enter_async_context(TrainerClient(url, key=key))


async def _require_reachable(url: str) -> None:
    """Fail at once where nobody listens; a service that is there and not ready yet is waited for later."""
    async with SearchClient(url) as client:
        try:
            await client.health()
        except ServiceError as error:
            if error.status is None:
                raise


async def _serving_versions(urls: StackUrls) -> tuple[str | None, str | None]:
    """Versions of the models that the stack's policy and PRM serve, of each if it says so."""
    async with (
        PolicyClient(urls.policy, key=urls.token) as policy,
        PrmClient(urls.prm, key=urls.token) as prm,
    ):
        return await _serving_version(policy), await _serving_version(prm)


async def _serving_version(client: PolicyClient | PrmClient) -> str | None:
    with contextlib.suppress(ServiceError):
        version = (await client.health()).detail.get("model")
        return version if isinstance(version, str) else None
    return None


@contextlib.contextmanager
def _progress(console: Console) -> Iterator[Callable[[Sequence[ChildStatus]], None]]:
    """Shows how a stack comes up: one changing line on a terminal, otherwise a line for each part that is ready."""
    told: set[str] = set()
    over = False
    with (
        console.status("starting a local stack") if console.is_terminal else contextlib.nullcontext() as line
    ):

        def show(children: Sequence[ChildStatus]) -> None:
            if over:
                return
            if line is None:
                for child in children:
                    if child.state in _SETTLED and child.name not in told:
                        told.add(child.name)
                        console.print(f"{child.name}: {child.state.value}", markup=False, highlight=False)
                return
            waiting = [f"{c.name} {c.note}".strip() for c in children if c.state not in _SETTLED]
            line.update(clean(f"starting a local stack: {'; '.join(waiting)}").replace("[", r"\[")[:300])

        try:
            yield show
        finally:
            over = True
