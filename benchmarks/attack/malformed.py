"""HTTP: requests that are none. Each gets a problem document, neither an answer nor a failure of the service."""

import functools
from dataclasses import dataclass, field
from typing import Any

from benchmarks.attack.attack import Attack, Seen
from benchmarks.attack.service import Service

attack = functools.partial(Attack, category="malformed")

SANE = b'{"code": "print(1)"}'


@dataclass(frozen=True)
class Sends:
    """Whether the request is served, or breaks something."""

    path: str = "/run_code"
    body: bytes = SANE
    method: str = "POST"
    headers: dict[str, str] = field(default_factory=dict)

    def __call__(self, service: Service) -> Seen:
        url = service.http.base_url.copy_with(raw_path=self.path.encode())
        headers = {"content-type": "application/json", **self.headers}
        response = service.http.request(self.method, url, content=self.body, headers=headers)
        problem = response.headers.get("content-type") == "application/problem+json"
        refused = 400 <= response.status_code < 500 and problem
        return Seen(not refused, f"{response.status_code} {response.text[:300]}")


def code(body: Any) -> Sends:
    """A body for `/run_code`."""
    return Sends(body=body if isinstance(body, bytes) else body.encode())


REQUESTS: dict[str, Sends] = {
    "a body of five megabytes": code(b'{"code": "' + b"#" * 5 * 2**20 + b'"}'),
    "a program of too many characters": code(b'{"code": "' + b"#" * 100_001 + b'"}'),
    "NUL in the program": code('{"code": "print(1)\\u0000"}'),
    "half a character in the program": code('{"code": "print(\'\\ud800\')"}'),
    "bytes that are no text": code(b'{"code": "\xff\xfe"}'),
    "JSON without end": code("[" * 100_000),
    "an unknown field": code('{"code": "1", "without": ["seccomp-allow-list"]}'),
    "a time-out that is no number": code('{"code": "1", "run_timeout": NaN}'),
    "a time-out without end": code('{"code": "1", "run_timeout": 1e999}'),
    "a time-out below zero": code('{"code": "1", "run_timeout": -1}'),
    "all memory": code('{"code": "1", "memory_limit_MB": 1e18}'),
    "no memory": code('{"code": "1", "memory_limit_MB": 0}'),
    "programs without end": Sends("/run_code/batch", b'{"programs": [' + b",".join([SANE] * 257) + b"]}"),
    "steps without end": Sends("/run_steps", b'{"steps": [' + b",".join([b'"1"'] * 65) + b"]}"),
    "a seed that is none": Sends("/run_steps", b'{"steps": ["1"], "seed": -1}'),
    "an answer of too many characters": Sends(
        "/grade", b'{"candidate": "' + b"1" * 2001 + b'", "reference": "1"}'
    ),
    "a path out of the service": Sends("/sessions/../../etc/passwd", b"", "GET"),
    "a path out of the service, encoded": Sends("/sessions/%2e%2e%2f%2e%2e%2fetc%2fpasswd", b"", "GET"),
    "NUL in the session's name": Sends("/sessions/%00", b"", "GET"),
    "bytes that are no text in the session's name": Sends("/sessions/%ff%fe", b"", "GET"),
    "a session's name without end": Sends("/sessions/" + "a" * 30_000, b"", "GET"),
    "a node's name that is a path": Sends("/sessions/x/nodes/..%2f..%2froot/run"),
    "a wrong method": Sends(method="DELETE"),
}

ATTACKS = [
    attack(
        name=name,
        probe=request,
        control=Sends(),
        control_is="a request in order, which is served",
    )
    for name, request in REQUESTS.items()
]
