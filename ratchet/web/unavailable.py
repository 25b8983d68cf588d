"""Postgres or Redis away: every route of a service answers 503 with Retry-After, as a problem document."""

from typing import Any

import structlog
from fastapi import FastAPI, Request
from fastapi.responses import Response
from redis.exceptions import RedisError

from ratchet.store.errors import StoreUnavailableError
from ratchet.web.problems import PROBLEM_JSON, problem_response

log = structlog.get_logger()

RETRY_AFTER_SECONDS = 2


def problems(**described: str) -> dict[int | str, dict[str, Any]]:
    """OpenAPI entries for problem documents: `problems(_404="Unknown id.")`."""
    content = {PROBLEM_JSON: {"schema": {"$ref": "#/components/schemas/ProblemDocument"}}}
    return {
        int(status.removeprefix("_")): {"description": description, "content": content}
        for status, description in described.items()
    }


UNAVAILABLE: dict[int | str, dict[str, Any]] = problems(
    _503="The database or Redis is away. Try again later."
)
UNAVAILABLE[503]["headers"] = {"Retry-After": {"description": "Seconds.", "schema": {"type": "integer"}}}


async def _on_unavailable(request: Request, error: Exception) -> Response:
    part = "database" if isinstance(error, StoreUnavailableError) else "Redis"
    log.warning("not available", part=part, path=request.url.path, error=str(error))
    return problem_response(
        503,
        f"The {part} is not available now. Try again later.",
        request.url.path,
        headers={"Retry-After": str(RETRY_AFTER_SECONDS)},
    )


def answer_unavailable(app: FastAPI) -> None:
    """Make the app answer 503 when the database or Redis is away."""
    app.add_exception_handler(StoreUnavailableError, _on_unavailable)
    app.add_exception_handler(RedisError, _on_unavailable)
