"""`ratchet searches`: look at searches, and have one taken up again or ended."""

import contextlib
from collections.abc import Awaitable, Callable, Iterator
from http import HTTPStatus
from pathlib import Path
from typing import Annotated

import orjson
import typer
from pydantic import ValidationError
from rich.table import Table

from ratchet.cli.display import clean
from ratchet.cli.session import (
    Interrupts,
    complain,
    looking,
    nobody_works,
    run,
    say_nobody_works,
    table_console,
)
from ratchet.clients import SearchClient, ServiceError
from ratchet.contracts.extending import ExtendRequest
from ratchet.contracts.search import SearchResult, StrategyName, VerificationLevel
from ratchet.contracts.search_list import SearchFilter, SearchPage
from ratchet.states import SearchState

EXIT_REFUSED = 1
SHOWN_CHARS = 60
"""Of a problem or an answer in a table."""
SHOWN_ID_CHARS = 8
"""Of a parent's id in a table: its last ones, as ids of one day begin alike."""

app = typer.Typer(help="Searches.", no_args_is_help=True)

Url = Annotated[str | None, typer.Option(help="A search service; otherwise the local stack.")]
Data = Annotated[Path | None, typer.Option(help="Data folder of the local stack.", envvar="RATCHET_DATA")]
Json = Annotated[bool, typer.Option("--json", help="One JSON object instead of text.")]
Search = Annotated[str, typer.Argument(help="Id of a search.")]


@app.callback()
def searches() -> None:
    """Searches: those that are under way, those that are over, and those that failed."""


@app.command("list")
def list_searches(
    text: Annotated[
        str | None, typer.Option(help="Only those with this in the problem or the answer.")
    ] = None,
    state: Annotated[SearchState | None, typer.Option(help="Only those in this state.")] = None,
    level: Annotated[
        VerificationLevel | None, typer.Option(help="Only those whose answer has this level.")
    ] = None,
    model: Annotated[
        str | None, typer.Option(help="Only those that this policy or PRM version worked on.")
    ] = None,
    strategy: Annotated[StrategyName | None, typer.Option(help="Only those of this strategy.")] = None,
    limit: Annotated[int, typer.Option(min=1, max=200, help="At most so many.")] = 50,
    as_json: Json = False,
    url: Url = None,
    data: Data = None,
) -> None:
    """Searches, the newest first."""
    try:
        narrowed = SearchFilter(text=text, state=state, level=level, model=model, strategy=strategy)
    except ValidationError as error:
        wrong = error.errors()[0]
        raise typer.BadParameter(wrong["msg"], param_hint=f"--{wrong['loc'][0]}") from error

    async def command(_: Interrupts) -> int:
        async with looking(url, data) as client:
            page = await _find(client, limit, narrowed)
        if as_json:
            _print_json(page)
        else:
            table_console().print(_table(page))
        return 0

    run(command)


@app.command()
def show(search: Search, as_json: Json = False, url: Url = None, data: Data = None) -> None:
    """One search as it stands."""

    async def command(_: Interrupts) -> int:
        async with looking(url, data) as client:
            with _refusals() as refused:
                _tell(await client.get(search), as_json)
        return refused.code

    run(command)


@app.command()
def retry(search: Search, as_json: Json = False, url: Url = None, data: Data = None) -> None:
    """Have a failed search taken up again, with the tree that it has."""

    async def command(_: Interrupts) -> int:
        return await _have_worked_on(lambda client: client.retry(search), as_json, url, data)

    run(command)


@app.command()
def extend(
    search: Search,
    tokens: Annotated[int | None, typer.Option(help="Generated tokens in all.")] = None,
    seconds: Annotated[float | None, typer.Option(help="Seconds that are worked on it in all.")] = None,
    nodes: Annotated[int | None, typer.Option(help="Nodes in the tree.")] = None,
    rollouts: Annotated[int | None, typer.Option(help="Solutions in all.")] = None,
    as_json: Json = False,
    url: Url = None,
    data: Data = None,
) -> None:
    """Have a search that is over go on with a larger budget, from where it stopped.

    What is not named grows in the proportion in which the others grow. The stack of `ratchet up`, or of --url, works on it.
    """
    try:
        asked = ExtendRequest(tokens=tokens, seconds=seconds, nodes=nodes, rollouts=rollouts)
    except ValidationError as error:
        wrong = error.errors()[0]
        named = f"--{wrong['loc'][0]}" if wrong["loc"] else "--tokens"
        raise typer.BadParameter(wrong["msg"], param_hint=named) from error

    async def command(_: Interrupts) -> int:
        return await _have_worked_on(lambda client: client.extend(search, asked), as_json, url, data)

    run(command)


