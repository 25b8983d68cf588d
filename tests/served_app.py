"""An app on a real uvicorn, and schemathesis against it with a bounded number of requests, the same at each run."""

import asyncio
import contextlib
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import schemathesis
import uvicorn
from fastapi import FastAPI
from hypothesis import HealthCheck, given, settings
from hypothesis.errors import Unsatisfiable
from schemathesis import GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from ratchet.settings import Settings
from ratchet.web.app import bind

EXAMPLES = 10
CHECKS = [not_a_server_error, status_code_conformance, content_type_conformance, response_schema_conformance]


@contextlib.contextmanager
def served(app: FastAPI, app_settings: Settings) -> Iterator[str]:
    """The app on a real uvicorn, in a thread of its own. Gives its base URL."""
    sock = bind(app_settings)
    server = uvicorn.Server(
        uvicorn.Config(app, log_config=None, timeout_graceful_shutdown=2, timeout_keep_alive=75)
    )
    thread = threading.Thread(target=lambda: asyncio.run(server.serve(sockets=[sock])))
    thread.start()
    try:
        while not server.started:
            assert thread.is_alive()
            time.sleep(0.01)
        yield f"http://127.0.0.1:{sock.getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join(timeout=20)
        assert not thread.is_alive()


def generated_requests(
    base_url: str, known: Mapping[str, str], key: str | None = None
) -> dict[str, set[int]]:
    """Valid and invalid requests to every operation; fails on a 5xx and on what the document does not say.

    `key` goes with each of them.
    `known` gives path parameters that exist; each operation that has one is asked with it too. Returns the statuses seen.
    """
    schema = schemathesis.openapi.from_url(f"{base_url}/openapi.json")
    # It would make keys up, in place of the one that is right.
    schema.config.generation.with_security_parameters = False
    answered: dict[str, set[int]] = {}
    sent = {} if key is None else {"Authorization": f"Bearer {key}"}
    for found in schema.get_all_operations():
        operation = found.ok()  # type: ignore[union-attr]  # an invalid operation has no `ok`, and ends the test
        statuses = answered.setdefault(f"{operation.method.upper()} {operation.path}", set())
        for mode in (GenerationMode.POSITIVE, GenerationMode.NEGATIVE):
            # An operation without parameters has no invalid request.
            with contextlib.suppress(Unsatisfiable):
                _check_of(operation.as_strategy(generation_mode=mode), statuses, {}, sent)()
        if any(name in operation.path for name in known):
            _check_of(operation.as_strategy(), statuses, known, sent)()
    return answered


def _check_of(
    cases: Any, statuses: set[int], known: Mapping[str, str], sent: dict[str, str]
) -> Callable[[], None]:
    """A property: what the service answers to each case is in its document."""

    @settings(
        max_examples=EXAMPLES,
        deadline=None,
        derandomize=True,
        database=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(case=cases)
    def check(case: schemathesis.Case) -> None:  # type: ignore[type-arg]  # generic for the checker alone
        _keep_short(case.body)
        for name, value in known.items():
            if name in case.path_parameters:
                case.path_parameters[name] = value
        response = case.call(timeout=10, headers=sent)
        statuses.add(response.status_code)
        case.validate_response(response, checks=CHECKS)

    return check


def _keep_short(body: Any) -> None:
    """Ask for short waits and few tokens: more would only take longer."""
    if not isinstance(body, dict):
        return
    for key, most in (("wait", 0.01), ("max_tokens", 3), ("n", 2), ("run_timeout", 2)):
        if type(body.get(key)) in (int, float):
            body[key] = min(body[key], most)
    if "messages" in body and body.get("max_tokens") is None:
        # A completion waits for its search, and one of the default budget takes longer than a request may here.
        body.pop("max_completion_tokens", None)
        body["max_tokens"] = 3
