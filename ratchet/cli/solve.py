"""`ratchet solve`: one problem through `POST /search`, its tree as it grows, and the verified solution."""

import asyncio
import contextlib
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import orjson
import typer
from pydantic import ValidationError
from rich.console import Console
from rich.live import Live

from ratchet.cli.display import TreeDisplay, clean, solution, tree_lines
from ratchet.cli.session import EXIT_SYSTEM, Interrupts, complain, connected, describe, run
from ratchet.clients import SearchClient, ServiceError
from ratchet.contracts.base import MAX_PROBLEM_CHARS
from ratchet.contracts.search import EventKind, SearchRequest, SearchResult, StrategyName
from ratchet.states import SEARCH_TRANSITIONS, SearchState, is_end

GRACE_SECONDS = 900.0
"""Beyond its own budget a search may wait this long for a worker; then something is wrong."""
CANCEL_SECONDS = 60.0
"""A cancelled search ends with its best answer within this time, or without it."""
FINAL_TREE_LINES = 40


def solve(
    problem: Annotated[str, typer.Argument(help="The problem, in plain words; - reads it from stdin.")],
    model: Annotated[
        str | None,
        typer.Option(
            help="Model for a stack that is started here: a name (small, medium), a folder, or a hub id."
        ),
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="Print only the result, as JSON.")] = False,
    strategy: Annotated[StrategyName, typer.Option(help="How the tree is grown.")] = StrategyName.MCTS,
    rollouts: Annotated[int | None, typer.Option(help="Most solutions that are completed.")] = None,
    tokens: Annotated[int | None, typer.Option(help="Budget: generated tokens.")] = None,
    seconds: Annotated[float | None, typer.Option(help="Budget: seconds.")] = None,
    seed: Annotated[int, typer.Option(help="The same seed asks for the same search.")] = 0,
    answer: Annotated[
        str | None, typer.Option(help="The right answer, if known: only the verifier sees it.")
    ] = None,
    min_confidence: Annotated[
        float | None,
        typer.Option(
            help="Least probability that counts as solved, in [0, 1]; default: what the models' calibration asks for."
        ),
    ] = None,
    proof: Annotated[
        Path | None, typer.Option(help="Write the proof bundle here; check it with `ratchet verify`.")
    ] = None,
    url: Annotated[str | None, typer.Option(help="A search service; otherwise the local stack.")] = None,
    data: Annotated[
        Path | None, typer.Option(help="Data folder of the local stack.", envvar="RATCHET_DATA")
    ] = None,
) -> None:
    """Solve one problem. Exit code 0: solved and verified, 1: not, 2: wrong use, 3: the system failed."""
    request = search_request(
        {
            "problem": _problem(problem),
            "reference_answer": answer,
            "strategy": strategy,
            "seed": seed,
            "min_confidence": min_confidence,
        },
        parameters={"rollouts": rollouts},
        budget={"tokens": tokens, "seconds": seconds},
    )
    if proof is not None and not proof.resolve().parent.is_dir():
        raise typer.BadParameter(f"the folder {proof.resolve().parent} is not there.", param_hint="--proof")
    # With --json stdout belongs to the result alone.
    console = Console(stderr=json)

    async def command(interrupts: Interrupts) -> int:
        async with (
            connected(url=url, data=data, model=model, console=console) as endpoint,
            SearchClient(endpoint.search, key=endpoint.key) as client,
        ):
            result = await _search(client, request, console, interrupts)
            if json:
                print(result.model_dump_json(), flush=True)
            else:
                console.print(solution(result))
            if result.state is SearchState.FAILED:
                complain(f"the search failed: {result.reason or 'no reason was given'}")
            if proof is not None:
                await _write_proof(client, result, proof, console)
            return exit_code(result)

    run(command)


def exit_code(result: SearchResult) -> int:
    """0 only for a verified solution."""
    match result.state:
        case SearchState.SOLVED_VERIFIED:
            return 0
        case SearchState.FAILED:
            return EXIT_SYSTEM
        case _:
            return 1


_OPTIONS = {
    "problem": "PROBLEM",
    "reference_answer": "--answer",
    "parameters.rollouts": "--rollouts",
    "budget.tokens": "--tokens",
    "budget.seconds": "--seconds",
    "seed": "--seed",
    "require": "--level",
    "min_confidence": "--min-confidence",
}


