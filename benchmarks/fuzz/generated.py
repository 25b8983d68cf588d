"""Requests that schemathesis makes from a service's OpenAPI document: each operation alone, and chains of them."""

import contextlib
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import schemathesis
from hypothesis import HealthCheck, given, settings
from hypothesis import seed as hypothesis_seed
from hypothesis.errors import Unsatisfiable
from schemathesis import GenerationMode
from schemathesis.core.errors import NoLinksFound

REQUEST_SECONDS = 30
BUSY = 503
"""A refusal for want of room or of a backend; no fault of the service."""
MODES = (GenerationMode.POSITIVE, GenerationMode.NEGATIVE)
SHORT = {"wait": 0.01, "max_tokens": 3, "n": 2, "run_timeout": 1, "count": 2, "rollouts": 2}
"""The most that is asked for of what only takes longer."""


@dataclass
class Seen:
    """What a service has answered."""

    operations: set[str] = field(default_factory=set)
    cases: int = 0
    statuses: Counter[int] = field(default_factory=Counter)
    server_errors: list[str] = field(default_factory=list)
    """Operation and status of each; the service's log has the reason."""

    def note(self, operation: str, status: int) -> None:
        """Count one answer."""
        self.operations.add(operation)
        self.cases += 1
        self.statuses[status] += 1
        if status >= 500 and status != BUSY:
            self.server_errors.append(f"{operation}: {status}")


def each_operation(url: str, headers: dict[str, str], examples: int, seed: int, seen: Seen) -> None:
    """Valid and invalid requests to every operation of a service, `examples` of each kind."""
    schema = schemathesis.openapi.from_url(f"{url}/openapi.json", headers=headers)
    # It would make keys up, in place of the one that is right.
    schema.config.generation.with_security_parameters = False
    for found in schema.get_all_operations():
        operation = found.ok()  # type: ignore[union-attr]  # an invalid operation has no `ok`, and ends the program
        name = f"{operation.method.upper()} {operation.path}"
        for mode in MODES:
            # An operation without parameters has no invalid request.
            with contextlib.suppress(Unsatisfiable):
                _ask(operation.as_strategy(generation_mode=mode), name, headers, examples, seed, seen)


def _ask(cases: Any, name: str, headers: dict[str, str], examples: int, seed: int, seen: Seen) -> None:
    @hypothesis_seed(seed)
    @settings(max_examples=examples, deadline=None, database=None, suppress_health_check=list(HealthCheck))
    @given(case=cases)
    def ask(case: schemathesis.Case) -> None:  # type: ignore[type-arg]  # generic for the checker alone
        keep_short(case.body)
        seen.note(name, case.call(headers=headers, timeout=REQUEST_SECONDS).status_code)

    ask()


def chains(url: str, headers: dict[str, str], examples: int, seed: int, seen: Seen) -> None:
    """Chains of requests, each with ids that the one before has answered with, as the document's links say or imply."""
    schema = schemathesis.openapi.from_url(f"{url}/openapi.json", headers=headers)
    # It would make keys up, in place of the one that is right.
    schema.config.generation.with_security_parameters = False
    machine: type[Any] = schema.as_state_machine()

    class Counted(machine):  # type: ignore[misc]  # made at run time
        def get_call_kwargs(self, case: schemathesis.Case) -> dict[str, Any]:  # type: ignore[type-arg]
            keep_short(case.body)
            return {"headers": headers, "timeout": REQUEST_SECONDS}

        def validate_response(self, response: Any, case: schemathesis.Case, **_: Any) -> None:  # type: ignore[type-arg]
            name = f"{case.operation.method.upper()} {case.operation.path}"
            seen.note(name, response.status_code)

    hypothesis_seed(seed)(Counted)
    # Policy and PRM answer with nothing that another of their requests takes.
    with contextlib.suppress(NoLinksFound):
        Counted.run(
            settings=settings(
                max_examples=examples,
                stateful_step_count=6,
                deadline=None,
                database=None,
                suppress_health_check=list(HealthCheck),
            )
        )


def keep_short(body: Any) -> None:
    """Ask for short waits and few tokens, also inside."""
    if isinstance(body, list):
        for each in body:
            keep_short(each)
    if not isinstance(body, dict):
        return
    for key, value in body.items():
        most = SHORT.get(key)
        if most is not None and type(value) in (int, float):
            body[key] = min(value, most)
        keep_short(value)
