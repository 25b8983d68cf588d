"""One problem through `POST /search`, as `ratchet eval` sends it, and its answer as text that other graders read."""

import asyncio
import contextlib
import os
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from ratchet.clients import SearchClient, ServiceError
from ratchet.contracts.measuring import MEASURING_KEY
from ratchet.contracts.search import SearchRequest, SearchResult
from ratchet.stack.config import StackUrls
from ratchet.stack.data_folder import running_stack
from ratchet.states import SEARCH_TRANSITIONS, SearchState, is_end

GRACE_SECONDS = 900.0
"""Beyond its own budget a search may wait this long for a worker; then something is wrong."""
POLL_SECONDS = 0.5
CANCEL_SECONDS = 60.0
_PARAMETERS = ("rollouts", "early_stop", "temperature", "max_depth")
_BUDGET = ("tokens", "seconds", "nodes")
_PLAIN = ("strategy", "seed", "require", "min_confidence")
SETTINGS = (*_PLAIN, *_PARAMETERS, *_BUDGET)
"""What a caller may set of a search."""


class EvaluatorError(Exception):
    """The evaluator is set up wrongly; the message says what to do."""


class SearchFailedError(Exception):
    """A search failed; the message says why."""


def local_stack() -> StackUrls | None:
    """The stack that is up in the data folder (`RATCHET_DATA`)."""
    data = os.environ.get("RATCHET_DATA")
    return running_stack(Path(data) if data else None)


def search_client(url: str | None = None, key: str | None = None) -> SearchClient:
    """The search service at `url` (with `key`, otherwise `RATCHET_KEY`), or of the local stack. Raises EvaluatorError."""
    if url is not None:
        return SearchClient(url, key=key or os.environ.get("RATCHET_KEY"))
    stack = local_stack()
    if stack is None:
        raise EvaluatorError(
            "No search service: start one with `ratchet up` (RATCHET_DATA names its data folder), or name one with base_url."
        )
    return SearchClient(stack.search, key=stack.key)


def search_request(problem: str, settings: Mapping[str, Any]) -> SearchRequest:
    """The search of a problem; what is not set is as `ratchet eval` has it. Raises EvaluatorError that names the field."""
    if unknown := sorted(set(settings) - set(SETTINGS)):
        raise EvaluatorError(
            f"There is no setting {', '.join(unknown)}; the settings are {', '.join(SETTINGS)}."
        )
    given = {"early_stop": False} | {name: value for name, value in settings.items() if value is not None}
    try:
        return SearchRequest.model_validate(
            {name: given[name] for name in _PLAIN if name in given}
            | {
                "problem": problem,
                "parameters": {name: given[name] for name in _PARAMETERS if name in given},
                "budget": {name: given[name] for name in _BUDGET if name in given},
            }
        )
    except ValidationError as error:
        first = error.errors(include_input=False)[0]
        raise EvaluatorError(f"{'.'.join(map(str, first['loc']))}: {first['msg']}") from None


async def solve(client: SearchClient, request: SearchRequest) -> SearchResult:
    """Search to the end; who stops waiting cancels it. Raises ServiceError, SearchFailedError."""
    # Who exports data knows by this name that the search measured a model.
    result = await client.create(request, idempotency_key=f"{MEASURING_KEY}{uuid.uuid4().hex}")
    try:
        async with asyncio.timeout(request.budget.seconds + GRACE_SECONDS):
            while not is_end(SEARCH_TRANSITIONS, result.state):
                await asyncio.sleep(POLL_SECONDS)
                result = await client.get(result.id)
    except (asyncio.CancelledError, TimeoutError) as error:
        with contextlib.suppress(ServiceError, TimeoutError):
            async with asyncio.timeout(CANCEL_SECONDS):
                await client.cancel(result.id)
        if isinstance(error, asyncio.CancelledError):
            raise
        raise SearchFailedError(f"The search {result.id} did not end in time.") from error
    if result.state is SearchState.FAILED:
        raise SearchFailedError(f"The search {result.id} failed: {result.reason or 'no reason was given'}")
    return result


def solution_text(result: SearchResult) -> str:
    """The program in a fence, and in the last line `#### ` with the answer; nothing where there is none."""
    if result.answer is None:
        return ""
    program = "" if result.program is None else f"```python\n{result.program}\n```\n\n"
    return f"{program}#### {result.answer}"
