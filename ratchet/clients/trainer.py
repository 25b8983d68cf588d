"""Client of the trainer: rounds, models, calibrations."""

from typing import Literal
from urllib.parse import quote

from ratchet.clients.paths import model_path, round_path, run_path
from ratchet.contracts.calibration import AnswerCalibration, CalibrationList, CalibrationRequest
from ratchet.contracts.rounds import (
    Overrule,
    Quarantined,
    QuarantineList,
    RoundConfig,
    RoundList,
    RoundRequest,
    RoundRetry,
    RoundView,
)
from ratchet.contracts.strategies import StrategyChoice, StrategyChoices
from ratchet.contracts.trainer import Lineage, ModelList, ModelView, PairList, Rollback, ServingPair
from ratchet.service_client import ServiceClient


class TrainerClient(ServiceClient):
    """Rounds and the model registry. Every method raises ServiceError."""

    service = "trainer"
    attempt_seconds = 60.0
    max_connections = 8

    async def create_round(self, request: RoundRequest) -> RoundView:
        """Begin the next round of a run."""
        return await self._call(RoundView, "POST", "/rounds", request)

    async def rounds(self, run: str | None = None) -> list[RoundView]:
        """Rounds, the newest first."""
        query = f"?run={quote(run)}" if run is not None else ""
        return (await self._call(RoundList, "GET", f"/rounds{query}")).rounds

    async def round(self, round_id: str) -> RoundView:
        """One round as it stands."""
        return await self._call(RoundView, "GET", round_path(round_id))

    async def quarantine(self, round_id: str) -> QuarantineList:
        """Problems that the round has set aside."""
        return await self._call(QuarantineList, "GET", f"{round_path(round_id)}/quarantine")

    async def quarantine_of_run(self, run: str) -> QuarantineList:
        """Problems that the run has set aside."""
        return await self._call(QuarantineList, "GET", f"{run_path(run)}/quarantine")

    async def overrule(self, run: str, problem: str, reason: str | None = None) -> Quarantined:
        """Have the run train again on a problem that it has set aside."""
        path = f"{run_path(run)}/quarantine/{quote(problem, safe='')}/overrule"
        return await self._call(Quarantined, "POST", path, Overrule(reason=reason))

    async def ask(self, round_id: str, what: Literal["pause", "resume", "cancel"]) -> RoundView:
        """Pause, resume or cancel a round."""
        return await self._call(RoundView, "POST", f"{round_path(round_id)}/{what}")

    async def retry_round(self, round_id: str, config: RoundConfig | None = None) -> RoundView:
        """Have a failed round taken up again, where it failed."""
        return await self._call(RoundView, "POST", f"{round_path(round_id)}/retry", RoundRetry(config=config))

    async def calibrate(self, request: CalibrationRequest) -> AnswerCalibration:
        """Fit the probability of answers to searches that are over."""
        return await self._call(AnswerCalibration, "POST", "/calibrations", request)

    async def calibrations(self) -> list[AnswerCalibration]:
        """How probable answers are, by policy and PRM; the packaged ones last."""
        return (await self._call(CalibrationList, "GET", "/calibrations")).calibrations

    async def keep_strategy(self, choice: StrategyChoice) -> StrategyChoice:
        """Have searches with the strategy `auto` take this one for its policy and PRM."""
        return await self._call(StrategyChoice, "PUT", "/strategies", choice)

    async def strategies(self) -> list[StrategyChoice]:
        """Which strategy measured best, by policy and PRM, the newest first."""
        return (await self._call(StrategyChoices, "GET", "/strategies")).choices

    async def models(self) -> list[ModelView]:
        """All versions in the registry, the newest first."""
        return (await self._call(ModelList, "GET", "/models?limit=1000")).models

    async def model(self, version: str) -> ModelView:
        """One version."""
        return await self._call(ModelView, "GET", model_path(version))

    async def lineage(self, version: str) -> Lineage:
        """The version, its ancestors, and the data of each."""
        return await self._call(Lineage, "GET", f"{model_path(version)}/lineage")

    async def serve(self, version: str) -> ServingPair:
        """Promote a version; gives the pair in which it serves."""
        return await self._call(ServingPair, "POST", f"{model_path(version)}/serve")

    async def pairs(self, limit: int = 100) -> list[ServingPair]:
        """Pairs that were made to serve, the newest first: that one serves."""
        return (await self._call(PairList, "GET", f"/pairs?limit={limit}")).pairs

    async def roll_back(self, pair: int) -> ServingPair:
        """Leave the pair that serves for the one before it. Raises ServiceError (409 if there is none, or another serves)."""
        return await self._call(ServingPair, "POST", "/pairs/rollback", Rollback(pair=pair))
