"""`ratchet keys`: who may use the APIs, within which limits, and what they did."""

from pathlib import Path
from typing import Annotated

import typer
from pydantic import ValidationError
from rich.table import Table

from ratchet.cli.display import clean
from ratchet.cli.session import Interrupts, looking, run, table_console
from ratchet.contracts.keys import KeyLimits, KeyRequest, KeyScope, KeyView
from ratchet.contracts.search import Priority

app = typer.Typer(help="API keys, and who did what.", no_args_is_help=True)

Name = Annotated[str, typer.Argument(help="Whose key it is; the audit says it.")]
Url = Annotated[str | None, typer.Option(help="A search service; otherwise the local stack.")]
Data = Annotated[Path | None, typer.Option(help="Data folder of the local stack.", envvar="RATCHET_DATA")]


@app.callback()
def keys() -> None:
    """API keys, and who did what."""


@app.command()
def create(
    name: Name,
    scope: Annotated[
        KeyScope, typer.Option(help="solve: searches, and what it began itself; admin: everything.")
    ] = KeyScope.SOLVE,
    requests_per_minute: Annotated[int | None, typer.Option(help="Most requests a minute.")] = None,
    concurrent_searches: Annotated[int | None, typer.Option(help="Most searches under way at once.")] = None,
    tokens_per_day: Annotated[int | None, typer.Option(help="Most generated tokens a day (UTC).")] = None,
    max_priority: Annotated[
        Priority, typer.Option(help="Highest priority that may be asked for.")
    ] = Priority.HIGH,
    url: Url = None,
    data: Data = None,
) -> None:
    """Make a key and print it, this once: the last line on stdout. It is kept nowhere."""
    try:
        request = KeyRequest(
            name=name,
            scope=scope,
            limits=KeyLimits(
                requests_per_minute=requests_per_minute,
                concurrent_searches=concurrent_searches,
                tokens_per_day=tokens_per_day,
                max_priority=max_priority,
            ),
        )
    except ValidationError as error:
        first = error.errors()[0]
        raise typer.BadParameter(f"{first['msg']}.", param_hint=str(first["loc"][-1])) from None

    async def command(_: Interrupts) -> int:
        async with looking(url, data) as client:
            print((await client.create_key(request)).key)
        return 0

    run(command)


@app.command("list")
def list_keys(url: Url = None, data: Data = None) -> None:
    """All keys, the newest first, those that were revoked too."""

    async def command(_: Interrupts) -> int:
        table = Table(box=None, pad_edge=False)
        for column in ("name", "scope", "limits", "made", "revoked"):
            table.add_column(column)
        async with looking(url, data) as client:
            for key in await client.keys():
                revoked = "" if key.revoked_at is None else f"{key.revoked_at:%Y-%m-%d %H:%M}"
                table.add_row(key.name, key.scope, _limits(key), f"{key.created_at:%Y-%m-%d %H:%M}", revoked)
        table_console().print(table)
        return 0

    run(command)


@app.command()
def revoke(name: Name, url: Url = None, data: Data = None) -> None:
    """Refuse a key from now on; within two seconds everywhere. Searches that it began go on."""

    async def command(_: Interrupts) -> int:
        async with looking(url, data) as client:
            await client.revoke_key(name)
        print(f"{name} is revoked")
        return 0

    run(command)


@app.command()
def audit(
    key: Annotated[str | None, typer.Option(help="Only calls with the key of this name.")] = None,
    limit: Annotated[int, typer.Option(min=1, max=1000, help="Most calls.")] = 100,
    url: Url = None,
    data: Data = None,
) -> None:
    """Who did what: calls that were meant to change something, the newest first."""

    async def command(_: Interrupts) -> int:
        table = Table(box=None, pad_edge=False)
        for column in ("time (UTC)", "key", "service", "call", "status"):
            table.add_column(column)
        async with looking(url, data) as client:
            for each in (await client.audit(limit, key)).entries:
                call = clean(f"{each.method} {each.target}").replace("[", r"\[")
                at = f"{each.at:%Y-%m-%d %H:%M:%S}"
                table.add_row(at, each.key, each.service, call, str(each.status))
        table_console().print(table)
        return 0

    run(command)


def _limits(key: KeyView) -> str:
    """Those that are set, in words."""
    limits = key.limits
    words = [
        f"{limits.requests_per_minute} requests a minute" if limits.requests_per_minute else "",
        f"{limits.concurrent_searches} searches at once" if limits.concurrent_searches else "",
        f"{limits.tokens_per_day} tokens a day" if limits.tokens_per_day else "",
        f"priority up to {limits.max_priority}" if limits.max_priority is not Priority.HIGH else "",
    ]
    return ", ".join(filter(None, words))
