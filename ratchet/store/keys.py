"""API keys and the audit in Postgres. A key's secret is nowhere: what is kept is its SHA-256 (`ratchet.web.door.secrets`)."""

from collections.abc import Sequence
from dataclasses import asdict
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import Row, case, func, or_, select, text
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncEngine

from ratchet.contracts.keys import AuditEntry, AuditPage, KeyLimits, KeyRequest, KeyView
from ratchet.store import tables as t
from ratchet.store.engine import reading, retried, transaction
from ratchet.store.key_records import AuditedCall, StoredKey
from ratchet.store.search_states import TOKENS


class KeyNameTakenError(Exception):
    """A key that is in force has this name."""


class KeyStore:
    """All that is read and written about keys. Every method raises StoreUnavailableError when Postgres is away."""

    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine

    @retried
    async def create(self, key_id: UUID, request: KeyRequest, sha256: str) -> KeyView:
        """Store a key; with the same id again it is the same one. Raises KeyNameTakenError."""
        row = {
            "id": key_id,
            "name": request.name,
            "scope": request.scope,
            "limits": request.limits.model_dump(mode="json"),
            "sha256": sha256,
        }
        try:
            async with transaction(self._engine) as connection:
                await connection.execute(
                    insert(t.api_keys).values(row).on_conflict_do_nothing(index_elements=["id"])
                )
                found = await connection.execute(select(t.api_keys).where(t.api_keys.c.id == key_id))
                return _view(found.one())
        except IntegrityError as error:
            raise KeyNameTakenError(
                f"There is a key {request.name}. Revoke it first, or choose another name."
            ) from error

    @retried
    async def all(self) -> list[KeyView]:
        """All that were ever made, the newest first."""
        async with reading(self._engine) as connection:
            rows = await connection.execute(select(t.api_keys).order_by(t.api_keys.c.id.desc()))
            return [_view(row) for row in rows]

    @retried
    async def in_force(self) -> list[StoredKey]:
        """Those that have not been revoked."""
        async with reading(self._engine) as connection:
            rows = await connection.execute(select(t.api_keys).where(t.api_keys.c.revoked_at.is_(None)))
            return [
                StoredKey(row.id, row.name, row.scope, KeyLimits.model_validate(row.limits), row.sha256)
                for row in rows
            ]

    @retried
    async def revoke(self, name: str) -> KeyView | None:
        """Take the key out of force; one that is revoked already stays as it is. None: no key has this name."""
        named = t.api_keys.c.name == name
        async with transaction(self._engine) as connection:
            await connection.execute(
                t.api_keys.update()
                .where(named, t.api_keys.c.revoked_at.is_(None))
                .values(revoked_at=func.clock_timestamp())
            )
            newest = select(t.api_keys).where(named).order_by(t.api_keys.c.id.desc()).limit(1)
            row = (await connection.execute(newest)).one_or_none()
        return None if row is None else _view(row)

    @retried
    async def begun_by(self, search_id: UUID) -> UUID | None:
        """The key by which the search was begun; None: by the operator's, or there is no such search."""
        async with reading(self._engine) as connection:
            return (
                await connection.execute(select(t.searches.c.key_id).where(t.searches.c.id == search_id))
            ).scalar_one_or_none()

    @retried
    async def searches_under_way(self, key_id: UUID) -> int:
        """How many searches of the key wait or run."""
        async with reading(self._engine) as connection:
            counted = await connection.execute(
                select(func.count())
                .select_from(t.searches)
                .where(
                    t.searches.c.key_id == key_id,
                    # Written as a literal, so that the partial index serves it.
                    text("searches.state IN ('queued', 'running')"),
                )
            )
            return counted.scalar_one()

    @retried
    async def tokens_since(self, key_id: UUID, since: datetime) -> int:
        """Tokens that the policy has generated for the key's searches that were begun, or queued again, since then.

        Of one that was begun before, what it has generated since it was queued again. `since` is a midnight (UTC).
        """
        begun = t.searches.c.created_at >= since
        tokens = case((begun, TOKENS), else_=TOKENS - t.searches.c.tokens_before)
        async with reading(self._engine) as connection:
            summed = await connection.execute(
                select(func.coalesce(func.sum(tokens), 0)).where(
                    t.searches.c.key_id == key_id, or_(begun, t.searches.c.queued_again_at >= since)
                )
            )
            return int(summed.scalar_one())

    @retried
    async def write_audit(self, calls: Sequence[AuditedCall]) -> None:
        """Store calls; those that are there already stay."""
        async with transaction(self._engine) as connection:
            await connection.execute(
                insert(t.audited_calls).on_conflict_do_nothing(), [asdict(call) for call in calls]
            )

    @retried
    async def audit(self, limit: int, before: UUID | None = None, key: str | None = None) -> AuditPage:
        """The newest calls first; `before` is the `next` of the page before, `key` the name of one."""
        query = select(t.audited_calls).order_by(t.audited_calls.c.id.desc()).limit(limit + 1)
        if before is not None:
            query = query.where(t.audited_calls.c.id < before)
        if key is not None:
            query = query.where(t.audited_calls.c.key == key)
        async with reading(self._engine) as connection:
            rows = (await connection.execute(query)).all()
        entries = [AuditEntry.model_validate(dict(row._mapping)) for row in rows[:limit]]
        return AuditPage(entries=entries, next=entries[-1].id if len(rows) > limit else None)


def _view(row: Row[Any]) -> KeyView:
    return KeyView(
        id=row.id,
        name=row.name,
        scope=row.scope,
        limits=KeyLimits.model_validate(row.limits),
        created_at=row.created_at,
        revoked_at=row.revoked_at,
    )
