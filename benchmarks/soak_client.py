"""What the callers of the soak share: a client that tells wrong answers from clear refusals, and the sessions that are open.

`WrongError` is raised where an answer cannot be right whatever happened (a good program with another output; no answer; an
error without a reason), and `RefusedError` where the service says clearly that it could not: whether there was cause for
that, the caller knows.
"""

import itertools
import random
import time
from dataclasses import dataclass, field
from typing import Any

import httpx

CLEAR_REFUSALS = frozenset({404, 409, 410, 429, 503})
MODULUS = 1_000_003
SLOW_SECONDS = 0.5


class WrongError(Exception):
    """An answer that cannot be right."""


class RefusedError(Exception):
    """A clear error."""

    def __init__(self, reason: str, *, busy: bool = False) -> None:
        super().__init__(reason)
        self.busy = busy
        """It may be asked again later."""
        self.excused = False
        """What was asked for is known to be gone."""


@dataclass
class Node:
    """A node of a session: its number there, and the state that it must have."""

    id: str
    total: int
    depth: int


@dataclass
class OpenSession:
    """A session that the soak grows."""

    id: str
    nodes: list[Node]
    born: float = field(default_factory=time.monotonic)
    used: float = field(default_factory=time.monotonic)
    ended: bool = False
    known: dict[tuple[str, str], str] = field(default_factory=dict)
    """The node that a step made after a parent: the same step must make the same node."""


@dataclass
class Soak:
    """What all callers share."""

    http: httpx.AsyncClient
    draw: random.Random
    token: str
    sessions: list[OpenSession] = field(default_factory=list)
    counts: dict[str, int] = field(default_factory=dict)
    """Requests sent, by path or kind."""
    last_kill: float = -1.0
    _numbers: "itertools.count[int]" = field(default_factory=itertools.count)

    def number(self) -> int:
        """One that was not used before."""
        return next(self._numbers)

    async def ask(self, url: str, body: dict[str, Any] | None = None, method: str = "POST") -> Any:
        """The answer of the service. Raises WrongError and RefusedError."""
        kind = url.strip("/").partition("/")[0] if url.count("/") == 1 else url.rpartition("/")[2]
        name = f"{method} {kind if len(kind) < 20 else 'session'}"
        self.counts[name] = self.counts.get(name, 0) + 1
        try:
            response = await self.http.request(method, url, json=body)
        except httpx.HTTPError as error:
            raise WrongError(f"{name}: no answer: {error!r}") from error
        if response.is_success:
            return response.json() if response.content else None
        problem = response.headers.get("content-type", "").startswith("application/problem+json")
        if response.status_code in CLEAR_REFUSALS and problem and response.json().get("detail"):
            busy = "retry-after" in response.headers
            raise RefusedError(f"{name}: {response.status_code} {response.json()['detail']}", busy=busy)
        raise WrongError(f"{name}: {response.status_code} {response.text[:500]}")

    async def run(self, code: str, **limits: float) -> dict[str, Any]:
        """The answer to a program that the sandbox itself had no trouble with. Raises WrongError and RefusedError."""
        answer: dict[str, Any] = await self.ask("/run_code", {"code": code, **limits})
        not_troubled(answer)
        return answer


def not_troubled(answer: dict[str, Any]) -> None:
    """Raise RefusedError where the sandbox says that it was at fault."""
    if answer["status"] == "SandboxError":
        if not answer["message"]:
            raise WrongError(f"an error without a reason: {answer}")
        raise RefusedError(answer["message"])


def must(condition: bool, what: str, answer: Any) -> None:
    """Raise WrongError unless it holds."""
    if not condition:
        raise WrongError(f"{what}: {str(answer)[:800]}")


def must_print(answer: dict[str, Any], printed: str) -> None:
    """A good program prints this. One that was killed with its zygote may say so."""
    result = answer["run_result"]
    if answer["status"] == "Success":
        must(result["stdout"] == printed, f"expected {printed!r}", answer)
        return
    must(result["measured"]["limit"] is None, "a good program hit a limit", answer)
    must(result["measured"]["signal"] == 9, "a good program failed", answer)
    raise RefusedError(f"killed: {answer['message']}")
