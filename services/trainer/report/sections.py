"""The report's sections, from the rounds of one run in their order.

What a round did not get to is a dash. Nothing is judged here but what the rounds have measured, except the paired comparison
of MCTS and best-of-N, whose outcomes on the same problems are kept with them.
"""

from collections.abc import Callable, Sequence

from ratchet.contracts.round_metrics import Comparison, DatasetCard, Decision, RoundMetrics
from ratchet.contracts.rounds import RoundView
from ratchet.contracts.search import StrategyName
from ratchet.states import RoundState
from services.trainer.gate import POLICY, SYSTEM
from services.trainer.report.curve import Point, points
from services.trainer.report.fine_tuning import fine_tuning
from services.trainer.report.metrics import (
    DASH,
    Estimate,
    count,
    estimate_of_measured,
    start_of,
)
from services.trainer.report.prm_quality import prm_quality
from services.trainer.report.tables import (
    NONE,
    Bar,
    Cell,
    Section,
    Table,
    accuracy_and_tokens_cell,
    accuracy_cell,
    digest_cell,
    paired_cell,
    round_cell,
    round_headings,
    seconds_cell,
    solved_cell,
)

STAGES = {
    RoundState.CREATED: "preparing",
    RoundState.SEARCHING: "searching",
    RoundState.SELECTING: "selecting",
    RoundState.TRAINING_POLICY: "training the policy",
    RoundState.TRAINING_PRM: "training the PRM",
    RoundState.EVALUATING: "evaluating",
}

Reading = Callable[[RoundMetrics], float | None]
"""A number of a round's metrics; None where the round did not get to it."""