@app.command()
def cancel(search: Search, as_json: Json = False, url: Url = None, data: Data = None) -> None:
    """End a search with the best answer so far."""

    async def command(_: Interrupts) -> int:
        async with looking(url, data) as client:
            with _refusals() as refused:
                _tell(await client.cancel(search), as_json)
        return refused.code

    run(command)


async def _have_worked_on(
    ask: Callable[[SearchClient], Awaitable[SearchResult]], as_json: bool, url: str | None, data: Path | None
) -> int:
    """Ask for more work on a search, and say where nobody is there who does it; the exit code."""
    alone = nobody_works(url, data)
    async with looking(url, data) as client:
        with _refusals() as refused:
            result = await ask(client)
            _tell(result, as_json)
            if alone and result.state is SearchState.QUEUED:
                say_nobody_works("search")
    return refused.code


async def _find(client: SearchClient, limit: int, narrowed: SearchFilter) -> SearchPage:
    """So many searches, however many pages have none of them."""
    page = await client.recent(limit, narrowed)
    found = page.searches
    while page.next is not None and len(found) < limit:
        page = await client.recent(limit - len(found), narrowed, page.next)
        found += page.searches
    return SearchPage(searches=found, next=page.next)


class _Refused:
    """Exit code of a command that a service may refuse."""

    code = 0


@contextlib.contextmanager
def _refusals() -> Iterator[_Refused]:
    """Say why a service refuses: there is no such search, or its state does not allow it."""
    refused = _Refused()
    try:
        yield refused
    except ServiceError as error:
        if error.status not in (
            HTTPStatus.NOT_FOUND,
            HTTPStatus.CONFLICT,
            HTTPStatus.UNPROCESSABLE_ENTITY,
        ):
            raise
        complain(str(error))
        refused.code = EXIT_REFUSED


def _print_json(document: SearchPage | SearchResult) -> None:
    print(orjson.dumps(document.model_dump(mode="json")).decode())


def _tell(result: SearchResult, as_json: bool) -> None:
    if as_json:
        _print_json(result)
        return
    table = Table(show_header=False, box=None)
    for name, value in (
        ("search", result.id),
        ("state", result.state.value),
        ("reason", result.reason),
        ("problem", result.problem),
        ("answer", result.answer),
        ("level", result.verification.level.value if result.verification else None),
        ("strategy", result.strategy.value),
        ("parent", f"{result.parent.search} at node {result.parent.node}" if result.parent else None),
        ("worked", f"{result.usage.wall_seconds:.1f} s, {result.usage.policy.tokens} tokens"),
        ("created", result.created_at.isoformat(timespec="seconds")),
        ("ended", result.ended_at.isoformat(timespec="seconds") if result.ended_at else None),
    ):
        if value is not None:
            table.add_row(name, _cell(value))
    table_console().print(table)


def _table(page: SearchPage) -> Table:
    table = Table("search", "state", "strategy", "answer", "level", "created", "parent", "problem")
    for each in page.searches:
        table.add_row(
            each.id,
            each.state.value,
            each.strategy.value,
            _cell((each.answer or "")[:SHOWN_CHARS]),
            each.level.value if each.level else "",
            each.created_at.isoformat(timespec="seconds"),
            each.parent.search[-SHOWN_ID_CHARS:] if each.parent else "",
            _cell(" ".join(each.problem.split())[:SHOWN_CHARS]),
        )
    return table


def _cell(value: str) -> str:
    """Text of a problem or a model, as it may stand in a table."""
    return clean(value).replace("[", r"\[")
