"""The PRM versions that the service holds: PRM1, always, and trained ones that come and go while requests are answered.

Limits: all versions share one worker thread and the device's memory; nothing is moved out of the way of a new one.
"""

import asyncio
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Protocol

from ratchet.contracts.prm import ScoreRequest, ScoreResponse
from ratchet.contracts.serving import PRM1
from ratchet.models.checkpoint import ResolvedModel
from ratchet.models.prm_head import HeadError
from ratchet.models.sources import resolve
from ratchet.web.held_versions import CheckpointError, HeldVersion, HeldVersions
from services.prm.cache import StepCache
from services.prm.trained import TrainedPrm

PRM1_URI = "built-in"


class Scorer(Protocol):
    """What answers for a version."""

    @property
    def device(self) -> str | None:
        """Where its network is; None when it has none here."""

    @property
    def answers_as(self) -> str | None:
        """The name in the answers that it gives now; None when it cannot answer yet."""

    async def score(self, body: ScoreRequest) -> ScoreResponse:
        """Scores of every step, of the shape of `body.steps`."""


class PrmVersions(HeldVersions[Scorer]):
    """The held versions; `start` decides which one serves first."""

    def __init__(self, prm1: Scorer, cache: StepCache, cache_dir: Path) -> None:
        super().__init__(
            HeldVersion(PRM1, PRM1_URI, sha256=None, model=prm1, permanent=True), cache_dir=cache_dir
        )
        self._cache = cache
        self._worker = ThreadPoolExecutor(1, thread_name_prefix="prm")

    async def start(self, model: str) -> None:
        """Serve PRM1, or the trained PRM of a folder or hub id. Raises ModelSourceError, CheckpointError."""
        if model != PRM1:
            found = await asyncio.to_thread(resolve, model, self._cache_dir)
            self.serving = await self._hold(found.version, model, found)
            self.configured = self.serving.name
        self.ready = True

    async def close(self) -> None:
        """End the worker thread; what waits for it is dropped."""
        await super().close()
        self._worker.shutdown(wait=False, cancel_futures=True)

    async def _open(self, name: str, found: ResolvedModel) -> Scorer:
        try:
            from services.prm.head import TrainedHead
        except ImportError as error:
            raise CheckpointError(f"{error}. Install the extra models, cpu or gpu.") from error
        try:
            head = await asyncio.to_thread(TrainedHead, found.path)
        except HeadError as error:
            raise CheckpointError(str(error)) from error
        return TrainedPrm(name, found.sha256, head, self._worker, self._cache)

    async def _close(self, version: HeldVersion[Scorer]) -> None:
        """Nothing to do: the network goes with the last reference to it."""
