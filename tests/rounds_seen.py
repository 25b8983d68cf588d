"""Rounds as the trainer shows them, for tests of what is made of them."""

from datetime import UTC, datetime, timedelta

from ratchet.contracts.round_metrics import RoundMetrics
from ratchet.contracts.rounds import RoundConfig, RoundProgress, RoundView
from ratchet.states import RoundState


def seen(
    number: int, state: RoundState, metrics: RoundMetrics | None = None, reason: str | None = None
) -> RoundView:
    """A round of one run that took five minutes."""
    began = datetime(2026, 11, 24, 19, 0, tzinfo=UTC) + timedelta(minutes=10 * number)
    return RoundView(
        id=f"id-{number}",
        run="run-seed7",
        number=number,
        state=state,
        paused=False,
        cancel_requested=False,
        progress=RoundProgress(),
        config=RoundConfig(seed=7),
        metrics=metrics or RoundMetrics(),
        reason=reason,
        created_at=began,
        ended_at=began + timedelta(minutes=5),
    )
