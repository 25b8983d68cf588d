"""What those who watch a service ask it: is it alive, is it ready, in what state is it, what has it done?

`/livez` is about this process alone: it is answered by the event loop, and says whether the loops beside the work come round.
A process that is not alive is to be started anew. `/readyz` is about what it depends on as well: one that is not ready
gets no work, and is left alone. `/health` says the same with what is in force, for people and for other services.
"""

from collections.abc import Awaitable, Callable

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse, Response
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from ratchet.background import silent_loops
from ratchet.contracts.base import Contract, Health

HealthSource = Callable[[], Awaitable[Health] | Health]
"""Gives a service's health when it is asked for."""


class Liveness(Contract):
    """Whether this process works at all."""

    alive: bool
    silent: list[str]
    """Loops that should have come round and have not."""


class Readiness(Contract):
    """Whether the service can serve now."""

    ready: bool
    detail: dict[str, str | int | float | bool | list[str] | None]
    """What is in force, and what is away."""


router = APIRouter(tags=["operations"])


@router.get("/livez", response_model=Liveness, responses={503: {"model": Liveness}})
async def get_liveness() -> JSONResponse:
    """Whether the process is alive. Where it is not, or says nothing, it has to be started anew."""
    silent = silent_loops()
    return JSONResponse(
        Liveness(alive=not silent, silent=silent).model_dump(), status_code=503 if silent else 200
    )


@router.get("/readyz", response_model=Readiness, responses={503: {"model": Readiness}})
async def get_readiness(request: Request) -> JSONResponse:
    """Whether the service, and what it depends on, can serve now."""
    health = await _health_of(request)
    readiness = Readiness(ready=health.ready, detail=health.detail)
    return JSONResponse(readiness.model_dump(), status_code=200 if health.ready else 503)


@router.get("/health", response_model=Health, responses={503: {"model": Health}})
async def get_health(request: Request) -> JSONResponse:
    """Whether the service is ready, and what is in force."""
    state = await _health_of(request)
    return JSONResponse(state.model_dump(), status_code=200 if state.ready else 503)


@router.get("/metrics", response_class=Response)
def metrics() -> Response:
    """Prometheus metrics."""
    return Response(generate_latest(), media_type=CONTENT_TYPE_LATEST)


async def _health_of(request: Request) -> Health:
    source: HealthSource = request.app.state.health
    answer = source()
    return answer if isinstance(answer, Health) else await answer
