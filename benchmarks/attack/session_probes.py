"""What is done to sessions, and how it would be seen: the probes of `sessions.py` and `left_behind.py`.

Most begin a session of their own, run a hostile step in it, and look at what other branches, other sessions and the host
see of that.
"""

import contextlib
import secrets
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from enum import Enum, auto
from typing import Any

import httpx

from benchmarks.attack.attack import Seen, excerpt, hostile, new_token, says_token
from benchmarks.attack.harness import HUNT
from benchmarks.attack.service import BrokenSandboxError, Service, Session
from ratchet.contracts.sandbox import ROOT_NODE

PATIENCE = 2.5
"""Seconds beyond a step's own limit, for a step that follows a hostile one."""

# In a session one kind of fork is let through: a child of the parent's parent.
CLONE = 'call("clone", 0x8000 | 17, 0, 0, 0, 0)'
BOMB = f"""
count = 0
while count < 640:
    pid = {CLONE}
    if pid == 0:
        time.sleep(2)
        os._exit(0)
    if pid < 0: break
    count += 1
"""


class Where(Enum):
    """Where what is looked for was put, seen from who looks."""

    SIBLING = auto()
    OTHER_SESSION = auto()
    LATER_STEP = auto()
    PARENT = auto()


@dataclass(frozen=True)
class Hunts:
    """Whether a step finds two words that stand together in somebody else's text."""

    where: Where

    def __call__(self, service: Service) -> Seen:
        first, second, token = secrets.token_hex(8), secrets.token_hex(8), new_token()
        hunter = hostile(HUNT, token, {"FIRST": first, "SECOND": second})
        plant = f"kept = '{first}{second}'"
        limits = {"run_timeout": 5.0, "memory_limit_MB": 512}
        with service.session(**limits) as session, service.session(**limits) as other:
            if self.where is Where.LATER_STEP:
                found = session.batch((ROOT_NODE, [hunter, plant]))
            elif self.where is Where.PARENT:
                found = session.batch((ROOT_NODE, [plant, hunter]))
            else:
                session.run(ROOT_NODE, plant)
                session = other if self.where is Where.OTHER_SESSION else session
                found = session.batch((ROOT_NODE, [hunter]))
        return Seen(says_token(token, str(found)), excerpt(found))


@dataclass(frozen=True)
class CrossesBranches:
    """Whether what one branch does is seen in another branch of the same parent."""

    parent: str
    write: str
    read: str
    in_chain: bool = False

    def __call__(self, service: Service) -> Seen:
        token = new_token()
        parent = hostile(self.parent, token, later=(self.write, self.read))
        with service.session(run_timeout=3.0) as session:
            if self.in_chain:
                found = session.batch((ROOT_NODE, [parent, self.write, self.read]))[0]
            else:
                first = session.run(ROOT_NODE, parent)
                found = [first]
                if first["node"] is not None and first["status"] == "ok":
                    # Both orders of events: one after the other, and side by side.
                    found.append(session.run(first["node"], self.write))
                    found.append(session.run(first["node"], self.read))
                    side_by_side = session.batch(
                        (first["node"], [self.write + "\ntime.sleep(0.3)"]),
                        (first["node"], ["time.sleep(0.15)\n" + self.read]),
                    )
                    found += [step for chain in side_by_side for step in chain]
        return Seen(says_token(token, *(step["stdout"] for step in found)), excerpt(found))


