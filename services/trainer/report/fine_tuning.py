"""The report's section on the policy's training: how far it went, and what problems that were kept apart said of it."""

from collections.abc import Sequence

from ratchet.contracts.rounds import RoundView
from services.trainer.report.metrics import count
from services.trainer.report.tables import NONE, Cell, Section, Table, round_cell


def fine_tuning(rounds: Sequence[RoundView]) -> Section:
    """A row for each round."""
    return Section(
        "policy",
        "The policy's training",
        (
            "The loss (nats a token) is that of verified programs of problems that the policy did not learn from. The best of "
            "the points at which it was taken is chosen, and of the way there from the base a part: scale 0 is the base "
            "itself, 1 the whole way. Without such programs the last step is the policy.",
        ),
        (
            Table(
                (
                    "round",
                    "step format",
                    "programs",
                    "steps",
                    "kept apart",
                    "loss of the base",
                    "after the last step",
                    "chosen",
                    "its loss",
                ),
                tuple((round_cell(view), *_cells(view)) for view in rounds),
            ),
        ),
    )


def _cells(view: RoundView) -> tuple[Cell, ...]:
    trained = view.metrics.policy
    if trained is None:
        return (NONE,) * 8
    went = Cell(trained.step_format or NONE.text), Cell(count(trained.examples)), Cell(count(trained.steps))
    told = trained.validation
    if told is None:
        return (*went, *(NONE,) * 5)
    chosen = Cell(f"step {told.step}", f"scale {told.scale:g}") if told.scale else Cell("the base", "scale 0")
    return (
        *went,
        Cell(f"{told.programs} programs", f"of {told.problems} problems"),
        Cell(f"{told.base_nll:.4f}"),
        Cell(f"{told.curve[-1].nll:.4f}"),
        chosen,
        Cell(f"{told.nll:.4f}"),
    )
