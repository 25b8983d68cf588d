"""The model versions that a service holds, and the four routes that load, list, serve and let go of them.

Several versions are held beside one another; one of them serves: it answers where a request names none. Every request holds
its version from its first look at it to its answer, so a swap drops nothing: requests under way end on the version that
they began with. A version that is let go takes no new requests, and its memory is freed when the last one has ended.

A service says by `_open` and `_close` what a version is there, puts its versions into `app.state.versions` and includes
`router`.

Limits: all in this process's memory.
"""

import asyncio
import contextlib
from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass, field
from http import HTTPStatus
from pathlib import Path
from typing import Annotated, Any, Generic, TypeVar

import fastapi
import structlog
from fastapi import APIRouter, Body, Depends, Request

from ratchet.contracts.base import FieldError
from ratchet.contracts.serving import HeldModel, HeldModels, LoadModel, ModelVersion, ServeModel
from ratchet.models.checkpoint import ModelSourceError, ResolvedModel
from ratchet.models.sources import resolve
from ratchet.web.app import ProblemError, invalid

log = structlog.get_logger()

M = TypeVar("M")


class CheckpointError(Exception):
    """A checkpoint is there, but cannot be served; the message says why."""


@dataclass(eq=False)
class HeldVersion(Generic[M]):
    """One version: what answers for it, where that came from, and the requests that use it now."""

    name: str
    uri: str
    sha256: str | None
    model: M
    permanent: bool = False
    """It came with the service: it is neither loaded nor let go."""
    _users: int = 0
    _unused: asyncio.Event = field(default_factory=asyncio.Event)

    @contextlib.contextmanager
    def used(self) -> Iterator[None]:
        """While a request uses this version, it stays."""
        self._users += 1
        self._unused.clear()
        try:
            yield
        finally:
            self._users -= 1
            if not self._users:
                self._unused.set()

    async def unused(self) -> None:
        """Returns when no request uses this version."""
        if self._users:
            await self._unused.wait()


class HeldVersions(ABC, Generic[M]):
    """The held versions, M being what answers for one; used in one event loop.

    Methods raise ProblemError, which names the field that is wrong.
    """

    def __init__(self, first: HeldVersion[M], *, cache_dir: Path, limit: int | None = None) -> None:
        """Holds `first`, which serves; `cache_dir` is for `resolve`, `limit` (RATCHET_MAX_MODELS) counts all versions."""
        self.serving = first
        self.configured: str | None = first.name
        """The version that the settings name; None if they name none."""
        self.ready = False
        """Until a service sets this, requests are refused with 503."""
        self._cache_dir = cache_dir
        self._limit = limit
        self._held = {first.name: first}
        self._leaving: set[HeldVersion[M]] = set()
        self._loading = asyncio.Lock()

    @abstractmethod
    async def _open(self, name: str, found: ResolvedModel) -> M:
        """What answers for a new version, ready to be asked. Raises CheckpointError."""

    @abstractmethod
    async def _close(self, version: HeldVersion[M]) -> None:
        """Free what a version takes. No request uses it, unless the service stops."""

    async def close(self) -> None:
        """Free all versions: the service stops."""
        self.ready = False
        await asyncio.gather(*(self._close(version) for version in [*self._held.values(), *self._leaving]))

    def names(self) -> list[str]:
        """The held versions, the serving one first."""
        return sorted(self._held, key=lambda name: name != self.serving.name)

    def describe_all(self) -> HeldModels:
        """The held versions as the contract has them, the serving one first."""
        return HeldModels(models=[self.describe(self._held[name]) for name in self.names()])

    def describe(self, version: HeldVersion[M]) -> HeldModel:
        """A version as the contract has it."""
        return HeldModel(
            version=version.name,
            uri=version.uri,
            sha256=version.sha256,
            serving=version is self.serving,
            configured=version.name == self.configured,
        )

    @contextlib.contextmanager
    def using(self, name: str | None) -> Iterator[HeldVersion[M]]:
        """The version that a request's field `model` names, or the serving one; it stays until the block ends."""
        self._require_ready()
        # No await between the choice and the use: nothing can be let go in between.
        version = self.serving if name is None else self._get(name, "model")
        with version.used():
            yield version

    async def load(self, name: str, body: LoadModel) -> HeldVersion[M]:
        """Hold a version beside the others; returns when it can be asked. The same content again changes nothing."""
        self._require_ready()
        # One at a time: two at once need the memory of both, and who asks again finds what the first request has loaded.
        async with self._loading:
            held = self._held.get(name)
            if held is None:
                self._require_room()
            elif held.permanent:
                raise _conflict(f"{name} is always held. Choose another name.")
            elif held.sha256 is not None and held.sha256 == body.sha256:
                return held
            found = await self._resolve(body)
            # Looked up again: it may have been let go meanwhile.
            held = self._held.get(name)
            if held is None:
                try:
                    return await self._hold(name, body.uri, found)
                except CheckpointError as error:
                    raise invalid("uri", str(error)) from error
            if held.sha256 != found.sha256:
                raise _conflict(
                    f"{name} is held with other content (SHA-256 {held.sha256}). Choose another name, or DELETE it."
                )
            return held

    async def _resolve(self, body: LoadModel) -> ResolvedModel:
        try:
            found = await asyncio.to_thread(resolve, body.uri, self._cache_dir)
        except ModelSourceError as error:
            raise invalid("uri", str(error)) from error
        if body.sha256 not in (None, found.sha256):
            raise invalid(
                "sha256",
                f"{body.uri} has the digest {found.sha256}, not {body.sha256}: it has other content, or is damaged",
            )
        return found

    async def _hold(self, name: str, uri: str, found: ResolvedModel) -> HeldVersion[M]:
        """Open a checkpoint and hold it under a name that is free. Raises CheckpointError."""
        version = HeldVersion(name, uri, found.sha256, await self._open(name, found))
        self._held[name] = version
        log.info("version loaded", model=name, uri=uri)
        return version

    def serve(self, name: str) -> HeldVersion[M]:
        """Answer with this version where a request names none."""
        self._require_ready()
        before, self.serving = self.serving, self._get(name, "version")
        log.info("serving", model=name, before=before.name)
        return self.serving

    async def unload(self, name: str) -> None:
        """Take no more requests for a version, wait for those under way, and free its memory."""
        version = self._get(name, "version")
        if version.permanent:
            raise _conflict(f"{name} is always held.")
        if version is self.serving:
            raise _conflict(f"{name} serves. POST /serving with another version first.")
        del self._held[name]
        self._leaving.add(version)
        await version.unused()
        await self._close(version)
        self._leaving.discard(version)
        log.info("version unloaded", model=name)

    def _get(self, name: str, asked_by: str) -> HeldVersion[M]:
        if (version := self._held.get(name)) is None:
            message = f"The version {name} is not held here. Held are {', '.join(self.names())}; PUT /models/{name} loads it."
            raise ProblemError(
                HTTPStatus.NOT_FOUND, message, errors=[FieldError(field=asked_by, message=message)]
            )
        return version

    def _require_ready(self) -> None:
        if not self.ready:
            raise ProblemError(
                HTTPStatus.SERVICE_UNAVAILABLE, "The model is not loaded.", headers={"Retry-After": "5"}
            )

    def _require_room(self) -> None:
        if self._limit is None:
            return
        if len(self._held) < self._limit <= len(self._held) + len(self._leaving):
            raise ProblemError(
                HTTPStatus.SERVICE_UNAVAILABLE,
                "A version is being unloaded, and its last requests are not answered yet.",
                headers={"Retry-After": "1"},
            )
        if len(self._held) >= self._limit:
            raise _conflict(
                f"{self._limit} versions are held already ({', '.join(self.names())}), as many as may be. "
                "DELETE one that does not serve, or raise RATCHET_MAX_MODELS."
            )