@dataclass(frozen=True)
class Harms:
    """Whether other branches suffer: they have to run, give what they give, and in good time."""

    code: str
    run_timeout: float = 1.0
    memory_limit_MB: int = 512  # noqa: N815 - the API's name
    loses_states: bool = False
    """Whether a state that was lost and made anew counts as harm. Where room has to be made it does not."""

    def __call__(self, service: Service) -> Seen:
        code = hostile(self.code, "")
        with service.session(run_timeout=self.run_timeout, memory_limit_MB=self.memory_limit_MB) as session:
            kept = session.run(ROOT_NODE, "base = 40")["node"]
            before = session.state()["replayed"]
            chains = [
                (kept, [f"import time\ntime.sleep(0.3)\nprint(base + {n})", "print(base)"]) for n in range(3)
            ]
            with ThreadPoolExecutor(2) as threads:
                hostile_run = threads.submit(self._hostile, session, code)
                time.sleep(0.05)
                began = time.monotonic()
                try:
                    chains_seen = session.batch(*chains)
                    later = session.run(kept, "print(base + 2)")
                except (BrokenSandboxError, httpx.HTTPError) as error:
                    return Seen(True, f"other branches failed: {error}")
                seconds = time.monotonic() - began
                took, said = hostile_run.result()
            replayed = session.state()["replayed"] - before
        printed = [[step["stdout"] for step in chain] for chain in chains_seen] + [later["stdout"]]
        expected = [[f"{40 + n}\n", "40\n"] for n in range(3)] + ["42\n"]
        late = seconds > 2 * self.run_timeout + PATIENCE
        # A worker that the hostile step holds for longer is kept from others.
        held = took > self.run_timeout + PATIENCE
        what = f"{seconds:.1f} s, {replayed} replayed, others {printed}; hostile: {took:.1f} s, {said}"
        return Seen(
            printed != expected or late or held or (self.loses_states and replayed > 0), excerpt(what)
        )

    @staticmethod
    def _hostile(session: Session, code: str) -> tuple[float, str]:
        began = time.monotonic()
        try:
            said = excerpt(session.run(ROOT_NODE, code, patience=8.0))
        except (BrokenSandboxError, httpx.HTTPError) as error:
            said = str(error)
        return time.monotonic() - began, said


@dataclass(frozen=True)
class HoldsUp:
    """Whether a step after a hostile one is answered in good time, whatever the answer."""

    code: str
    after: str = "print(1)"
    run_timeout: float = 1.0

    def __call__(self, service: Service) -> Seen:
        with service.session(run_timeout=self.run_timeout) as session:
            node = session.run(ROOT_NODE, hostile(self.code, ""))
            if node["status"] != "ok":
                return Seen(False, excerpt(node))
            began = time.monotonic()
            try:
                after: object = session.run(node["node"], self.after)
            except (BrokenSandboxError, httpx.HTTPError) as error:
                after = error
            seconds = time.monotonic() - began
        return Seen(seconds > self.run_timeout + PATIENCE, f"{seconds:.1f} s: {excerpt(after)}")


@dataclass(frozen=True)
class Outlasts:
    """Whether a step keeps a worker busy for longer than it may run."""

    code: str
    run_timeout: float = 1.0

    def __call__(self, service: Service) -> Seen:
        began = time.monotonic()
        with service.session(run_timeout=self.run_timeout) as session:
            step = session.run(ROOT_NODE, hostile(self.code, ""))
            seconds = time.monotonic() - began
        return Seen(seconds > self.run_timeout + PATIENCE, f"{seconds:.1f} s: {excerpt(step)}")


class When(Enum):
    """When to look for what a step left behind."""

    DURING = auto()
    AFTER_BATCH = auto()
    AFTER_DELETE = auto()


@dataclass(frozen=True)
class ComputesOn:
    """Whether the processor is used below the service when nothing is asked of it."""

    code: str
    when: When
    tries: int = 1
    """How often to try: it may go through by luck."""

    def __call__(self, service: Service) -> Seen:
        for _ in range(self.tries - 1):
            if (seen := self._once(service)).through:
                return seen
        return self._once(service)

    def _once(self, service: Service) -> Seen:
        wait = "\ntime.sleep(1.0)" if self.when is When.DURING else ""
        with service.session(run_timeout=2.0) as session, ThreadPoolExecutor(1) as threads:
            run = threads.submit(session.run, ROOT_NODE, hostile(self.code + wait, ""))
            if self.when is When.DURING:
                time.sleep(0.3)
            else:
                run.result()
            if self.when is When.AFTER_DELETE:
                session.delete()
            if self.when is not When.DURING:
                time.sleep(0.2)
            busy = _seconds_computed(service, 0.5)
            said = excerpt(run.result())
        return Seen(busy > 0.1, f"{busy:.2f} s of 0.5 s; {said}")


def _seconds_computed(service: Service, seconds: float) -> float:
    """Processor time that the processes below the service use in so many seconds, with those that end meanwhile."""
    before = {process.pid: _cpu_seconds_of(process) for process in service.processes()}
    time.sleep(seconds)
    return sum(_cpu_seconds_of(process) - before.get(process.pid, 0.0) for process in service.processes())