def search_request(
    fields: Mapping[str, Any], *, parameters: Mapping[str, Any], budget: Mapping[str, Any]
) -> SearchRequest:
    """The request that the options ask for; what is None is left to the service's defaults.

    Raises typer.BadParameter that names the option.
    """
    nested = {"parameters": parameters, "budget": budget}
    given = {name: {k: v for k, v in values.items() if v is not None} for name, values in nested.items()}
    try:
        return SearchRequest.model_validate({k: v for k, v in fields.items() if v is not None} | given)
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(str(part) for part in first["loc"])
        if field.startswith("parameters.") and field not in _OPTIONS:
            name = field.removeprefix("parameters.")
            raise typer.BadParameter(f"{name}: {first['msg']}", param_hint="--set") from None
        raise typer.BadParameter(first["msg"], param_hint=_OPTIONS.get(field, field)) from None


def _problem(argument: str) -> str:
    if argument != "-":
        return argument
    # Bytes, as the encoding of stdin depends on the locale; a little more than allowed, so that it is refused.
    content = sys.stdin.buffer.read(4 * MAX_PROBLEM_CHARS + 4)
    try:
        # Without the byte order mark that some editors write.
        return content.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise typer.BadParameter("stdin is not UTF-8 text.", param_hint="PROBLEM") from None


async def _search(
    client: SearchClient, request: SearchRequest, console: Console, interrupts: Interrupts
) -> SearchResult:
    """Create the search and follow it to its end; an interrupt, or far too long a time, cancels it."""
    search = await client.create(request)
    with interrupts.caught() as interrupted:
        following = asyncio.create_task(_follow(client, search.id, request.problem, console))
        stopping = asyncio.create_task(interrupted.wait())
        try:
            limit = request.budget.seconds + GRACE_SECONDS
            await asyncio.wait({following, stopping}, timeout=limit, return_when=asyncio.FIRST_COMPLETED)
            if not following.done():
                complain("cancelling" if stopping.done() else f"no end after {limit:g} s, cancelling")
                await client.cancel(search.id)
                await asyncio.wait({following}, timeout=CANCEL_SECONDS)
            if not following.done():
                return await client.get(search.id)
            return await following
        finally:
            for task in (following, stopping):
                task.cancel()
                with contextlib.suppress(asyncio.CancelledError, ServiceError):
                    await task


async def _follow(client: SearchClient, search: str, problem: str, console: Console) -> SearchResult:
    """Show the events of a search up to its end."""
    display = TreeDisplay(problem)
    live = Live(
        get_renderable=lambda: display.render(tree_lines(console)),
        console=console,
        transient=True,
        refresh_per_second=4,
    )
    result: SearchResult | None = None
    with live if console.is_terminal else contextlib.nullcontext():
        async for event in client.events(search):
            try:
                line = display.take(event)
                if event.kind is EventKind.END:
                    result = SearchResult.model_validate(event.data)
            except ValueError as error:
                raise ServiceError("search", "sent an event that breaks the contract", str(error)) from error
            if line is not None and not console.is_terminal:
                console.print(line, soft_wrap=True)
    if console.is_terminal:
        # The events tell of nodes as they are added; visits and values are those of the end only in the tree.
        with contextlib.suppress(ServiceError):
            display.add((await client.tree(search)).nodes)
        console.print(display.render(FINAL_TREE_LINES))
    if result is None or not is_end(SEARCH_TRANSITIONS, result.state):
        result = await client.get(search)
    return result


async def _write_proof(client: SearchClient, result: SearchResult, path: Path, console: Console) -> None:
    try:
        bundle = await client.proof(result.id)
        content = orjson.dumps(bundle.model_dump(mode="json"), option=orjson.OPT_INDENT_2) + b"\n"
        await asyncio.to_thread(path.write_bytes, content)
    except ServiceError as error:
        complain(f"no proof bundle was written. {describe(error)}")
    except OSError as error:
        complain(f"the proof bundle cannot be written: {path}: {error.strerror}")
    else:
        console.print(
            f"Proof: {clean(str(path))} (check it: ratchet verify {clean(str(path))})", markup=False
        )


def register(app: typer.Typer) -> None:
    """Add the command to the program."""
    app.command()(solve)