def _conflict(message: str) -> ProblemError:
    return ProblemError(HTTPStatus.CONFLICT, message, errors=[FieldError(field="version", message=message)])


# --- the routes ------------------------------------------------------------------------------------------------------

LOAD_EXAMPLES = {
    "a round's checkpoint": {
        "summary": "What a round has trained, with its digest from the registry",
        "value": {"uri": "/data/rounds/2/policy", "sha256": "3f2a91c0" * 8},
    },
    "a folder": {"summary": "Whatever is in a folder", "value": {"uri": "/data/rounds/2/policy"}},
}
SERVE_EXAMPLES = {
    "a held version": {"summary": "A version that was loaded", "value": {"version": "nano-r2@3f2a91c0"}}
}

router = APIRouter(tags=["models"])


async def held_versions(request: Request) -> HeldVersions[Any]:
    """The versions that the service holds. Async, because FastAPI gives other dependencies a thread."""
    versions: HeldVersions[Any] = request.app.state.versions
    return versions


Versions = Annotated[HeldVersions[Any], Depends(held_versions)]
VersionPath = Annotated[
    ModelVersion,
    fastapi.Path(description="Name of the version; it may have slashes.", examples=["nano-r2@3f2a91c0"]),
]


@router.get("/models")
async def list_models(versions: Versions) -> HeldModels:
    """The versions that the service holds, the serving one first. A PRM service always holds PRM1."""
    return versions.describe_all()


@router.put("/models/{version:path}")
async def load_model(
    version: VersionPath, body: Annotated[LoadModel, Body(openapi_examples=LOAD_EXAMPLES)], versions: Versions
) -> HeldModel:
    """Hold a version beside the others; answers when it can be asked. The same content again changes nothing.

    422 when there is no such checkpoint, it cannot be served, or its digest is another; 409 when the name is taken, or
    no more versions may be held.
    """
    return versions.describe(await versions.load(version, body))


@router.post("/serving")
async def serve_model(
    body: Annotated[ServeModel, Body(openapi_examples=SERVE_EXAMPLES)], versions: Versions
) -> HeldModel:
    """Answer with this version where a request names none; requests under way end on the version they began with.

    404 when the version is not held.
    """
    return versions.describe(versions.serve(body.version))


@router.delete("/models/{version:path}")
async def unload_model(version: VersionPath, versions: Versions) -> HeldModels:
    """Let go of a version; answers when the last request that uses it has ended and its memory is free.

    404 when it is not held, 409 when it serves or is PRM1.
    """
    await versions.unload(version)
    return versions.describe_all()