def _cpu_seconds_of(process: Any) -> float:
    with contextlib.suppress(Exception):
        times = process.cpu_times()
        return float(times.user + times.system + times.children_user + times.children_system)
    return 0.0


@dataclass(frozen=True)
class LeavesProcesses:
    """Whether processes are there that were not before the session, at the moment that is looked at."""

    code: str
    when: When
    more_than: int = 0

    def __call__(self, service: Service) -> Seen:
        time.sleep(0.2)
        before = len(service.processes())
        with service.session(run_timeout=3.0) as session:
            # The init and the root node come with the first step.
            session.run(ROOT_NODE, "pass")
            kept = len(service.processes()) - before
            with ThreadPoolExecutor(1) as threads:
                run = threads.submit(session.run, ROOT_NODE, hostile(self.code, ""))
                most = 0
                while not run.done():
                    most = max(most, len(service.processes()) - before - kept)
                    time.sleep(0.02)
                said = excerpt(run.result())
            if self.when is When.AFTER_BATCH:
                time.sleep(0.2)
                # What the step itself left to go on from may stay.
                most = len(service.processes()) - before - kept - 1
        if self.when is When.AFTER_DELETE:
            time.sleep(0.3)
            most = len(service.processes()) - before
        return Seen(most > self.more_than, f"{most} more processes; {said}")


def cpu_in_threads(service: Service, *, claim: bool = False) -> Seen:
    """Computes in a thread, which must show in what is measured of the step."""
    code = (
        "import threading\nthread = threading.Thread(target=hold, args=(0.6,))\nthread.start()\nthread.join()"
    )
    with service.session(run_timeout=3.0) as session:
        begun = time.monotonic()
        step = session.run(ROOT_NODE, hostile(f"{code}\nprint(time.thread_time())", ""))
        assert time.monotonic() - begun > 0.6, step
    used = float(step["stdout"]) if claim else float(step["measured"]["cpu_seconds"])
    # Of 0.6 s, on a machine that may be busy.
    return Seen(used < 0.2, excerpt(step))


def too_many_sessions(service: Service, *, count: int = 40, enough: int = 40) -> Seen:
    """Begins more sessions than there may be."""
    begun: list[Session] = []
    try:
        while len(begun) < count:
            begun.append(service.session())
    except BrokenSandboxError as error:
        return Seen(len(begun) >= enough, f"{len(begun)} begun, then {error}")
    finally:
        for session in begun:
            session.delete()
    return Seen(len(begun) >= enough, f"{len(begun)} begun")


@dataclass(frozen=True)
class Hoards:
    """How much memory the session holds by states that are kept, as the host sees it."""

    most_mb: float = 400.0

    def __call__(self, service: Service) -> Seen:
        before = _resident(service)
        with service.session(run_timeout=5.0, memory_limit_MB=128) as session:
            most, steps = 0.0, []
            for n in range(8):
                steps.append(session.run(ROOT_NODE, f"kept = bytearray(b'{n}') * (70 * 2**20)"))
                most = max(most, _resident(service) - before)
        return Seen(most > self.most_mb, f"{most:.0f} MB; {[step['status'] for step in steps]}")


def _resident(service: Service) -> float:
    """MiB that the processes below the service have each for itself."""
    total = 0.0
    for process in service.processes():
        with contextlib.suppress(Exception):
            total += process.memory_full_info().uss / 2**20
    return total


def foreign_node(service: Service, *, own: bool = False) -> Seen:
    """Goes on from another session's node."""
    with service.session() as session, service.session() as other:
        node = session.run(ROOT_NODE, "x = 42")["node"]
        asked = session if own else other
        body = {"code": "print(x)"}
        response = service.http.post(f"/sessions/{asked.id}/nodes/{node}/run", json=body)
    return Seen(
        response.is_success and "42" in response.text, f"{response.status_code} {response.text[:300]}"
    )


def guessed_session(service: Service, *, own: bool = False) -> Seen:
    """Guesses the session's name from its own."""
    with service.session() as session, service.session() as other:
        names = [f"{int(session.id, 16) + n:0{len(session.id)}x}" for n in (-2, -1, 1, 2)] + [
            "",
            "0",
            "1",
            "*",
            "_",
        ]
        names = [other.id] if own else names
        seen = [service.http.get(f"/sessions/{name}").status_code for name in names]
    return Seen(200 in seen, str(seen))
