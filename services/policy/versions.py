"""The versions of the policy: each has an engine of its own, and one of them serves.

An engine's death takes its version away; that of the serving one is for the owner to see (`PolicyVersions.run`).

Limits: on CUDA vLLM's engines share one GPU (see `engines.vllm`). A hub id is found only in the hub's cache once the
service runs offline.
"""

import asyncio
import contextlib
from dataclasses import dataclass, field

import structlog

from ratchet.contracts.policy import Prefix
from ratchet.contracts.serving import HeldModel
from ratchet.models.checkpoint import ResolvedModel
from ratchet.models.prompts import choose
from ratchet.settings import BEST_HERE, PolicySettings
from ratchet.solutions.step_formats import StepFormat
from ratchet.web.held_versions import CheckpointError, HeldVersion, HeldVersions
from services.policy.engines.base import Engine, EngineFailedError, EngineStartError, Sampling
from services.policy.shared_draws import SharedDraws

log = structlog.get_logger()


@dataclass(frozen=True)
class StepWriter:
    """What answers for a version: the engine that runs its model, and the format in which that writes steps."""

    engine: Engine
    step_format: StepFormat
    draws: SharedDraws = field(default_factory=SharedDraws, compare=False)


class PolicyVersions(HeldVersions[StepWriter]):
    """The held versions, the first of which starts with `run`."""

    def __init__(self, first: HeldVersion[StepWriter], settings: PolicySettings) -> None:
        super().__init__(first, cache_dir=settings.cache_dir, limit=settings.max_models)
        if settings.model == BEST_HERE:
            # Nobody has named it: where a pair serves, that goes on serving.
            self.configured = None
        self._step_format = settings.step_format
        self._watchers: dict[HeldVersion[StepWriter], asyncio.Task[None]] = {}
        self._serving_died: asyncio.Future[str] | None = None

    async def run(self) -> str:
        """Start the first version, and return when the serving one has died: the reason. Raises EngineStartError."""
        self._serving_died = asyncio.get_running_loop().create_future()
        first, writer = self.serving, self.serving.model
        await writer.engine.start()
        with contextlib.suppress(EngineFailedError):  # `died` says so in a moment
            await warm_up(writer)
        self._watch(first)
        self.ready = True
        log.info("ready", model=first.name, engine=writer.engine.name, step_format=writer.step_format.name)
        reason = await self._serving_died
        self.ready = False
        return reason

    def describe(self, version: HeldVersion[StepWriter]) -> HeldModel:
        described = super().describe(version)
        return described.model_copy(update={"step_format": version.model.step_format.name})

    async def _open(self, name: str, found: ResolvedModel) -> StepWriter:
        try:
            # A version that the registry names may lie in a folder of another name: a snapshot of the hub's cache.
            step_format = await asyncio.to_thread(choose, self._step_format, found.path, name, found.version)
        except ValueError as error:
            raise CheckpointError(str(error)) from error
        writer = StepWriter(self.serving.model.engine.beside(found.path, name), step_format)
        try:
            await writer.engine.start()
            await warm_up(writer)
        except (EngineStartError, EngineFailedError) as error:
            await writer.engine.stop()
            raise CheckpointError(f"the checkpoint cannot be served: {error}") from error
        except BaseException:
            await writer.engine.stop()
            raise
        return writer

    async def _hold(self, name: str, uri: str, found: ResolvedModel) -> HeldVersion[StepWriter]:
        version = await super()._hold(name, uri, found)
        self._watch(version)
        return version

    async def _close(self, version: HeldVersion[StepWriter]) -> None:
        # The first version has no watcher before it is ready.
        if (watcher := self._watchers.pop(version, None)) is not None:
            watcher.cancel()
        await version.model.engine.stop()

    def _watch(self, version: HeldVersion[StepWriter]) -> None:
        self._watchers[version] = asyncio.create_task(self._await_death(version))

    async def _await_death(self, version: HeldVersion[StepWriter]) -> None:
        try:
            reason = await version.model.engine.died()
        except Exception as error:
            # One that cannot be watched counts as dead: nobody would hear of its end.
            log.exception("an engine cannot be watched", model=version.name)
            reason = f"it cannot be watched: {type(error).__name__}"
        if version is self.serving:
            assert self._serving_died is not None
            self._serving_died.set_result(reason)
            return
        log.error("a version's engine died", model=version.name, reason=reason)
        # One that is leaving is no longer held; `unload` ends it.
        if self._held.get(version.name) is version:
            del self._held[version.name]
            del self._watchers[version]
            await version.model.engine.stop()


async def warm_up(writer: StepWriter) -> None:
    """Sample once before anybody waits: what engines compile on first use, and the prompt's fixed part into the cache.

    Raises EngineFailedError.
    """
    engine = writer.engine
    prompt = engine.encode([writer.step_format.render(Prefix(problem="1 + 1"))])
    if len(prompt[0]) + 4 > engine.max_model_len:
        return
    await engine.generate(prompt, Sampling(n=2, temperature=1.0, top_p=0.95, seed=0, max_tokens=4))
