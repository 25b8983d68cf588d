"""`ratchet rounds`: let the models improve themselves, and look at how it goes."""

import asyncio
import contextlib
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Annotated, Literal

import orjson
import typer
from pydantic import ValidationError
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    SpinnerColumn,
    TextColumn,
    TimeElapsedColumn,
)
from rich.table import Table

from ratchet.cli.display import clean
from ratchet.cli.overrides import OverrideError
from ratchet.cli.presets import Preset, round_config, with_overrides
from ratchet.cli.problem_files import with_copied_files
from ratchet.cli.session import (
    Interrupts,
    complain,
    nobody_works,
    run,
    say_nobody_works,
    table_console,
    trainer_of,
)
from ratchet.clients import TrainerClient
from ratchet.contracts.rounds import RoundConfig, RoundRequest, RoundView
from ratchet.stack.config import SERVICES
from ratchet.states import ROUND_ENDS, RoundState
from ratchet.summary import run_summary

POLL_SECONDS = 0.5
EXIT_FAILED = 1

app = typer.Typer(help="Self-evolution rounds.", no_args_is_help=True)

Url = Annotated[str | None, typer.Option(help="A trainer service; otherwise the local stack.")]
Overrides = Annotated[
    list[str] | None, typer.Option("--set", help="Override a setting, like policy.epochs=2. Repeatable.")
]
Data = Annotated[Path | None, typer.Option(help="Data folder of the local stack.", envvar="RATCHET_DATA")]


@app.callback()
def rounds() -> None:
    """Self-evolution rounds: search, select, train policy and PRM, evaluate, promote or reject."""


