"""The model versions that the service holds, each with an engine of its own; one of them serves.

Every request holds its version from its first look at it to its answer, so a swap drops nothing: requests under way end
on the engine that they began on. A version that is let go takes no new requests, and its engine stops when the last one
has ended. An engine's death takes its version away; that of the serving one is for the owner to see (`Versions.run`).

Limits: all in this process's memory, and on CUDA vLLM's engines share one GPU (see `engines.vllm`). A hub id is found
only in the hub's cache once the service runs offline.
"""

import asyncio
import contextlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from http import HTTPStatus

import structlog

from ratchet.contracts.base import FieldError
from ratchet.contracts.policy import Prefix
from ratchet.contracts.serving import HeldModel, LoadModel
from ratchet.models.sources import ModelSourceError, resolve
from ratchet.settings import PolicySettings
from ratchet.solutions.step_formats import StepFormat, choose
from ratchet.web.app import ProblemError
from services.policy.engines.base import Engine, EngineFailedError, EngineStartError, Sampling

log = structlog.get_logger()


@dataclass(eq=False)
class Version:
    """One version: how it writes steps, and the engine that runs it."""

    engine: Engine
    step_format: StepFormat
    uri: str
    sha256: str | None
    requests: int = 0
    """That are under way."""
    idle: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def name(self) -> str:
        """As requests call it."""
        return self.engine.model_version


