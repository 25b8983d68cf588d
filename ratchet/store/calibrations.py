"""Calibrations in Postgres: how probable an answer of a policy with its PRM is. The packaged ones stand where there is no other."""

from functools import cache
from importlib.resources import files

from pydantic import TypeAdapter
from sqlalchemy import func, select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncEngine

from ratchet.contracts.calibration import AnswerCalibration
from ratchet.store import tables as t
from ratchet.store.engine import retried, transaction

_CALIBRATIONS: TypeAdapter[list[AnswerCalibration]] = TypeAdapter(list[AnswerCalibration])


class CalibrationStore:
    """Calibrations by policy and PRM. Every method raises StoreUnavailableError when Postgres is away."""

    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine

    @retried
    async def put(self, calibration: AnswerCalibration) -> None:
        """Store it; an earlier one of the same pair goes."""
        row = {
            "policy": calibration.policy,
            "prm": calibration.prm,
            "calibration": calibration.model_dump(mode="json"),
        }
        async with transaction(self._engine) as connection:
            await connection.execute(
                insert(t.calibrations)
                .values(row)
                .on_conflict_do_update(
                    index_elements=["policy", "prm"],
                    set_={"calibration": row["calibration"], "created_at": func.clock_timestamp()},
                )
            )

    @retried
    async def get(self, policy: str, prm: str) -> AnswerCalibration | None:
        """The one of this pair, made here or packaged; None: it has none."""
        async with transaction(self._engine) as connection:
            found = (
                await connection.execute(
                    select(t.calibrations.c.calibration).where(
                        t.calibrations.c.policy == policy, t.calibrations.c.prm == prm
                    )
                )
            ).scalar_one_or_none()
        if found is not None:
            return AnswerCalibration.model_validate(found, extra="ignore")
        return next((each for each in packaged() if (each.policy, each.prm) == (policy, prm)), None)

    @retried
    async def all(self) -> list[AnswerCalibration]:
        """Those made here, the newest first, then those packaged ones that none of them replaces."""
        async with transaction(self._engine) as connection:
            rows = await connection.execute(
                select(t.calibrations.c.calibration).order_by(t.calibrations.c.created_at.desc())
            )
            made = [AnswerCalibration.model_validate(row, extra="ignore") for row in rows.scalars()]
        pairs = {(each.policy, each.prm) for each in made}
        return made + [each for each in packaged() if (each.policy, each.prm) not in pairs]


@cache
def packaged() -> tuple[AnswerCalibration, ...]:
    """Those of the packaged models, measured before they were shipped."""
    content = files("ratchet").joinpath("models", "calibrations.json").read_bytes()
    return tuple(_CALIBRATIONS.validate_json(content))