def sections(rounds: Sequence[RoundView]) -> list[Section]:
    """All of the report, in its order."""
    return [
        _accuracy(rounds),
        _strategies(rounds),
        _coverage(rounds),
        fine_tuning(rounds),
        prm_quality(rounds),
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
        found = [_estimate_of(by_strategy[each].get(of)) for each in strategies]
        # The policy alone may have answered more of them than were searched.
        counts = dict.fromkeys(each.n for each in found if each is not None)
        return heading, *map(accuracy_cell, found), Cell(" / ".join(map(count, counts)) or DASH)

    start = start_of(rounds)
    rows = [] if start is None else [row(Cell(start[1]), 0)]
    rows += [row(round_cell(view), view.number) for view in rounds]
    return Section(
        "accuracy",
        "Accuracy on held-out problems",
        (
            "With 95 % intervals (Wilson). No reference answer is known to any of the strategies. "
            "A hollow mark is a pair that was measured but not served. "
            "The dashed line is a goal to compare with, not a measurement: a self-evolving solver in the manner of rStar-Math "
            "that climbs from 42 % to 68, 78, 85 and 90 % in four rounds.",
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
    headings |= {view.number: round_cell(view) for view in rounds}
    rows = []
    for of, heading in headings.items():
        found = [_estimate_of(by_strategy[each].get(of)) for each in strategies]
        if any(found):
            rows.append((heading, *map(accuracy_and_tokens_cell, found), paired_cell(found[0], found[1])))
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
        cards = [view.metrics.selection for view in rounds]
        by_round = [{} if card is None else card.coverage.get(kind, {}) for card in cards]
        # Difficulties are numbers written as text.
        names = sorted({(len(name) * (kind == "difficulty"), name) for each in by_round for name in each})
        rows = [
            (Cell(name), *(solved_cell(*each[name]) if name in each else NONE for each in by_round))
            for _, name in names
        ]
        if rows:
            tables.append(Table((kind, *round_headings(rounds)), tuple(rows)))
    labels = [view.metrics.label for view in rounds]
    overall = tuple(NONE if label is None else solved_cell(label.solved, label.problems) for label in labels)
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


_COMPARED = {POLICY: "policy pass@1", "development.greedy": "policy pass@1 (greedy)", SYSTEM: "whole system"}
"""What the gate compares, by its name for people; older rounds compared greedy policies."""
_SAID = {
    Decision.NOT_WORSE: Cell("not worse", tone="good"),
    Decision.WORSE: Cell("worse", tone="bad"),
    Decision.UNDECIDED: Cell("not decided"),
}


def _comparison_row(view: RoundView, name: str, found: Comparison) -> tuple[Cell, ...]:
    interval = DASH if found.ci95 is None else " to ".join(f"{100 * edge:+.1f}" for edge in found.ci95)
    return (
        round_cell(view),
        Cell(_COMPARED.get(name, name)),
        Cell(count(found.n)),
        Cell(f"{100 * found.difference:+.1f}"),
        Cell(interval),
        _SAID[found.decision],
    )


def _choice_rows(view: RoundView) -> list[tuple[Cell, ...]]:
    """What each pair solved of the problems that chose the one to be tested."""
    verdict = view.metrics.gate
    if verdict is None:
        return []
    return [
        (
            round_cell(view),
            Cell(pair),
            accuracy_cell(estimate_of_measured(each)),
            Cell(count(each.n)),
            Cell("tested" if pair == verdict.candidate else "reference" if pair == verdict.reference else ""),
        )
        for pair, each in verdict.selection.items()
    ]


def _gate(rounds: Sequence[RoundView]) -> Section:
    verdicts = [(view, view.metrics.gate) for view in rounds if view.metrics.gate is not None]
    rows = tuple(
        _comparison_row(view, name, found)
        for view, verdict in verdicts
        for name, found in sorted(verdict.comparisons.items())
    )
    rules = {
        (view.config.gate.margin, view.config.gate.false_promotion, view.config.gate.false_rejection)
        for view, verdict in verdicts
        if verdict.candidate
    }
    rule = " ".join(
        f"Of pairs that are {100 * margin:g} points worse at most {100 * promotion:g} % are promoted; of pairs that are as "
        f"good at most {100 * rejection:g} % are found worse."
        for margin, promotion, rejection in sorted(rules)
    )
    tables = [Table(("round", "compared", "problems", "points", "95 % interval", "verdict"), rows)]
    if choices := tuple(row for view, _ in verdicts for row in _choice_rows(view)):
        tables.append(Table(("round", "pair", "solved", "problems", ""), choices))
    return Section(
        "gate",
        "Gate",
        (
            "The new pair against the best pair so far, on the same development problems, by their shares of right tries. It "
            "is promoted when both comparisons show that it is not worse; problems are looked at until that is decided, or "
            "until there are no more. " + rule,
            "Which of the new pairs is tested was chosen on other problems, by the vote over the same samples of a policy, "
            "scored by either PRM. A round before this rule was compared with the pair that served.",
        ),
        tuple(tables),
    )


_TOKENS: dict[str, Reading] = {
    "generated by the label search": lambda metrics: None if metrics.label is None else metrics.label.tokens,
    "read by the policy's training": lambda metrics: (
        None if metrics.policy is None else metrics.policy.tokens
    ),
    "read by the PRM's training": lambda metrics: None if metrics.prm is None else metrics.prm.tokens,
}


def _cost(rounds: Sequence[RoundView]) -> Section:
    times = Table(
        ("seconds", *round_headings(rounds)),
        (
            *(
                (Cell(name), *(seconds_cell(view.metrics.seconds.get(stage)) for view in rounds))
                for stage, name in STAGES.items()
            ),
            (
                Cell("all stages"),
                *(seconds_cell(sum(view.metrics.seconds.values()) or None) for view in rounds),
            ),
        ),
    )
    return Section(
        "cost",
        "Seconds and tokens",
        (
            "Wall-clock seconds of each stage's last attempt. What the pair that served had measured in an earlier round is "
            "not measured again, so evaluating takes longest in the first.",
        ),
        (times, _reading_table("tokens", rounds, _TOKENS)),
        _bars(rounds),
    )


def _bars(rounds: Sequence[RoundView]) -> tuple[Bar, ...]:
    """Where the seconds of each round went; the longest round is as wide as the page."""
    longest = max((sum(view.metrics.seconds.values()) for view in rounds), default=0.0)
    return tuple(
        Bar(
            f"round {view.number}",
            sum(view.metrics.seconds.values()),
            tuple(
                (stage.value, took, 100 * took / longest)
                for stage in STAGES
                if (took := view.metrics.seconds.get(stage))
            ),
        )
        for view in rounds
        if any(view.metrics.seconds.values())
    )


def _reading_table(title: str, rounds: Sequence[RoundView], readings: dict[str, Reading]) -> Table:
    """A row for each reading, a column for each round."""
    return Table(
        (title, *round_headings(rounds)),
        tuple(
            (Cell(name), *(Cell(count(read(view.metrics))) for view in rounds))
            for name, read in readings.items()
        ),
    )


def _of_card(read: Callable[[DatasetCard], int | None]) -> Reading:
    return lambda metrics: None if metrics.selection is None else read(metrics.selection)


_DATA: dict[str, Reading] = {
    "problems": _of_card(lambda card: card.problems),
    "solved": _of_card(lambda card: card.solved),
    "trajectories with an answer": _of_card(lambda card: card.trajectories_found),
    "trajectories selected": _of_card(lambda card: card.trajectories_selected),
    "of so many problems": _of_card(lambda card: card.selected_problems),
    "problems kept apart from both trainings": _of_card(lambda card: card.kept_apart),
    "solutions of these, to judge the policy's training by": _of_card(lambda card: card.validation_rows),
    "kept from earlier rounds": _of_card(lambda card: card.from_earlier_rounds),
    "rows in all": _of_card(lambda card: card.rows),
    "trees for the PRM": _of_card(lambda card: card.trees),
    "problems set aside in this round": _of_card(lambda card: card.quarantined),
    "set aside earlier, not searched": lambda metrics: (
        None if metrics.problems is None else metrics.problems.train.set_aside
    ),
    "refused as not verifiable": lambda metrics: (
        None if metrics.problems is None else metrics.problems.train.refused
    ),
    "too long for the policy's training": lambda metrics: (
        None if metrics.policy is None else metrics.policy.dropped_too_long
    ),
}


def _data(rounds: Sequence[RoundView]) -> Section:
    tables = [_reading_table("data set", rounds, _DATA)]
    cards = [view.metrics.selection for view in rounds]
    reasons = sorted({why for card in cards if card is not None for why in card.dropped})
    if reasons:
        rows = (
            (Cell(why), *(NONE if card is None else Cell(count(card.dropped.get(why))) for card in cards))
            for why in reasons
        )
        tables.append(Table(("trajectories left out", *round_headings(rounds)), tuple(rows)))
    return Section(
        "data",
        "Data set",
        (
            "Solutions that the policy was trained on, and what was left out. A problem is set aside when programs of one "
            "grounded behaviour that were found independently agree on another answer than its reference, in all of its "
            "searches and in the last one alone; neither policy nor PRM of the run is trained on it, until a person overrules "
            "that (ratchet rounds quarantine RUN).",
        ),
        tuple(tables),
    )


def _lineage(rounds: Sequence[RoundView]) -> Section:
    note = (
        "Which version was trained from which parent on which data; “ratchet models show VERSION” has the rest. The PRM "
        "also learns from the trees of earlier rounds."
    )
    began = next((view for view in rounds if view.metrics.models is not None), None)
    if began is not None and began.metrics.models is not None:
        models = began.metrics.models
        note += f" Served when round {began.number} began: policy {models.policy} and PRM {models.prm}."
    columns = ("round", "kind", "version", "trained from", "weights (SHA-256)", "data (SHA-256)")
    rows = tuple(row for view in rounds for row in _trained_rows(view))
    return Section("lineage", "Lineage", (note,), (Table(columns, rows),))


def _trained_rows(view: RoundView) -> list[tuple[Cell, ...]]:
    """The versions that a round has trained, the policy first."""
    models, policy, prm = view.metrics.models, view.metrics.policy, view.metrics.prm
    start = None
    if models is not None:
        start = models.policy if view.config.from_current else models.base
    data = digest_cell(None if view.metrics.selection is None else view.metrics.selection.sha256)
    return [
        (
            round_cell(view),
            Cell(kind),
            Cell(made.version),
            Cell(parent or DASH),
            digest_cell(made.sha256),
            data,
        )
        for kind, made, parent in (
            ("policy", policy, start),
            ("PRM", prm, None if policy is None else policy.version),
        )
        if made is not None
    ]


def _failures(rounds: Sequence[RoundView]) -> Section:
    rows = tuple(
        (round_cell(view), _finished_stages(view), Cell(view.reason or DASH))
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


def _finished_stages(view: RoundView) -> Cell:
    done = [name for stage, name in STAGES.items() if stage in view.metrics.seconds]
    return Cell(", ".join(done) or "none")


def _estimate_of(point: Point | None) -> Estimate | None:
    return None if point is None else point.estimate
