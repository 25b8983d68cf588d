"""The trainer's API: the model registry and the rounds. The round machine runs beside it in the same process."""

import asyncio
import contextlib
from collections.abc import AsyncIterator

from fastapi import FastAPI
from sqlalchemy.ext.asyncio import AsyncEngine

from ratchet import __version__, background
from ratchet.clients import ModelServiceClient, PolicyClient, PrmClient, SandboxClient
from ratchet.contracts.base import Health
from ratchet.contracts.trainer import ModelKind
from ratchet.queue import SearchQueue
from ratchet.settings import TrainerSettings
from ratchet.store.calibrations import CalibrationStore
from ratchet.store.engine import make_engine, ready
from ratchet.store.errors import StoreUnavailableError
from ratchet.store.keys import KeyStore
from ratchet.store.pairs import PairStore
from ratchet.store.registry import Registry
from ratchet.store.round_rows import UnreadableRoundError
from ratchet.store.round_searches import RoundSearchStore
from ratchet.store.rounds import RoundStore
from ratchet.store.strategy_choices import StrategyChoiceStore
from ratchet.web.app import create_app
from ratchet.web.unavailable import answer_unavailable
from services.trainer import (
    calibration_routes,
    evaluation_routes,
    model_routes,
    pair_routes,
    round_routes,
    strategy_routes,
)
from services.trainer.holding import Serving, keep_unloading
from services.trainer.machine import Machine
from services.trainer.promotion import keep_serving

HEALTH_SECONDS = 3.0


def build_app(settings: TrainerSettings) -> FastAPI:
    """The app; it holds itself not ready while Postgres is away."""
    engine = make_engine(settings.database_url)
    registry, rounds = Registry(engine), RoundStore(engine)
    round_searches, calibrations = RoundSearchStore(engine), CalibrationStore(engine)
    services: dict[ModelKind, ModelServiceClient] = {}
    serving = Serving(registry, PairStore(engine), rounds, services)

    @contextlib.asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        queue = SearchQueue(settings.redis_url, settings.queue_name)
        async with (
            PolicyClient(settings.policy_url, key=settings.service_token) as policy,
            PrmClient(settings.prm_url, key=settings.service_token) as prm,
            SandboxClient(settings.sandbox_url, key=settings.service_token) as sandbox,
        ):
            services.update({ModelKind.POLICY: policy, ModelKind.PRM: prm})
            app.state.sandbox = sandbox
            machine = Machine(
                settings,
                rounds,
                round_searches,
                serving,
                calibrations,
                queue,
                policy,
                prm,
                sandbox,
            )
            working = [keep_serving(serving), keep_unloading(serving)]
            if settings.work_on_rounds:
                working.append(background.restart("rounds", machine.run))
            async with background.running(*working):
                yield
        await queue.aclose()
        await engine.dispose()

    app = create_app(
        service="trainer",
        summary="The model registry, and the rounds that make the next models.",
        settings=settings,
        lifespan=lifespan,
        health=lambda: health(engine, serving),
        keys=KeyStore(engine),
    )
    answer_unavailable(app)
    app.add_exception_handler(UnreadableRoundError, round_routes.on_unreadable)
    app.state.registry, app.state.rounds, app.state.serving = registry, rounds, serving
    app.state.round_searches, app.state.calibrations = round_searches, calibrations
    app.state.settings = settings
    app.state.strategy_choices = StrategyChoiceStore(engine)
    # Before the models, whose versions may have slashes in them.
    app.include_router(pair_routes.router)
    app.include_router(model_routes.router)
    app.include_router(calibration_routes.router)
    app.include_router(strategy_routes.router)
    app.include_router(round_routes.router)
    app.include_router(evaluation_routes.router)
    return app


async def health(engine: AsyncEngine, serving: Serving) -> Health:
    """Whether Postgres answers in time, and whether policy and PRM have come to serve the pair since the start."""
    try:
        async with asyncio.timeout(HEALTH_SECONDS):
            await ready(engine)
        database = "ok"
    except (StoreUnavailableError, TimeoutError):
        database = "away"
    return Health(
        service="trainer",
        ready=database == "ok",
        version=__version__,
        detail={"database": database, "pair_serves": serving.settled.is_set()},
    )
