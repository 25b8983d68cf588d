"""The report's section on PRM quality."""

from collections.abc import Sequence

from ratchet.contracts.round_metrics import Figure, TrainedPrm
from ratchet.contracts.rounds import RoundView
from services.trainer.report.metrics import count, estimate_of
from services.trainer.report.tables import NONE, Cell, Section, Table, figure_cell, round_cell

_COLUMNS = (
    "round",
    "step AUC",
    "end AUC",
    "sibling accuracy",
    "first-error F1",
    "step AUC, pooled",
    "end AUC, pooled",
    "problems",
)


def prm_quality(rounds: Sequence[RoundView]) -> Section:
    """Order, calibration, and siblings by their depth."""
    trained = [(view, view.metrics.prm) for view in rounds if view.metrics.prm is not None]
    tables = [
        Table(_COLUMNS, tuple((round_cell(view), *_order(prm)) for view, prm in trained)),
        Table(
            ("round", "calibration error, raw", "calibrated", "of ends", "of inner steps"),
            tuple((round_cell(view), *_calibration(prm)) for view, prm in trained),
        ),
    ]
    depths = sorted({depth for _, prm in trained for depth in prm.quality.sibling_accuracy_by_depth}, key=int)
    if depths:
        tables.append(
            Table(
                ("round", *(f"siblings of depth {depth}" for depth in depths)),
                tuple(
                    (
                        round_cell(view),
                        *(_cell(prm.quality.sibling_accuracy_by_depth.get(depth)) for depth in depths),
                    )
                    for view, prm in trained
                ),
            )
        )
    notes = [
        "On problems that the PRM was not trained on, with 95 % intervals by bootstrap over problems and the number of "
        "problems, pairs, trajectories or steps. A step's truth is the share of right results after it. AUCs are means over "
        "problems that have right and wrong steps; the pooled ones compare steps of different problems, too, so that it "
        "counts as skill to know which problems are hard. Sibling accuracy is over all pairs whose Q differs by the margin. "
        "First-error F1 is that of ProcessBench (arXiv 2412.06559): the harmonic mean of how often the first wrong step of a "
        "wrong trajectory is found and nothing in a right one. Every round has other trees, so rounds are not measured on the "
        "same steps.",
    ]
    if unjudged := [str(view.number) for view, prm in trained if not prm.held_out_problems]:
        notes.append(
            f"Round {', '.join(unjudged)}: no tree is of a problem that was held out, so the PRM is neither judged nor "
            "calibrated."
        )
    return Section("prm", "PRM quality", tuple(notes), tuple(tables))


def _order(prm: TrainedPrm) -> tuple[Cell, ...]:
    found = prm.quality
    figures = (
        found.within_step_auc,
        found.within_end_auc,
        found.sibling_accuracy,
        found.first_error_f1,
        found.pooled_step_auc,
        found.pooled_end_auc,
    )
    return (*map(_cell, figures), Cell(count(found.problems)))


def _calibration(prm: TrainedPrm) -> tuple[Cell, ...]:
    found = prm.quality
    return (
        _cell(found.calibration_error_raw),
        _cell(found.calibration_error),
        _cell(found.end_calibration_error),
        _cell(found.inner_calibration_error),
    )


def _cell(figure: Figure | None) -> Cell:
    return NONE if figure is None else figure_cell(estimate_of(figure))
