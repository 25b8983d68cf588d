"""report.html: one file that needs no network, readable on a phone, light and dark.

All text but the curve, which matplotlib escapes, goes through the template's escaping: reasons and the names of families
come from problems and services.
"""

from collections.abc import Sequence
from datetime import datetime

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from ratchet.contracts.rounds import RoundView
from ratchet.contracts.search import StrategyName
from services.trainer.report.curve import points, svg
from services.trainer.report.metrics import percent, start_of, state_name
from services.trainer.report.sections import STAGES, sections

_templates = Environment(
    loader=PackageLoader("services.trainer.report", "."),
    autoescape=True,
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)


def page(rounds: Sequence[RoundView]) -> str:
    """The report of a run. `rounds`: one at least, in their order."""
    base = base_model(rounds)
    return _templates.get_template("page.html.j2").render(
        run=rounds[0].run,
        facts={
            "base model": base or "not known: no round has begun",
            "seed": ", ".join(dict.fromkeys(str(view.config.seed) for view in rounds)),
            "began": _day(rounds[0].created_at),
            "last round": f"{rounds[-1].number}, {state_name(rounds[-1])}"
            + ("" if (ended := rounds[-1].ended_at) is None else f" on {_day(ended)}"),
        },
        headline=headline(rounds),
        is_nano=base is not None and base.partition("@")[0] == "nano",
        incomparable=not _same_measure(rounds),
        curve=Markup(svg(rounds)),  # noqa: S704 - drawn here, its text escaped by matplotlib
        stages=[(stage.value, name) for stage, name in STAGES.items()],
        sections=sections(rounds),
        config=rounds[-1].config.model_dump_json(indent=2),
        config_of=rounds[-1].number,
    )


def base_model(rounds: Sequence[RoundView]) -> str | None:
    """The version that the policies are trained from."""
    return next((view.metrics.models.base for view in rounds if view.metrics.models is not None), None)


def headline(rounds: Sequence[RoundView]) -> str:
    """Where policy and whole system began, and where the pair that was served last stands."""
    start = start_of(rounds)
    parts = []
    for name, strategy in (("policy pass@1", StrategyName.GREEDY), ("whole system", StrategyName.MCTS)):
        served = [point for point in points(rounds, strategy) if point.served]
        if served:
            last = served[-1]
            parts.append(
                f"{name} {percent(last.estimate.value)}"
                if len(served) == 1
                else f"{name} from {percent(served[0].estimate.value)} to {percent(last.estimate.value)}"
            )
    if start is None or not parts:
        return "Nothing was measured yet."
    problems = {point.estimate.n for point in points(rounds, StrategyName.GREEDY)}
    n = f"{problems.pop()} " if len(problems) == 1 else ""
    # A number and its sign stay on one line.
    return f"On {n}held-out problems: {', '.join(parts)}.".replace(" %", "\N{NO-BREAK SPACE}%")


def _same_measure(rounds: Sequence[RoundView]) -> bool:
    """Whether all rounds were measured on the same problems in the same way."""
    ways = [
        (view.config.held_out, view.config.evaluation, view.config.seed)
        for view in rounds
        if view.metrics.evaluation is not None
    ]
    return all(way == ways[0] for way in ways)


def _day(moment: datetime) -> str:
    return f"{moment:%Y-%m-%d %H:%M %Z}".strip()
