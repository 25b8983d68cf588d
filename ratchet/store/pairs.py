"""Which policy and PRM serve together, in Postgres: every pair that was made to serve, one after the other.

Rows are only added, and the newest one serves. The states of the versions change in the same transaction.
"""

from collections.abc import Mapping
from typing import Any
from uuid import UUID

from sqlalchemy import RowMapping, select, text
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from ratchet.contracts.serving import PRM1
from ratchet.contracts.trainer import ModelKind, ServedBy, ServingPair
from ratchet.states import MODEL_TRANSITIONS, ModelState, check_transition
from ratchet.store import tables as t
from ratchet.store.engine import reading, retried, transaction
from ratchet.store.rounds import RoundClaim, require_lease


class UnknownVersionError(Exception):
    """No such policy, or no such PRM, is registered."""


class RollbackError(Exception):
    """There is nothing to go back to, or another pair serves than the one that was to be left; the message says which."""


class PairStore:
    """The pairs that were made to serve. Every method raises StoreUnavailableError when Postgres is away."""

    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine

    @retried
    async def current(self) -> ServingPair | None:
        """The pair that serves; None: no policy was ever registered."""
        async with reading(self._engine) as connection:
            return await _newest(connection)

    @retried
    async def history(self, limit: int = 100) -> list[ServingPair]:
        """The newest first."""
        query = select(t.serving_pairs).order_by(t.serving_pairs.c.id.desc()).limit(limit)
        async with reading(self._engine) as connection:
            return [_pair(row) for row in (await connection.execute(query)).mappings()]

    @retried
    async def last_with(self, policy: str) -> ServingPair | None:
        """The pair in which a policy last served; None: it never did."""
        async with reading(self._engine) as connection:
            return await _newest(connection, policy=policy)

    @retried
    async def previous(self, leaving: int) -> ServingPair:
        """The pair that `rollback` would make serve. Raises RollbackError."""
        async with reading(self._engine) as connection:
            return await _previous(connection, leaving)

    @retried
    async def serve(
        self, policy: str, prm: str, why: ServedBy, claim: RoundClaim | None = None
    ) -> ServingPair:
        """Make a pair serve, as a person or the settings want it, or the round that `claim` holds. Gives the pair that serves.

        The versions that served are retired. Nothing changes where the pair serves already, nor where the round has promoted
        it before: whoever went back since has the last word. Raises UnknownVersionError, IllegalTransitionError (a version
        was rejected) and RoundLostError.
        """
        async with transaction(self._engine) as connection:
            if claim is not None:
                await require_lease(connection, claim)
            await _lock(connection)
            current = await _newest(connection)
            if current is not None and (
                (current.policy, current.prm) == (policy, prm)
                or (
                    claim is not None and await _newest(connection, policy=policy, prm=prm, round_id=claim.id)
                )
            ):
                return current
            await _set_states(connection, policy, prm)
            return await _add(
                connection,
                policy=policy,
                prm=prm,
                why=why,
                before=None if current is None else current.id,
                round_id=None if claim is None else claim.id,
            )

    @retried
    async def rollback(self, leaving: int) -> ServingPair:
        """Make the pair serve again that served before the pair with the id `leaving`, which has to serve. Gives the new row.

        Leaving that one goes further back. Asking twice to leave the same one goes back once. Raises RollbackError.
        """
        async with transaction(self._engine) as connection:
            await _lock(connection)
            target = await _previous(connection, leaving)
            if target.id > leaving:
                return target
            await _set_states(connection, target.policy, target.prm)
            return await _add(
                connection,
                policy=target.policy,
                prm=target.prm,
                why=ServedBy.ROLLBACK,
                before=target.before,
                round_id=None,
            )


async def _lock(connection: AsyncConnection) -> None:
    """One writer at a time; readers go on."""
    await connection.execute(text("LOCK TABLE serving_pairs IN SHARE ROW EXCLUSIVE MODE"))


async def _newest(connection: AsyncConnection, **values: Any) -> ServingPair | None:
    """The newest pair with these values in its columns."""
    query = select(t.serving_pairs).filter_by(**values).order_by(t.serving_pairs.c.id.desc()).limit(1)
    row = (await connection.execute(query)).mappings().one_or_none()
    return None if row is None else _pair(row)


async def _previous(connection: AsyncConnection, leaving: int) -> ServingPair:
    """Where a rollback from `leaving` goes; what serves, if that is where one has gone. Raises RollbackError."""
    newest = select(t.serving_pairs).order_by(t.serving_pairs.c.id.desc()).limit(2)
    rows = [_pair(row) for row in (await connection.execute(newest)).mappings()]
    if not rows:
        raise RollbackError("No pair serves yet.")
    if rows[0].id == leaving:
        found = None if rows[0].before is None else await _newest(connection, id=rows[0].before)
        if found is None:
            raise RollbackError(f"No pair served before pair {leaving}.")
        return found
    if rows[0].why is ServedBy.ROLLBACK and rows[1].id == leaving:
        return rows[0]
    raise RollbackError(f"Pair {rows[0].id} serves, and not pair {leaving}. GET /pairs lists them.")


async def _add(connection: AsyncConnection, **values: Any) -> ServingPair:
    made = await connection.execute(t.serving_pairs.insert().values(**values).returning(t.serving_pairs))
    return _pair(made.mappings().one())


async def _set_states(connection: AsyncConnection, policy: str, prm: str) -> None:
    """Let these two versions serve, and retire the others. PRM1 has no state: it is not registered."""
    wanted: Mapping[ModelKind, str | None] = {
        ModelKind.POLICY: policy,
        ModelKind.PRM: None if prm == PRM1 else prm,
    }
    for kind, version in wanted.items():
        serving = (t.models.c.kind == kind, t.models.c.state == ModelState.SERVING)
        check_transition(MODEL_TRANSITIONS, ModelState.SERVING, ModelState.RETIRED)
        await connection.execute(
            t.models.update()
            .where(*serving, t.models.c.version.is_distinct_from(version))
            .values(state=ModelState.RETIRED)
        )
        if version is None:
            continue
        found = (
            await connection.execute(
                select(t.models.c.state)
                .where(t.models.c.version == version, t.models.c.kind == kind)
                .with_for_update()
            )
        ).scalar_one_or_none()
        if found is None:
            raise UnknownVersionError(f"There is no {kind} {version} in the registry.")
        if found is not ModelState.SERVING:
            check_transition(MODEL_TRANSITIONS, found, ModelState.SERVING)
            await connection.execute(
                t.models.update().where(t.models.c.version == version).values(state=ModelState.SERVING)
            )


def _pair(row: RowMapping) -> ServingPair:
    round_id: UUID | None = row["round_id"]
    return ServingPair(
        id=row["id"],
        policy=row["policy"],
        prm=row["prm"],
        why=row["why"],
        round=None if round_id is None else str(round_id),
        before=row["before"],
        created_at=row["created_at"],
    )
