"""An attack as data: what is sent, what shows that it went through, and which layers off let it through.

An attack is contained if its probe sees nothing go through. That means something only beside its control, in which
the same probe must see it: against the service `without` the layers that contain it, or, where what contains it is the
border of a process and no layer, inside that border (`control`, with the reason in `control_is`).

The sets of layers that are off are few, because each costs the start of a service.
"""

import functools
import re
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import pyseccomp

from benchmarks.attack.service import Service
from ratchet.contracts.sandbox import ROOT_NODE
from services.sandbox.layers import NONE, Layer

FILTER = frozenset({Layer.SECCOMP})
# Landlock stands behind most of the others, where the kernel has it.
_LANDLOCK = frozenset({Layer.LANDLOCK})
PRIVILEGED = _LANDLOCK | FILTER | {Layer.NO_CAPABILITIES, Layer.NO_NEW_PRIVILEGES, Layer.NON_DUMPABLE}
LIMITLESS = FILTER | {Layer.RLIMITS, Layer.CGROUP_MEMORY, Layer.CGROUP_PIDS}
TIMELESS = frozenset({Layer.WALL_CLOCK, Layer.RLIMITS})
UNCUT = frozenset({Layer.OUTPUT_CAP})
SHARED_TMP = frozenset({Layer.TMPFS, Layer.RLIMITS})
PROC = _LANDLOCK | {Layer.NO_PROC}
# A run's own /tmp goes too: it would cover whatever of the host lies below /tmp, a clone of this repository included.
HOST_ROOT = _LANDLOCK | FILTER | {Layer.OWN_ROOT, Layer.READ_ONLY_ROOT, Layer.TMPFS}
WRITABLE = _LANDLOCK | FILTER | {Layer.READ_ONLY_ROOT, Layer.TMPFS}
HOST_NAMESPACES = (
    _LANDLOCK | FILTER | {Layer.NETWORK_NAMESPACE, Layer.IPC_NAMESPACE, Layer.HOST_NAME_NAMESPACE}
)
SAME_PIDS = PRIVILEGED | {Layer.PID_NAMESPACE, Layer.NO_PROC}


@dataclass(frozen=True)
class Seen:
    """What a probe saw."""

    through: bool
    what: str


class Probe(Protocol):
    """One attack carried out. Raises BrokenSandboxError or an httpx error where the service itself failed."""

    def __call__(self, service: Service, /) -> Seen: ...


@dataclass(frozen=True, kw_only=True)
class Attack:
    """One attack and its control."""

    category: str
    name: str
    probe: Probe
    without: frozenset[Layer] = NONE
    """The layers that are off in the control."""
    control: Probe | None = None
    """What the control runs, if it is not the probe."""
    control_is: str = ""
    """Why the control is another one, or why there is none."""
    alone: bool = False
    """It runs alone, because it watches the processes of the service."""
    local: bool = False
    """It is watched on the host where the service runs."""
    machine: str | None = None
    """The architecture that it is written for, if it is only one."""

    @property
    def title(self) -> str:
        """Unique among all."""
        return f"{self.category}/{self.name}"

    @property
    def has_control(self) -> bool:
        """Whether there is anything to control it with."""
        return bool(self.without) or self.control is not None


PRELUDE = Path(__file__).with_name("prelude.py").read_text()


def hostile(code: str, token: str, given: Mapping[str, Any] | None = None, later: Sequence[str] = ()) -> str:
    """The program as it is sent: the prelude, the names that it is given, and the attack itself.

    `later` are steps to come, which may name system calls too.
    """
    called = re.findall(r'(?:call\(|NR\[)"(\w+)"', "\n".join([PRELUDE, code, *later]))
    numbers = {name: syscall_number(name) for name in set(called)}
    names = {"TOKEN": token, "NR": numbers, **(given or {})}
    head = "\n".join(f"{name} = {value!r}" for name, value in names.items())
    return f"{PRELUDE}\n{head}\n{code}"


@functools.cache
def syscall_number(name: str) -> int:
    """The number of a system call on this machine. Raises ValueError where libseccomp does not know it."""
    found = int(pyseccomp.resolve_syscall(pyseccomp.system_arch(), name))
    if found < 0:
        raise ValueError(f"libseccomp knows no system call {name} on this machine")
    return found


def new_token() -> str:
    """A token for one run. A program that went through prints it backwards."""
    return secrets.token_hex(8)


def excerpt(answer: object) -> str:
    """The beginning of an answer, without empty fields, for whoever has to find out what happened."""
    return str(_without_empty(answer))[:800]


def _without_empty(answer: object) -> object:
    if isinstance(answer, Mapping):
        return {key: _without_empty(value) for key, value in answer.items() if value not in (None, False, "")}
    if isinstance(answer, float):
        return round(answer, 3)
    return [_without_empty(value) for value in answer] if isinstance(answer, list) else answer


def says_token(token: str, *texts: str) -> bool:
    """Whether the program said that it went through."""
    return any(token[::-1] in text for text in texts)


@dataclass(frozen=True)
class Program:
    """The code as a program of its own (`/run_code`)."""

    code: str
    run_timeout: float = 3.0
    memory_limit_MB: int = 256  # noqa: N815 - the API's name
    given: Mapping[str, Any] = field(default_factory=dict)

    def answer(self, service: Service, token: str = "") -> dict[str, Any]:
        """The service's whole answer."""
        body = {"code": hostile(self.code, token, self.given), "run_timeout": self.run_timeout}
        return service.post("/run_code", body | {"memory_limit_MB": self.memory_limit_MB})

    def __call__(self, service: Service) -> Seen:
        token = new_token()
        result = self.answer(service, token)["run_result"]
        return Seen(says_token(token, result["stdout"], result["stderr"]), excerpt(result))


@dataclass(frozen=True)
class Steps:
    """The codes as steps of one interpreter (`/run_steps`)."""

    steps: tuple[str, ...]
    run_timeout: float = 3.0
    memory_limit_MB: int = 256  # noqa: N815 - the API's name
    given: Mapping[str, Any] = field(default_factory=dict)

    def __call__(self, service: Service) -> Seen:
        token = new_token()
        first, *rest = self.steps
        limits = {"run_timeout": self.run_timeout, "memory_limit_MB": self.memory_limit_MB}
        answer = service.post(
            "/run_steps", {"steps": [hostile(first, token, self.given, rest), *rest], **limits}
        )
        return Seen(says_token(token, *(s["stdout"] + s["stderr"] for s in answer["steps"])), excerpt(answer))


@dataclass(frozen=True)
class Nodes:
    """The codes as a chain of steps in a session."""

    steps: tuple[str, ...]
    run_timeout: float = 3.0
    memory_limit_MB: int = 256  # noqa: N815 - the API's name

    def __call__(self, service: Service) -> Seen:
        token = new_token()
        first, *rest = self.steps
        with service.session(run_timeout=self.run_timeout, memory_limit_MB=self.memory_limit_MB) as session:
            (chain,) = session.batch((ROOT_NODE, [hostile(first, token, later=rest), *rest]))
        return Seen(says_token(token, *(s["stdout"] + s["stderr"] for s in chain)), excerpt(chain))
