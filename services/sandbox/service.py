"""The parts of a running sandbox service: pools of zygotes, the queues before them, and the sessions."""

import asyncio
import functools
import platform
from importlib.metadata import version

from ratchet import __version__
from ratchet.contracts.base import Health
from ratchet.contracts.sandbox import RunCodeRequest, RunCodeResponse, RunStepsRequest, RunStepsResponse
from ratchet.settings import SandboxSettings
from services.sandbox.admission import Admission
from services.sandbox.grader import Grader
from services.sandbox.jail import Isolation, Purpose
from services.sandbox.pool import Pool
from services.sandbox.responses import (
    code_response,
    no_code_response,
    no_steps_response,
    steps_response,
)
from services.sandbox.runs import Run, Task
from services.sandbox.session_zygotes import SessionZygotes
from services.sandbox.sessions import Sessions
from services.sandbox.zygotes import (
    IsolationError,
    Level,
    NotConfinedError,
    ZygoteDiedError,
    best_isolation,
)

GRADERS = 2, 4
"""The fewest and the most zygotes for grading; most pairs are numbers and need none."""


def required_isolation(settings: SandboxSettings) -> Level:
    """The isolation in force. Raises IsolationError where it is weaker than the settings ask for."""
    level = best_isolation()
    if level.isolation is not Isolation.NAMESPACES and settings.min_isolation == "namespaces":
        raise IsolationError(
            f"Isolation 'namespaces' cannot be had: {level.reason} Or accept weaker isolation, in which programs "
            "can read the files of this user: RATCHET_MIN_ISOLATION=rlimits."
        )
    return level


class Sandbox:
    """The service without its HTTP. Its jails live from `start` to `stop`."""

    def __init__(self, settings: SandboxSettings, level: Level) -> None:
        def admission(permits: int) -> Admission:
            return Admission(permits, settings.queue_size, settings.queue_timeout)

        def pool(purpose: Purpose, size: int) -> Pool:
            return Pool(purpose, level, size=size, max_output_bytes=settings.max_output_bytes)

        fewest, most = GRADERS
        graders = max(fewest, min(settings.workers, most))
        self.level = level
        self.running = admission(settings.workers)
        self.runners, self.graders = pool(Purpose.RUN, settings.workers), pool(Purpose.GRADE, graders)
        for_long = graders // 2
        self.grader = Grader(self.graders, admission(graders - for_long), admission(for_long))
        self.zygotes = SessionZygotes(level)
        self.sessions = Sessions(
            level,
            self.running,
            self.runners,
            self.zygotes,
            max_sessions=settings.max_sessions,
            max_snapshots=settings.max_snapshots,
            memory_bytes=settings.session_memory_mb * 2**20,
            idle_seconds=settings.session_idle_seconds,
            max_output_bytes=settings.max_output_bytes,
        )
        self.ready = False

    async def start(self) -> None:
        """Start all zygotes, side by side: each imports its libraries for a second. Raises ZygoteDiedError."""
        starts = (self.runners.start(), self.graders.start(), self.zygotes.start())
        for failure in await asyncio.gather(*starts, return_exceptions=True):
            if failure is not None:
                raise failure
        self.sessions.start()
        self.ready = True

    async def stop(self) -> None:
        """End everything that runs."""
        self.ready = False
        await self.sessions.stop()
        await self.zygotes.stop()
        await self.runners.stop()
        await self.graders.stop()

    async def run_program(self, body: RunCodeRequest) -> RunCodeResponse:
        """Run one program. The caller holds a permit of `running`."""
        run = Run(
            task=Task.PROGRAM,
            units=[body.code],
            seconds=body.run_timeout,
            memory_bytes=body.memory_limit_MB * 2**20,
            stdin=body.stdin or "",
        )
        try:
            return code_response(await self.runners.run(run))
        except (ZygoteDiedError, NotConfinedError) as error:
            return no_code_response(f"The program was not run: {error}")

    async def run_steps(self, body: RunStepsRequest) -> RunStepsResponse:
        """Run the steps of one solution. The caller holds a permit of `running`."""
        run = Run(
            task=Task.STEPS,
            units=list(body.steps),
            seconds=body.run_timeout,
            memory_bytes=body.memory_limit_MB * 2**20,
            seed=body.seed,
        )
        try:
            return steps_response(await self.runners.run(run), len(body.steps))
        except (ZygoteDiedError, NotConfinedError) as error:
            return no_steps_response(f"The steps were not run: {error}", len(body.steps))

    def health(self) -> Health:
        """What is in force."""
        layers = sorted(self.level.layers) + self.runners.cgroup_layers
        replaced = self.runners.replaced + self.graders.replaced + self.zygotes.replaced
        return Health(
            service="sandbox",
            ready=self.ready,
            version=__version__,
            detail={
                "isolation": self.level.isolation,
                "isolation_reason": self.level.reason,
                "layers": layers,
                "workers": self.runners.size,
                "graders": self.graders.size,
                "waiting": self.running.waiting + self.grader.waiting,
                "zygotes_replaced": replaced,
                "incremental": self.sessions.incremental,
                "sessions": self.sessions.open,
                "snapshots": len(self.sessions.snapshots),
                "snapshots_given_up": self.sessions.snapshots.given_up,
                "stray_processes_killed": self.sessions.strays,
                **library_versions(),
            },
        )


@functools.cache
def library_versions() -> dict[str, str]:
    """The versions of what programs run on. Cached: looking them up takes some milliseconds."""
    return {"python": platform.python_version(), "numpy": version("numpy"), "sympy": version("sympy")}
