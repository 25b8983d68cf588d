"""Rows of `rounds`: read into contracts, and taken up by a trainer.

A round must not keep a trainer busy for ever, nor stand in the way of the others: one that `max_attempts` trainers took up
without getting it further fails with that as its reason, and so does one that this version cannot read.
"""

from collections.abc import Sequence
from typing import Any

import structlog
from pydantic import ValidationError
from sqlalchemy import Case, RowMapping, case, func, or_, select
from sqlalchemy.ext.asyncio import AsyncConnection

from ratchet.contracts.round_metrics import RoundMetrics
from ratchet.contracts.rounds import RoundConfig, RoundProgress, RoundView
from ratchet.states import ROUND_ENDS, ROUND_TRANSITIONS, RoundState, check_transition
from ratchet.store import tables as t
from ratchet.store.engine import from_now

log = structlog.get_logger()

PROGRESS_SHARE = 50
"""A stage has got further when it has done this part (one in so many) more than any attempt before. Less may be chance: a
trainer that is killed by its memory dies a few steps earlier or later each time."""


class UnreadableRoundError(Exception):
    """This version cannot read the round; the message names the field."""


async def take_oldest(
    connection: AsyncConnection, owner: str, lease_seconds: float, max_attempts: int
) -> tuple[RowMapping, RoundConfig, RoundMetrics] | None:
    """Take up the oldest round that is not over, not paused, and nobody's; None when there is none.

    Rounds before it that cannot be worked on end as failed. A retry goes on with them.
    """
    free = or_(t.rounds.c.lease_until.is_(None), t.rounds.c.lease_until < func.clock_timestamp())
    oldest = (
        select(t.rounds)
        .where(t.rounds.c.state.not_in(ROUND_ENDS), t.rounds.c.paused.is_(False), free)
        .order_by(t.rounds.c.created_at)
        .limit(1)
        .with_for_update(skip_locked=True)
    )
    while True:
        row = (await connection.execute(oldest)).mappings().one_or_none()
        if row is None:
            return None
        # Somebody who cancels a round is heard before it is found to be hopeless.
        if row["attempts"] >= max_attempts and not row["cancel_requested"]:
            await _fail(connection, row, _hopeless(row))
            continue
        try:
            config, metrics = config_of(row), metrics_of(row)
        except UnreadableRoundError as error:
            await _fail(connection, row, str(error))
            continue
        taken = await connection.execute(
            t.rounds.update()
            .where(t.rounds.c.id == row["id"])
            .values(
                owner=owner,
                lease_until=from_now(lease_seconds),
                fence=t.rounds.c.fence + 1,
                attempts=t.rounds.c.attempts + 1,
            )
            .returning(*t.rounds.c)
        )
        return taken.mappings().one(), config, metrics


def got_further(progress: RoundProgress) -> dict[str, Any]:
    """The columns of a round to set for this progress: it starts the count of attempts anew where it is more than ever."""
    least = t.rounds.c.furthest + max(1, progress.total // PROGRESS_SHARE)

    def where_further(then: int, otherwise: Any) -> Case[Any]:
        return case((least <= progress.done, then), else_=otherwise)

    return {
        "attempts": where_further(0, t.rounds.c.attempts),
        "furthest": where_further(progress.done, t.rounds.c.furthest),
    }


FROM_THE_START = {"attempts": 0, "furthest": 0}
"""The columns of a round that begins another stage, or is retried."""


def config_of(row: RowMapping) -> RoundConfig:
    """What a trainer works with. Raises UnreadableRoundError, for settings of another version too."""
    try:
        return RoundConfig.model_validate(row["config"])
    except ValidationError as error:
        raise _unreadable("config", error) from error


def metrics_of(row: RowMapping) -> RoundMetrics:
    """What the stages have handed on; what another version has written beside it is left out. Raises UnreadableRoundError."""
    try:
        return RoundMetrics.model_validate(row["metrics"], extra="ignore")
    except ValidationError as error:
        raise _unreadable("metrics", error) from error


def view_of(row: RowMapping) -> RoundView:
    """The round as it is shown. Raises UnreadableRoundError."""
    try:
        return RoundView(
            id=str(row["id"]),
            run=row["run"],
            number=row["number"],
            state=row["state"],
            paused=row["paused"],
            cancel_requested=row["cancel_requested"],
            progress=RoundProgress.model_validate(row["progress"], extra="ignore"),
            # Settings of another version that this one does not know are not shown; a trainer would not work with them.
            config=RoundConfig.model_validate(row["config"], extra="ignore"),
            metrics=metrics_of(row),
            reason=row["reason"],
            failed_in=row["failed_in"],
            created_at=row["created_at"],
            ended_at=row["ended_at"],
        )
    except ValidationError as error:
        raise _unreadable("config", error) from error


def readable_views(rows: Sequence[RowMapping]) -> list[RoundView]:
    """The rounds that this version can read; the log names the others."""
    views: list[RoundView] = []
    for row in rows:
        try:
            views.append(view_of(row))
        except UnreadableRoundError as error:
            log.warning("round left out", round=str(row["id"]), error=str(error))
    return views


def _unreadable(part: str, error: ValidationError) -> UnreadableRoundError:
    wrong = error.errors(include_input=False)[0]
    where = ".".join(map(str, (part, *wrong["loc"])))
    return UnreadableRoundError(
        f"This version of Ratchet cannot read the round: {where}: {wrong['msg']}. Use the version that made it, or retry it "
        "with a configuration of this one."
    )


def _hopeless(row: RowMapping) -> str:
    progress = row["progress"] or {}
    stood = f" It stood at {progress['done']} of {progress['total']}." if progress.get("total") else ""
    return (
        f"{row['attempts']} trainers took the round up in {row['state']}, and none got it further: each was killed, or lost "
        f"its lease.{stood} Look into the trainer's log and the machine's memory; a retry goes on with {row['state']}."
    )


async def _fail(connection: AsyncConnection, row: RowMapping, reason: str) -> None:
    check_transition(ROUND_TRANSITIONS, row["state"], RoundState.FAILED)
    log.error("round failed", round=str(row["id"]), run=row["run"], reason=reason)
    await connection.execute(
        t.rounds.update()
        .where(t.rounds.c.id == row["id"])
        .values(
            state=RoundState.FAILED,
            failed_in=row["state"],
            reason=reason,
            ended_at=func.clock_timestamp(),
            lease_until=None,
            owner=None,
            # What the last trainer may still have under way must not land.
            fence=t.rounds.c.fence + 1,
        )
    )
