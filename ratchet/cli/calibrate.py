"""`ratchet calibrate`: how probable the answers of a policy with its PRM are, from problems whose answers are known.

Searches the problems as `ratchet eval` does, without their reference answers, and goes on where it was broken off. Then the
trainer compares the trees with the references, fits the probability, and keeps it: from then on every answer of the pair says
how probable it is, and what counts as solved. Prints the reliability diagram; the last line is the calibration, as JSON.

Limit: on problems of another kind the probabilities need not hold. Calibrate on problems like those that will be asked.
"""

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from ratchet.cli.display import clean
from ratchet.cli.evaluate import RESULTS, read_problems
from ratchet.cli.evaluation.plan import Plan, result_name
from ratchet.cli.evaluation.results import open_results
from ratchet.cli.evaluation.searching import Run, Services, Way, reach_services, search_all
from ratchet.cli.session import EXIT_INTERRUPTED, Interrupts, complain, run
from ratchet.cli.solve import search_request
from ratchet.clients import TrainerClient
from ratchet.contracts.calibration import AnswerCalibration, CalibrationRequest, LabelledSearch
from ratchet.contracts.search import StrategyName
from ratchet.problems import sample
from ratchet.states import SearchState

DEFAULT_LIMIT = 200
BAR = 30
"""Characters of a bar that stands for 1."""


def calibrate(
    spec: Annotated[
        str,
        typer.Argument(
            metavar="DATA",
            help="Problems with answers, like those that will be asked: a problem file, nano:development, "
            "hub:org/name, or reasoning-gym:task.",
        ),
    ],
    model: Annotated[
        str | None,
        typer.Option(
            help="Model for a stack that is started here: a name (small, medium), a folder, or a hub id."
        ),
    ] = None,
    strategy: Annotated[StrategyName, typer.Option(help="How the trees are grown.")] = StrategyName.MCTS,
    tokens: Annotated[int | None, typer.Option(help="Budget per problem: generated tokens.")] = None,
    seconds: Annotated[float | None, typer.Option(help="Budget per problem: seconds.")] = None,
    rollouts: Annotated[int | None, typer.Option(help="Most solutions that are completed.")] = None,
    limit: Annotated[int, typer.Option(min=1, help="How many problems.")] = DEFAULT_LIMIT,
    offset: Annotated[int, typer.Option(min=0, help="Problems of the shuffled set to pass over.")] = 0,
    seed: Annotated[
        int, typer.Option(help="Shuffles the set before offset and limit; seeds the searches.")
    ] = 0,
    concurrency: Annotated[int, typer.Option(min=1, max=256, help="Searches at once.")] = 8,
    early_stop: Annotated[
        bool,
        typer.Option(
            "--early-stop",
            help="End a search when its answer can hardly be overtaken. Searches with these models may then do so, too.",
        ),
    ] = False,
    plot: Annotated[
        Path | None, typer.Option(help="Draw the reliability diagram here: .png or .svg.")
    ] = None,
    output: Annotated[
        Path | None, typer.Option(help="Result file of the searches; default results/….jsonl.")
    ] = None,
    fresh: Annotated[bool, typer.Option("--fresh", help="Search again, even if there are results.")] = False,
    data: Annotated[
        Path | None, typer.Option(help="Data folder of the local stack.", envvar="RATCHET_DATA")
    ] = None,
) -> None:
    """Learn how probable answers are. The last line on stdout is one JSON object."""
    console = Console(stderr=True)
    if plot is not None and plot.suffix not in (".png", ".svg"):
        raise typer.BadParameter(f"{plot} must end in .png or .svg.", param_hint="--plot")
    held = read_problems(spec, console)
    problems = sample(held.problems, seed=seed, offset=offset, limit=limit)
    if not problems:
        raise typer.BadParameter(f"{spec} has {len(held.problems)} problems.", param_hint="--offset")
    request = search_request(
        # A probability that is known already has no say in how these searches end.
        {"problem": problems[0].text, "strategy": strategy, "seed": seed, "min_confidence": 0.0},
        parameters={"rollouts": rollouts, "early_stop": early_stop},
        budget={"tokens": tokens, "seconds": seconds},
    )
    plan = Plan(held, problems, request, with_reference=False, offset=offset)

    async def command(interrupts: Interrupts) -> int:
        async with reach_services(None, data, model, console) as services:
            path = output or RESULTS / result_name(held, request, False, services.models)
            with open_results(path, fresh=fresh) as results:
                way = Way(request, results)
                work = Run(plan.problems, [way], plan.with_reference, concurrency)
                if not await search_all(work, services, console, interrupts):
                    done = len(work.done(way))
                    complain(
                        f"interrupted with {done} of {work.total} done; the same command goes on from there."
                    )
                    return EXIT_INTERRUPTED
                labelled = [
                    LabelledSearch(search=line.search, reference_answer=line.reference)
                    for line in work.done(way)
                    if line.search is not None and line.state is not SearchState.FAILED
                ]
            source = f"{held.name}, {len(problems)} problems of seed {seed} from {offset} on"
            calibration = await _fit(services, CalibrationRequest(searches=labelled, source=source))
        console.print(reliability_table(calibration))
        console.print(words(calibration), markup=False, highlight=False, soft_wrap=True)
        if plot is not None:
            _draw(calibration, plot)
        print(calibration.model_dump_json(), flush=True)
        return 0

    run(command)


async def _fit(services: Services, request: CalibrationRequest) -> AnswerCalibration:
    async with TrainerClient(services.trainer, key=services.key) as trainer:
        return await trainer.calibrate(request)


def reliability_table(calibration: AnswerCalibration) -> Table:
    """The reliability diagram: stated probability and share of right answers, bin by bin."""
    pair = f"{clean(calibration.policy)} with {clean(calibration.prm)}"
    table = Table(title=f"Reliability of {pair}", title_justify="left")
    for column in ("stated", "right", "95 %", "answers", "● stated, █ right"):
        table.add_column(column, justify="left" if column.startswith("●") else "right", no_wrap=True)
    for each in calibration.reliability.bins:
        bar = list("█" * round(BAR * each.share) + " " * (BAR + 1 - round(BAR * each.share)))
        bar[round(BAR * each.predicted)] = "●"
        low, high = each.ci95
        table.add_row(
            f"{each.predicted:.0%}",
            f"{each.share:.0%}",
            f"{low:.0%} to {high:.0%}",
            str(each.n),
            "".join(bar),
        )
    return table


def words(calibration: AnswerCalibration) -> str:
    """What the calibration is worth, as sentences."""
    found = calibration.reliability
    return (
        f"{found.right} of {found.n} answers are right. Expected calibration error {found.ece:.3f}, Brier score "
        f"{found.brier:.3f}, each problem by a model fitted on others. From a probability of "
        f"{calibration.min_confidence:.2f} on an answer counts as solved."
    )


def _draw(calibration: AnswerCalibration, path: Path) -> None:
    try:
        from ratchet.cli.evaluation.reliability_plot import draw_reliability
    except ImportError as error:
        complain(f"no plot was made: {error}. The extra `local` brings what it needs.")
        return
    try:
        draw_reliability(calibration, path)
    except OSError as error:
        raise typer.BadParameter(f"{path}: {error.strerror}.", param_hint="--plot") from None


def register(app: typer.Typer) -> None:
    """Add the command to the program."""
    app.command("calibrate")(calibrate)
