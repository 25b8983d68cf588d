"""The report's tables, from the rounds of one run in their order.

A cell is text that the template escapes; what a round did not get to is a dash. Nothing is judged here but what the rounds
have measured, except the paired comparison of MCTS and best-of-N, whose outcomes on the same problems are kept with them.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from ratchet.contracts.rounds import RoundView
from ratchet.contracts.search import StrategyName
from ratchet.states import RoundState
from ratchet.statistics import mcnemar
from services.trainer.report.curve import Point, points
from services.trainer.report.metrics import (
    DASH,
    Estimate,
    at,
    count,
    entries,
    number,
    percent,
    prm_figure,
    start_of,
    state_name,
)

STAGES = {
    RoundState.CREATED: "preparing",
    RoundState.SEARCHING: "searching",
    RoundState.SELECTING: "selecting",
    RoundState.TRAINING_POLICY: "training the policy",
    RoundState.TRAINING_PRM: "training the PRM",
    RoundState.EVALUATING: "evaluating",
}
TONES = {RoundState.PROMOTED: "good", RoundState.REJECTED: "bad", RoundState.FAILED: "bad"}
DIGITS = 12
"""Of a digest, as many as tell it from others."""


@dataclass(frozen=True, slots=True)
class Cell:
    """Text, a smaller line under it, a share in [0, 1] that colours it, or a tone ("good", "bad")."""

    text: str
    detail: str = ""
    share: float | None = None
    tone: str = ""


NONE = Cell(DASH)


@dataclass(frozen=True, slots=True)
class Table:
    """The first cell of a row is its heading."""

    columns: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]


@dataclass(frozen=True, slots=True)
class Bar:
    """Stages of a round: name, seconds, and width in per cent of the longest round."""

    label: str
    seconds: float
    parts: tuple[tuple[str, float, float], ...]


@dataclass(frozen=True, slots=True)
class Section:
    """A heading with notes and tables; `anchor` is its id in the page."""

    anchor: str
    title: str
    notes: tuple[str, ...]
    tables: tuple[Table, ...]
    bars: tuple[Bar, ...] = ()


def sections(rounds: Sequence[RoundView]) -> list[Section]:
    """All of the report, in its order."""
    return [
        _accuracy(rounds),
        _strategies(rounds),
        _coverage(rounds),
        _prm(rounds),
        _gate(rounds),
        _cost(rounds),
        _data(rounds),
        _lineage(rounds),
        _failures(rounds),
    ]


def _accuracy(rounds: Sequence[RoundView]) -> Section:
    strategies = (
        StrategyName.GREEDY,
        StrategyName.MCTS,
        StrategyName.BEST_OF_N,
        StrategyName.MAJORITY,
    )
    by_strategy = {each: {point.number: point for point in points(rounds, each)} for each in strategies}

    def row(heading: Cell, of: int) -> tuple[Cell, ...]:
        found = [_of(by_strategy[each].get(of)) for each in strategies]
        n = next((each.n for each in found if each is not None), None)
        return heading, *map(_estimate, found), Cell(count(n))

    start = start_of(rounds)
    rows = [] if start is None else [row(Cell(start[1]), 0)]
    rows += [row(_round(view), view.number) for view in rounds]
    return Section(
        "accuracy",
        "Accuracy on held-out problems",
        (
            "With 95 % intervals (Wilson). No reference answer is known to any of the strategies. "
            "A hollow mark is a pair that was measured but not served. "
            "The dashed line is what the project's brief asks for: 42, 68, 78, 85, 90 %.",
        ),
        (
            Table(
                ("round", "policy pass@1", "whole system", "best-of-N", "majority", "problems"), tuple(rows)
            ),
        ),
    )


def _strategies(rounds: Sequence[RoundView]) -> Section:
    strategies = (StrategyName.MCTS, StrategyName.BEST_OF_N, StrategyName.MAJORITY)
    by_strategy = {each: {point.number: point for point in points(rounds, each)} for each in strategies}
    start = start_of(rounds)
    headings = {} if start is None else {0: Cell(start[1])}
    headings |= {view.number: _round(view) for view in rounds}
    rows = []
    for of, heading in headings.items():
        found = [_of(by_strategy[each].get(of)) for each in strategies]
        if any(found):
            rows.append((heading, *map(_with_tokens, found), _paired(found[0], found[1])))
    return Section(
        "strategies",
        "MCTS, best-of-N and majority at equal tokens",
        (
            "On held-out problems, with as many generated tokens for each. MCTS is the whole system; best-of-N and majority "
            "vote over the same independent trajectories, with and without the PRM's scores. The last column compares MCTS "
            "and best-of-N problem by problem: how many only one of them solves, and p of an exact two-sided McNemar test.",
        ),
        (Table(("round", "MCTS", "best-of-N", "majority", "only MCTS : only best-of-N"), tuple(rows)),),
    )


def _coverage(rounds: Sequence[RoundView]) -> Section:
    tables = []
    for kind in ("family", "difficulty"):
        by_round = [entries(view.metrics, "selection", "coverage", kind) for view in rounds]
        # Difficulties are numbers written as text.
        names = sorted({(len(name) * (kind == "difficulty"), name) for each in by_round for name in each})
        rows = [(Cell(name), *(_share(each.get(name)) for each in by_round)) for _, name in names]
        if rows:
            tables.append(Table((kind, *(f"round {view.number}" for view in rounds)), tuple(rows)))
    overall = tuple(
        _share([number(view.metrics, "label", "solved"), number(view.metrics, "label", "problems")])
        for view in rounds
    )
    if tables:
        first = tables[0]
        tables[0] = Table(first.columns, ((Cell("all"), *overall), *first.rows))
    return Section(
        "coverage",
        "Training problems solved",
        (
            "Share of a round's training problems for which its search found a correct trajectory. Rounds may search "
            "different and differently many problems, so a column is not always to be compared with its neighbour.",
        ),
        tuple(tables),
    )


def _prm(rounds: Sequence[RoundView]) -> Section:
    names = ("step_auc", "pair_accuracy", "trajectory_auc", "calibration_error_raw", "calibration_error")
    rows = tuple(
        (
            _round(view),
            *(_prm_cell(prm_figure(view, name)) for name in names),
            Cell(count(number(view.metrics, "prm", "quality", "problems"))),
        )
        for view in rounds
        if entries(view.metrics, "prm", "quality")
    )
    return Section(
        "prm",
        "PRM quality",
        (
            "On problems of the round's trees that the PRM was not trained on, with 95 % intervals by bootstrap over problems "
            "and the number of steps, pairs or trajectories. A step's truth is the share of right results after it. Every "
            "round has other trees, so rounds are not measured on the same steps.",
        ),
        (
            Table(
                (
                    "round",
                    "step AUC",
                    "pair accuracy",
                    "trajectory AUC",
                    "calibration error, raw",
                    "calibrated",
                    "problems",
                ),
                rows,
            ),
        ),
    )


_COMPARED = {f"development.{StrategyName.GREEDY}": "policy pass@1", "prm": "PRM, under the new policy"}


def _gate(rounds: Sequence[RoundView]) -> Section:
    rows = []
    rules = set()
    for view in rounds:
        alpha, tolerance = number(view.metrics, "gate", "alpha"), number(view.metrics, "gate", "tolerance")
        if alpha is not None and tolerance is not None:
            rules.add((alpha, tolerance))
        comparisons = sorted(entries(view.metrics, "gate", "comparisons").items())
        of_prm = at(view.metrics, "gate", "prm")
        for name, found in [*comparisons, *([("prm", of_prm)] if of_prm else [])]:
            loses = at(found, "loses")
            difference, p = number(found, "difference"), number(found, "p_worse")
            rows.append(
                (
                    _round(view),
                    Cell(_COMPARED.get(name, "whole system")),
                    Cell(count(number(found, "n"))),
                    Cell(count(number(found, "better"))),
                    Cell(count(number(found, "worse"))),
                    Cell(DASH if difference is None else f"{100 * difference:+.1f}"),
                    Cell(DASH if p is None else f"{p:.3f}"),
                    Cell("loses", tone="bad") if loses else Cell("holds", tone="good"),
                )
            )
    rule = " ".join(
        f"A pair loses when p < {alpha:g}, or when it is more than {100 * tolerance:g} points worse."
        for alpha, tolerance in sorted(rules)
    )
    return Section(
        "gate",
        "Gate",
        (
            "The new pair against the one that served, on the same development problems: how many only the new one "
            "solves, how many only the old one, and p of an exact one-sided McNemar test of “the new one is worse”. "
            "The PRM is judged apart, beside the one that served and under the same new policy; one that loses is not "
            "taken, and the new policy goes on with the old one. " + rule,
        ),
        (
            Table(
                ("round", "compared", "problems", "gained", "lost", "points", "p", "verdict"),
                tuple(rows),
            ),
        ),
    )


def _cost(rounds: Sequence[RoundView]) -> Section:
    seconds = {
        view.number: {stage: number(view.metrics, "seconds", stage.value) or 0.0 for stage in STAGES}
        for view in rounds
    }
    longest = max((sum(each.values()) for each in seconds.values()), default=0.0)
    bars = tuple(
        Bar(
            f"round {of}",
            sum(each.values()),
            tuple((stage.value, took, 100 * took / longest) for stage, took in each.items() if took),
        )
        for of, each in seconds.items()
        if longest and any(each.values())
    )
    times = Table(
        ("seconds", *(f"round {view.number}" for view in rounds)),
        (
            *(
                (Cell(name), *(_seconds(number(view.metrics, "seconds", stage.value)) for view in rounds))
                for stage, name in STAGES.items()
            ),
            (Cell("all stages"), *(_seconds(sum(seconds[view.number].values()) or None) for view in rounds)),
        ),
    )
    tokens = {
        "generated by the label search": ("label", "tokens"),
        "read by the policy's training": ("policy", "tokens"),
        "read by the PRM's training": ("prm", "tokens"),
    }
    read = Table(
        ("tokens", *(f"round {view.number}" for view in rounds)),
        tuple(
            (Cell(name), *(Cell(count(number(view.metrics, *path))) for view in rounds))
            for name, path in tokens.items()
        ),
    )
    return Section(
        "cost",
        "Seconds and tokens",
        (
            "Wall-clock seconds of each stage's last attempt. What the pair that served had measured in an earlier round is "
            "not measured again, so evaluating takes longest in the first.",
        ),
        (times, read),
        bars,
    )


def _data(rounds: Sequence[RoundView]) -> Section:
    def column(view: RoundView, *path: str) -> Cell:
        return Cell(count(number(view.metrics, *path)))

    counts = {
        "problems": ("selection", "problems"),
        "solved": ("selection", "solved"),
        "trajectories with an answer": ("selection", "trajectories_found"),
        "trajectories selected": ("selection", "trajectories_selected"),
        "of so many problems": ("selection", "selected_problems"),
        "kept from earlier rounds": ("selection", "from_earlier_rounds"),
        "rows in all": ("selection", "rows"),
        "trees for the PRM": ("selection", "trees"),
        "problems set aside in this round": ("selection", "quarantined"),
        "set aside earlier, not searched": ("problems", "train", "set_aside"),
        "refused as not verifiable": ("problems", "train", "refused"),
        "too long for the policy's training": ("policy", "dropped_too_long"),
    }
    reasons = sorted({why for view in rounds for why in entries(view.metrics, "selection", "dropped")})
    heading = tuple(f"round {view.number}" for view in rounds)
    tables = [
        Table(
            ("data set", *heading),
            tuple((Cell(name), *(column(view, *path) for view in rounds)) for name, path in counts.items()),
        )
    ]
    if reasons:
        tables.append(
            Table(
                ("trajectories left out", *heading),
                tuple(
                    (Cell(why), *(column(view, "selection", "dropped", why) for view in rounds))
                    for why in reasons
                ),
            )
        )
    return Section(
        "data",
        "Data set",
        (
            "Solutions that the policy was trained on, and what was left out. A problem is set aside when several independent "
            "programs agree on another answer than its reference; it is never trained on (GET /rounds/{id}/quarantine).",
        ),
        tuple(tables),
    )


def _lineage(rounds: Sequence[RoundView]) -> Section:
    rows = []
    for view in rounds:
        dataset = at(view.metrics, "selection", "sha256")
        continued = at(view.config, "from_current") is True
        parents = {
            "policy": at(view.metrics, "models", "policy" if continued else "base"),
            "prm": at(view.metrics, "policy", "version"),
        }
        for kind, parent in parents.items():
            version = at(view.metrics, kind, "version")
            if version is not None:
                rows.append(
                    (
                        _round(view),
                        Cell("PRM" if kind == "prm" else kind),
                        _name(version),
                        _name(parent),
                        _digest(at(view.metrics, kind, "sha256")),
                        _digest(dataset),
                    )
                )
    began = next((view for view in rounds if entries(view.metrics, "models")), None)
    note = (
        "Which version was trained from which parent on which data; “ratchet models show VERSION” has the rest. The PRM "
        "also learns from the trees of earlier rounds."
    )
    if began is not None:
        models = entries(began.metrics, "models")
        note += (
            f" Served when round {began.number} began: policy {models.get('policy', DASH)} and "
            f"PRM {models.get('prm', DASH)}."
        )
    columns = ("round", "kind", "version", "trained from", "weights (SHA-256)", "data (SHA-256)")
    return Section("lineage", "Lineage", (note,), (Table(columns, tuple(rows)),))


def _failures(rounds: Sequence[RoundView]) -> Section:
    rows = tuple(
        (_round(view), _reached(view), Cell(view.reason or DASH))
        for view in rounds
        if view.state in (RoundState.FAILED, RoundState.REJECTED)
    )
    note = "What they gathered is kept; what serves was not changed." if rows else "None."
    return Section(
        "failures",
        "Failed and rejected rounds",
        (note,),
        (Table(("round", "stages done", "reason"), rows),) if rows else (),
    )


def _round(view: RoundView) -> Cell:
    return Cell(f"{view.number}", detail=state_name(view), tone=TONES.get(view.state, ""))


def _reached(view: RoundView) -> Cell:
    done = [
        name for stage, name in STAGES.items() if number(view.metrics, "seconds", stage.value) is not None
    ]
    return Cell(", ".join(done) or "none")


def _of(point: Point | None) -> Estimate | None:
    return None if point is None else point.estimate


def _estimate(found: Estimate | None) -> Cell:
    if found is None:
        return NONE
    return Cell(percent(found.value), _interval(found))


def _interval(found: Estimate) -> str:
    return f"{100 * found.low:.1f}–{100 * found.high:.1f}"


def _with_tokens(found: Estimate | None) -> Cell:
    if found is None:
        return NONE
    tokens = "" if found.tokens is None else f", {found.tokens:.0f} tokens"
    return Cell(percent(found.value), _interval(found) + tokens)


def _prm_cell(found: Estimate | None) -> Cell:
    if found is None:
        return NONE
    return Cell(f"{found.value:.3f}", f"{found.low:.3f}–{found.high:.3f}, n = {count(found.n)}")


def _paired(one: Estimate | None, other: Estimate | None) -> Cell:
    """Outcomes of the same problems, in the same order."""
    if one is None or other is None or not one.outcomes or len(one.outcomes) != len(other.outcomes):
        return NONE
    pairs = list(zip(one.outcomes, other.outcomes, strict=True))
    first, second = pairs.count(("1", "0")), pairs.count(("0", "1"))
    return Cell(f"{first} : {second}", f"p = {mcnemar(first, second):.3f}")


def _share(pair: object) -> Cell:
    match pair:
        case [int() | float() as solved, int() | float() as n] if n > 0:
            return Cell(percent(solved / n), f"{solved:.0f} of {n:.0f}", share=max(0.0, min(1.0, solved / n)))
        case _:
            return NONE


def _seconds(found: float | None) -> Cell:
    return NONE if found is None else Cell(f"{found:,.1f}")


def _name(version: object) -> Cell:
    return NONE if version is None else Cell(str(version))


def _digest(sha256: object) -> Cell:
    return NONE if sha256 is None else Cell(str(sha256)[:DIGITS])