@app.command("run")
def run_rounds(
    count: Annotated[int, typer.Option("--rounds", min=1, max=64, help="Rounds, one after another.")] = 4,
    preset: Annotated[Preset, typer.Option(help="Settings to begin with.")] = Preset.NANO,
    model: Annotated[
        str | None,
        typer.Option(
            help="Base policy for a stack that is started here; default: nano for the preset nano, otherwise small."
        ),
    ] = None,
    name: Annotated[
        str | None, typer.Option("--run", help="Name of the run; its rounds follow one another.")
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Of problems, searches and training.")] = 0,
    override: Overrides = None,
    workers: Annotated[
        int, typer.Option(min=1, max=64, help="Search workers of a stack that is started here.")
    ] = 2,
    url: Url = None,
    data: Data = None,
) -> None:
    """Run rounds to their ends. The last line on stdout is one JSON object; interrupted or failed, the same command goes
    on."""
    console = Console(stderr=True)
    chosen_run = name or f"{preset}-seed{seed}"
    overrides = override or []
    _config(preset, 1, seed, overrides)
    here = _files_where_the_trainer_is(url, data)

    async def command(interrupts: Interrupts) -> int:
        began = time.monotonic()
        async with trainer_of(
            url,
            data,
            console,
            model=model or preset.base,
            workers=workers,
            services=SERVICES,
            rounds=True,
        ) as trainer:
            known = await trainer.rounds(chosen_run)
            if known and known[0].state is RoundState.FAILED:
                await _retry(trainer, known[0], overrides, console, here)
            while True:
                known = await trainer.rounds(chosen_run)
                last = known[0] if known else None
                if last is None or _is_over(last):
                    if sum(_is_over(each) for each in known) >= count or (
                        last is not None and last.state is RoundState.FAILED
                    ):
                        break
                    number = 1 if last is None else last.number + 1
                    config = here(_config(preset, number, seed, overrides))
                    last = await trainer.create_round(RoundRequest(run=chosen_run, config=config))
                ended = await _follow(trainer, last, console)
                _tell(ended, console)
            done = sorted(await trainer.rounds(chosen_run), key=lambda each: each.number)
            console.print(_table(done))
            summary = run_summary(done, seconds=time.monotonic() - began)
            print(orjson.dumps(summary).decode(), flush=True)
            return EXIT_FAILED if done[-1].state is RoundState.FAILED else 0

    run(command)


@app.command("list")
def list_rounds(
    name: Annotated[str | None, typer.Option("--run", help="Only this run.")] = None,
    url: Url = None,
    data: Data = None,
) -> None:
    """Rounds, the newest first."""

    async def command(_: Interrupts) -> int:
        async with trainer_of(url, data, Console(stderr=True)) as trainer:
            table_console().print(_table(await trainer.rounds(name)))
        return 0

    run(command)


@app.command()
def show(
    round_id: Annotated[str, typer.Argument(help="Id of a round.")], url: Url = None, data: Data = None
) -> None:
    """One round as JSON."""

    async def command(_: Interrupts) -> int:
        async with trainer_of(url, data, Console(stderr=True)) as trainer:
            found = await trainer.round(round_id)
            print(orjson.dumps(found.model_dump(mode="json"), option=orjson.OPT_INDENT_2).decode())
        return 0

    run(command)


def _add_command(what: Literal["pause", "resume", "cancel"], text: str) -> None:
    def command_of(
        round_id: Annotated[str, typer.Argument(help="Id of a round.")], url: Url = None, data: Data = None
    ) -> None:
        async def command(_: Interrupts) -> int:
            alone = nobody_works(url, data)
            async with trainer_of(url, data, Console(stderr=True)) as trainer:
                found = await trainer.ask(round_id, what)
                print(f"round {found.number} of {found.run}: {found.state}, {what} asked for")
            if alone and what != "pause":
                say_nobody_works("round")
            return 0

        run(command)

    command_of.__doc__ = text
    app.command(what)(command_of)


_add_command("pause", "Stop a round where it is; `resume` goes on there.")
_add_command("resume", "Go on with a paused round.")
_add_command("cancel", "End a round as failed; what it has gathered stays.")


@app.command()
def retry(
    round_id: Annotated[str, typer.Argument(help="Id of a failed round.")],
    override: Overrides = None,
    url: Url = None,
    data: Data = None,
) -> None:
    """Have a failed round taken up again, in the stage that failed; --set changes what no finished stage has used."""

    async def command(_: Interrupts) -> int:
        console, alone = Console(stderr=True), nobody_works(url, data)
        async with trainer_of(url, data, console) as trainer:
            here = _files_where_the_trainer_is(url, data)
            await _retry(trainer, await trainer.round(round_id), override or [], console, here)
        if alone:
            say_nobody_works("round")
        return 0

    run(command)


Run = Annotated[str, typer.Argument(help="Name of a run.")]


@app.command("quarantine")
def list_quarantine(name: Run, url: Url = None, data: Data = None) -> None:
    """Problems that a run has set aside, because independent programs agree on another answer than the reference."""

    async def command(_: Interrupts) -> int:
        async with trainer_of(url, data, Console(stderr=True)) as trainer:
            found = (await trainer.quarantine_of_run(name)).problems
        if not found:
            print(f"{name} has set no problem aside")
        for each in found:
            overruled = "" if each.overruled_at is None else f", overruled {each.overruled_at:%Y-%m-%d %H:%M}"
            if each.overruled_because is not None:
                overruled += f": {clean(each.overruled_because)}"
            print(f"{each.id}  (round {each.round}{overruled})")
            # These are texts of others.
            print(f"    problem    {clean(each.problem)}\n    reference  {clean(each.reference)}")
            print(
                f"    programs   {clean(each.answer)} (found {each.programs} times independently, PRM {each.prm_score:.2f})"
            )
            print(f"    source     {clean(each.source)}")
        return 0

    run(command)


@app.command()
def overrule(
    name: Run,
    problem: Annotated[str, typer.Argument(help="Its id, as `ratchet rounds quarantine` lists it.")],
    reason: Annotated[str | None, typer.Option(help="Why; it is kept with the problem.")] = None,
    url: Url = None,
    data: Data = None,
) -> None:
    """Trust the reference answer of a problem that was set aside: the run trains on it again."""

    async def command(_: Interrupts) -> int:
        async with trainer_of(url, data, Console(stderr=True)) as trainer:
            found = await trainer.overrule(name, problem, reason)
        print(f"{found.id} is trained on again in {name}")
        return 0

    run(command)


async def _retry(
    trainer: TrainerClient,
    failed: RoundView,
    overrides: Sequence[str],
    console: Console,
    here: Callable[[RoundConfig], RoundConfig],
) -> None:
    config = (
        here(_or_bad_parameter(lambda: with_overrides(failed.config.model_dump(mode="json"), overrides)))
        if overrides
        else None
    )
    again = await trainer.retry_round(failed.id, config)
    console.print(
        f"round {again.number} of {again.run} goes on with {again.state}",
        markup=False,
        highlight=False,
    )


def _files_where_the_trainer_is(url: str | None, data: Path | None) -> Callable[[RoundConfig], RoundConfig]:
    """What a configuration becomes for the trainer: one of the local stack gets copies of the files that it names."""
    if url is not None:
        return lambda config: config
    return lambda config: with_copied_files(config, data)


def _config(preset: Preset, number: int, seed: int, overrides: Sequence[str]) -> RoundConfig:
    return _or_bad_parameter(lambda: round_config(preset, number, seed, overrides))


def _or_bad_parameter(make: Callable[[], RoundConfig]) -> RoundConfig:
    """What `make` gives. A mistake in an override is reported as one of `--set`."""
    try:
        return make()
    except OverrideError as error:
        raise typer.BadParameter(str(error), param_hint="--set") from None
    except ValidationError as error:
        wrong = error.errors()[0]
        where = ".".join(map(str, wrong["loc"]))
        raise typer.BadParameter(f"{where}: {wrong['msg']}", param_hint="--set") from None


def _is_over(view: RoundView) -> bool:
    return view.state in ROUND_ENDS


async def _follow(trainer: TrainerClient, view: RoundView, console: Console) -> RoundView:
    """Show the round's progress until it is over."""
    with _bar(console, view) as show_progress:
        while not _is_over(view):
            show_progress(view)
            await asyncio.sleep(POLL_SECONDS)
            view = await trainer.round(view.id)
    return view


@contextlib.contextmanager
def _bar(console: Console, view: RoundView) -> Iterator[Callable[[RoundView], None]]:
    """A progress bar on a terminal, otherwise a line for each stage; gives the function that shows a round."""
    columns = (
        SpinnerColumn(),
        TextColumn(f"round {view.number}"),
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("{task.fields[note]}", style="dim"),
    )
    told = ""
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task(view.state.value, total=None, note="")

        def show(now: RoundView) -> None:
            nonlocal told
            stage = ("paused: " if now.paused else "") + (now.progress.stage or now.state.value)
            bar.update(
                task,
                description=stage,
                completed=now.progress.done,
                total=now.progress.total or None,
                note=now.progress.note,
            )
            if not console.is_terminal and stage != told:
                told = stage
                console.print(f"round {now.number}: {stage}", markup=False, highlight=False)

        yield show


def _tell(view: RoundView, console: Console) -> None:
    if view.state is RoundState.FAILED:
        complain(
            f"round {view.number} failed: {view.reason} The same command, or `ratchet rounds retry {view.id}`, goes on with "
            f"{view.failed_in}; --set changes what it has not used yet."
        )
        return
    console.print(
        f"round {view.number}: {view.state}. {view.reason or ''}".strip(), markup=False, highlight=False
    )


def _table(views: Sequence[RoundView]) -> Table:
    table = Table(box=None, pad_edge=False)
    for column in (
        "run",
        "round",
        "state",
        "policy",
        "system",
        "best of n",
        "majority",
        "coverage",
        "PRM AUC",
        "seconds",
        "id",
    ):
        table.add_column(column, justify="left" if column in ("run", "state", "id") else "right")
    for view in views:
        facts = run_summary([view])["rounds"][0]
        figures = [
            facts.get(key)
            for key in ("policy_pass1", "system", "best_of_n", "majority", "coverage", "prm_step_auc")
        ]
        shown = ["" if figure is None else f"{100 * figure:.1f} %" for figure in figures]
        table.add_row(
            view.run, str(view.number), view.state.value, *shown, f"{facts['seconds'] or 0:.0f}", view.id
        )
    return table
