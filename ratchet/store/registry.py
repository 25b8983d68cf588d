"""The model registry, in Postgres: versions, the data they were made from, and what they measured.

A version never changes what it is, only its state. Which versions serve is in `pairs`.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from sqlalchemy import RowMapping, and_, select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncEngine

from ratchet.contracts.round_metrics import Measured
from ratchet.contracts.trainer import (
    Ancestor,
    DatasetView,
    Lineage,
    ModelKind,
    ModelRegistration,
    ModelView,
)
from ratchet.states import MODEL_TRANSITIONS, ModelState, check_transition
from ratchet.store import tables as t
from ratchet.store.engine import reading, retried, transaction
from ratchet.store.ids import new_id
from ratchet.store.rounds import RoundClaim, require_lease


class VersionConflictError(Exception):
    """The version is registered already, as something else."""


class UnknownParentError(Exception):
    """The parent version is not registered."""


@dataclass(frozen=True, slots=True)
class Registered:
    """A version, and whether this call made it."""

    model: ModelView
    created: bool


class Registry:
    """Model versions, data sets and evaluations. Every method raises StoreUnavailableError when Postgres is away."""

    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine

    @retried
    async def register(self, model: ModelRegistration, dataset: UUID | None = None) -> Registered:
        """Add a version as a candidate. A version that is there already, with the same content, stays as it is.

        Raises VersionConflictError and UnknownParentError.
        """
        async with transaction(self._engine) as connection:
            if model.parent is not None and model.parent != model.version:
                known = await connection.execute(
                    select(t.models.c.version).where(t.models.c.version == model.parent)
                )
                if known.one_or_none() is None:
                    raise UnknownParentError(
                        f"The parent {model.parent!r} is not registered. Register it first."
                    )
            elif model.parent is not None:
                raise UnknownParentError("A version cannot be its own parent.")
            made = await connection.execute(
                insert(t.models)
                .values(state=ModelState.CANDIDATE, dataset=dataset, **model.model_dump())
                .on_conflict_do_nothing()
                .returning(t.models.c.version)
            )
            created = made.one_or_none() is not None
            view = _model(
                (await connection.execute(select(t.models).where(t.models.c.version == model.version)))
                .mappings()
                .one()
            )
        same = (view.kind, view.uri, view.sha256, view.parent) == (
            model.kind,
            model.uri,
            model.sha256,
            model.parent,
        )
        if not same:
            raise VersionConflictError(
                f"Version {model.version!r} is registered already, with other content."
            )
        return Registered(view, created)

    @retried
    async def get(self, version: str) -> ModelView | None:
        """One version; None: unknown."""
        async with reading(self._engine) as connection:
            row = (
                (await connection.execute(select(t.models).where(t.models.c.version == version)))
                .mappings()
                .one_or_none()
            )
        return None if row is None else _model(row)

    @retried
    async def lineage(self, version: str) -> Lineage | None:
        """The version and its ancestors with their data sets, the base last; None: unknown version."""
        found: list[Ancestor] = []
        async with reading(self._engine) as connection:
            current: str | None = version
            while current is not None:
                row = (
                    (await connection.execute(select(t.models).where(t.models.c.version == current)))
                    .mappings()
                    .one_or_none()
                )
                if row is None:
                    break
                data = (
                    (await connection.execute(select(t.datasets).where(t.datasets.c.id == row["dataset"])))
                    .mappings()
                    .one_or_none()
                )
                found.append(Ancestor(model=_model(row), dataset=None if data is None else _dataset(data)))
                current = row["parent"]
        return Lineage(versions=found) if found else None

    @retried
    async def models(
        self, kind: ModelKind | None = None, state: ModelState | None = None, limit: int = 100
    ) -> list[ModelView]:
        """Versions, the newest first."""
        query = select(t.models).order_by(t.models.c.created_at.desc(), t.models.c.version).limit(limit)
        if kind is not None:
            query = query.where(t.models.c.kind == kind)
        if state is not None:
            query = query.where(t.models.c.state == state)
        async with reading(self._engine) as connection:
            return [_model(row) for row in (await connection.execute(query)).mappings()]

    @retried
    async def reject(self, claim: RoundClaim, version: str) -> None:
        """A candidate of the round did not pass its gate. A version in any other state stays as it is."""
        check_transition(MODEL_TRANSITIONS, ModelState.CANDIDATE, ModelState.REJECTED)
        async with transaction(self._engine) as connection:
            await require_lease(connection, claim)
            await connection.execute(
                t.models.update()
                .where(t.models.c.version == version, t.models.c.state == ModelState.CANDIDATE)
                .values(state=ModelState.REJECTED)
            )

    @retried
    async def add_dataset(
        self, claim: RoundClaim, dataset_id: UUID, name: str, uri: str, sha256: str, rows: int
    ) -> None:
        """A data set that the round has made. Adding it again changes nothing."""
        async with transaction(self._engine) as connection:
            await require_lease(connection, claim)
            await connection.execute(
                insert(t.datasets)
                .values(id=dataset_id, round_id=claim.id, name=name, uri=uri, sha256=sha256, rows=rows)
                .on_conflict_do_nothing()
            )

    @retried
    async def add_evaluation(
        self, claim: RoundClaim, model: str, split: str, measured: Mapping[str, Measured]
    ) -> None:
        """What a model measured on a split in this round; the later measurement stands."""
        metrics = {name: each.model_dump(mode="json") for name, each in measured.items()}
        async with transaction(self._engine) as connection:
            await require_lease(connection, claim)
            where = and_(
                t.evaluations.c.model == model,
                t.evaluations.c.round_id == claim.id,
                t.evaluations.c.split == split,
            )
            await connection.execute(t.evaluations.delete().where(where))
            await connection.execute(
                t.evaluations.insert().values(
                    id=new_id(), model=model, round_id=claim.id, split=split, metrics=metrics
                )
            )


def _model(row: RowMapping | dict[Any, Any]) -> ModelView:
    dataset = row["dataset"]
    return ModelView(**{**row, "dataset": None if dataset is None else str(dataset)})


def _dataset(row: RowMapping) -> DatasetView:
    return DatasetView(
        id=str(row["id"]),
        name=row["name"],
        round=None if row["round_id"] is None else str(row["round_id"]),
        uri=row["uri"],
        sha256=row["sha256"],
        rows=row["rows"],
    )