class Versions:
    """The held versions; used in one event loop. Methods raise ProblemError."""

    def __init__(self, first: Version, settings: PolicySettings) -> None:
        self.serving = first
        self.ready = False
        self._settings = settings
        self._held = {first.name: first}
        self._leaving: set[Version] = set()
        self._loading = asyncio.Lock()
        self._watchers: dict[Version, asyncio.Task[None]] = {}
        self._serving_died: asyncio.Future[str] | None = None

    async def run(self) -> str:
        """Start the first version, and return when the serving one has died: the reason. Raises EngineStartError."""
        self._serving_died = asyncio.get_running_loop().create_future()
        first = self.serving
        await first.engine.start()
        with contextlib.suppress(EngineFailedError):  # `died` says so in a moment
            await warm_up(first)
        self._watch(first)
        self.ready = True
        log.info("ready", model=first.name, engine=first.engine.name, step_format=first.step_format.name)
        reason = await self._serving_died
        self.ready = False
        return reason

    async def close(self) -> None:
        """Stop every engine."""
        self.ready = False
        for watcher in self._watchers.values():
            watcher.cancel()
        await asyncio.gather(*(version.engine.stop() for version in [*self._held.values(), *self._leaving]))

    def names(self) -> list[str]:
        """The held versions, the serving one first."""
        return sorted(self._held, key=lambda name: name != self.serving.name)

    def held(self) -> list[HeldModel]:
        """The held versions, the serving one first."""
        return [self.describe(self._held[name]) for name in self.names()]

    def describe(self, version: Version) -> HeldModel:
        """A version as the contract has it."""
        return HeldModel(
            version=version.name, uri=version.uri, sha256=version.sha256, serving=version is self.serving
        )

    @contextlib.contextmanager
    def using(self, name: str | None) -> Iterator[Version]:
        """The named version, or the serving one, kept until the block ends. 404 if it is not held, 503 while loading."""
        self._require_ready()
        version = self.serving if name is None else self._get(name)
        version.requests += 1
        version.idle.clear()
        try:
            yield version
        finally:
            version.requests -= 1
            if not version.requests:
                version.idle.set()

    async def load(self, name: str, body: LoadModel) -> Version:
        """Hold a version beside the others; returns when it can be asked. The same content again changes nothing."""
        self._require_ready()
        # One at a time: a caller who asks again finds what the first request has loaded.
        async with self._loading:
            held = self._held.get(name)
            if held is not None and held.sha256 is not None and body.sha256 == held.sha256:
                return held
            self._require_room(held)
            try:
                model = await asyncio.to_thread(resolve, body.uri, self._settings.cache_dir)
                step_format = choose(self._settings.step_format, model.path)
            except (ModelSourceError, ValueError) as error:
                raise refuse("uri", str(error)) from error
            if body.sha256 not in (None, model.sha256):
                raise refuse(
                    "sha256",
                    f"{body.uri} has other content: its SHA-256 is {model.sha256}, not {body.sha256}",
                )
            if held is not None:
                if held.sha256 == model.sha256:
                    return held
                raise ProblemError(
                    HTTPStatus.CONFLICT,
                    f"{name} is held with other content (SHA-256 {held.sha256}). Choose another version, or DELETE it.",
                )
            version = Version(
                self.serving.engine.beside(model.path, name), step_format, body.uri, model.sha256
            )
            try:
                await version.engine.start()
                await warm_up(version)
            except (EngineStartError, EngineFailedError) as error:
                await version.engine.stop()
                raise refuse("uri", f"the checkpoint cannot be served: {error}") from error
            except BaseException:
                await version.engine.stop()
                raise
            self._held[name] = version
            self._watch(version)
            log.info("version loaded", model=name, uri=body.uri, step_format=step_format.name)
            return version

    def serve(self, name: str) -> Version:
        """Answer with this version where a request names none."""
        self._require_ready()
        before, self.serving = self.serving, self._get(name)
        log.info("serving", model=name, before=before.name)
        return self.serving

    async def unload(self, name: str) -> None:
        """Take no more requests for a version, wait for those under way, and free its memory."""
        version = self._get(name)
        if version is self.serving:
            raise ProblemError(
                HTTPStatus.CONFLICT, f"{name} serves. POST /serving with another version first."
            )
        del self._held[name]
        self._leaving.add(version)
        if version.requests:
            await version.idle.wait()
        self._watchers.pop(version).cancel()
        await version.engine.stop()
        self._leaving.discard(version)
        log.info("version unloaded", model=name)

    def _watch(self, version: Version) -> None:
        async def watch() -> None:
            reason = await version.engine.died()
            if version is self.serving:
                assert self._serving_died is not None
                self._serving_died.set_result(reason)
                return
            log.error("a version's engine died", model=version.name, reason=reason)
            # One that is leaving is no longer held; `unload` ends it.
            if self._held.get(version.name) is version:
                del self._held[version.name]
                del self._watchers[version]
                await version.engine.stop()

        self._watchers[version] = asyncio.create_task(watch())

    def _get(self, name: str) -> Version:
        if (version := self._held.get(name)) is None:
            raise ProblemError(
                HTTPStatus.NOT_FOUND,
                f"The version {name} is not held here. Held are {', '.join(self.names())}; PUT /models/{name} loads it.",
            )
        return version

    def _require_ready(self) -> None:
        if not self.ready:
            raise ProblemError(
                HTTPStatus.SERVICE_UNAVAILABLE, "The model is not loaded.", headers={"Retry-After": "5"}
            )

    def _require_room(self, held: Version | None) -> None:
        if held is not None:
            return
        if len(self._held) < self._settings.max_models <= len(self._held) + len(self._leaving):
            raise ProblemError(
                HTTPStatus.SERVICE_UNAVAILABLE,
                "A version is being unloaded, and its last requests are not answered yet.",
                headers={"Retry-After": "1"},
            )
        if len(self._held) >= self._settings.max_models:
            raise ProblemError(
                HTTPStatus.CONFLICT,
                f"{self._settings.max_models} versions are held already ({', '.join(self.names())}), as many as may be. "
                "DELETE one that does not serve, or raise RATCHET_MAX_MODELS.",
            )


async def warm_up(version: Version) -> None:
    """Sample once before anybody waits: what engines compile on first use, and the prompt's fixed part into the cache.

    Raises EngineFailedError.
    """
    engine = version.engine
    prompt = engine.encode([version.step_format.render(Prefix(problem="1 + 1"))])
    if len(prompt[0]) + 4 > engine.max_model_len:
        return
    await engine.generate(prompt, Sampling(n=2, temperature=1.0, top_p=0.95, seed=0, max_tokens=4))


def refuse(field_name: str, message: str) -> ProblemError:
    """A request that cannot be served for what one of its fields says (422)."""
    return ProblemError(
        HTTPStatus.UNPROCESSABLE_ENTITY,
        f"The request is not valid. {field_name}: {message}",
        errors=[FieldError(field=field_name, message=message)],
    )
