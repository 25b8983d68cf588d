"""A service that holds versions, where nothing is loaded but a number of a tiny checkpoint."""

import contextlib
from collections.abc import AsyncIterator
from pathlib import Path

import numpy as np
from fastapi import FastAPI
from safetensors.numpy import load_file, save_file

from ratchet.contracts.base import Health
from ratchet.models.checkpoint import ResolvedModel
from ratchet.settings import Settings
from ratchet.web import held_versions
from ratchet.web.app import create_app
from ratchet.web.held_versions import CheckpointError, HeldVersion, HeldVersions


class Numbers(HeldVersions[float]):
    """What answers for a version is a number; a negative one cannot be served. Remembers which ones were freed."""

    def __init__(self, cache_dir: Path, limit: int | None = None) -> None:
        super().__init__(
            HeldVersion("zero", "built-in", None, 0.0, permanent=True), cache_dir=cache_dir, limit=limit
        )
        self.ready = True
        self.freed: list[float] = []

    async def _open(self, name: str, found: ResolvedModel) -> float:
        number = float(load_file(found.path / "model.safetensors")["number"][0])
        if number < 0:
            raise CheckpointError(f"{number} is negative")
        return number

    async def _close(self, version: HeldVersion[float]) -> None:
        self.freed.append(version.model)


def checkpoint(folder: Path, number: float) -> str:
    folder.mkdir()
    for file in ("config.json", "tokenizer.json"):
        (folder / file).write_text("{}")
    save_file({"number": np.array([number])}, folder / "model.safetensors", {"format": "pt"})
    return str(folder)


def numbers_app(versions: Numbers) -> FastAPI:
    """The four routes in an app."""

    @contextlib.asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        yield

    app = create_app(
        service="numbers",
        summary="",
        settings=Settings(),
        lifespan=lifespan,
        health=lambda: Health(service="numbers", ready=True, version="0", detail={}),
    )
    app.state.versions = versions
    app.include_router(held_versions.router)
    return app
