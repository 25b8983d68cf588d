"""Does the sandbox service hold up for hours? Random load, floods, callers that go away, killed processes; then: what is left?

Callers send what `soak_programs.py` knows the answers to. Beside them, hundreds of requests come at once now and then,
and a random process below the service is killed with signal 9. An answer that cannot be right is wrong. A clear
error is wrong too, unless it is excused: the request was under way at a kill, its session had lived through one, or a
flood had filled the queue. What the service holds of the machine (`leaks.py`) is counted while it idles, after a
warm-up and again at the end, after all sessions are deleted or have expired; between, every 30 s.

Limits: the service itself is never killed; memory may grow by `MEMORY_SLACK_MB` before that is called a leak.

`make soak`, or `python -m benchmarks.sandbox_soak [--minutes 10] [--seed 0]`. The last line is a JSON object; the exit
status is 0 only if nothing was wrong and nothing leaked.
"""

import asyncio
import contextlib
import json
import random
import signal
import statistics
import time
from collections.abc import Awaitable, Callable
from dataclasses import asdict, dataclass, field
from typing import Annotated, Any

import httpx
import psutil
import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from benchmarks.leaks import Census, Watch, cgroups
from benchmarks.sandbox_service import Service, running_service
from benchmarks.soak_client import RefusedError, Soak, WrongError
from benchmarks.soak_programs import ACTIONS, good

CALLERS = 6
WARM_UP_SECONDS = 15
SAMPLE_SECONDS = 30
LOOK_SECONDS = 1
KILL_SECONDS = (4, 12)
FLOOD_SECONDS = (20, 40)
FLOOD = 200
RECOVERY_SECONDS = 1.0
"""How long after a kill the service may take to notice it."""
SETTLE_SECONDS = 60
"""How long an idle service may take to come back to what it held before."""
MEMORY_SLACK_MB = 64.0
"""What the whole tree may grow by: allocators keep some of what was once used, above all by a flood."""
MAX_SHOWN = 20
SESSION_IDLE_SECONDS = 20
"""The service ends an abandoned session after so long."""

app = typer.Typer(pretty_exceptions_enable=False, add_completion=False)
console = Console(stderr=True)


def say(text: str) -> None:
    """A line for people."""
    console.print(text, markup=False, highlight=False, soft_wrap=True)


@dataclass
class Tally:
    """What happened."""

    requests: int = 0
    wrong: int = 0
    errors: int = 0
    """Clear errors, excused by a kill."""
    busy: int = 0
    """Requests that were refused for want of room, excused by a flood."""
    kills: int = 0
    floods: int = 0
    flooded_until: float = -1.0
    killed_at: list[float] = field(default_factory=list)
    shown: int = 0

    def is_wrong(self, what: str) -> None:
        """Count it, and show the first ones."""
        self.wrong += 1
        if self.shown < MAX_SHOWN:
            self.shown += 1
            say(f"wrong: {what}")

    def excuses(self, began: float) -> bool:
        """Whether something happened since that may have hit a request that began then."""
        killed = any(at + RECOVERY_SECONDS >= began for at in self.killed_at[-10:])
        return killed or self.flooded_until >= began


async def judge(action: Callable[[Soak], Awaitable[None]], soak: Soak, tally: Tally) -> None:
    """Do one thing and count how it went."""
    began = time.monotonic()
    try:
        await action(soak)
    except WrongError as error:
        tally.is_wrong(f"{action.__name__}: {error}")
    except RefusedError as error:
        if error.excused or tally.excuses(began):
            if error.busy:
                tally.busy += 1
            else:
                tally.errors += 1
            await asyncio.sleep(0.2)
        else:
            tally.is_wrong(f"{action.__name__}: refused without cause: {error}")


async def caller(soak: Soak, tally: Tally, until: float) -> None:
    """One thing after another."""
    while time.monotonic() < until:
        (action,) = soak.draw.choices(list(ACTIONS), list(ACTIONS.values()))
        await judge(action, soak, tally)


async def flooder(soak: Soak, tally: Tally, until: float) -> None:
    """Many requests at once, now and then. Too many may be refused, but nothing else."""
    while (pause := soak.draw.uniform(*FLOOD_SECONDS)) and time.monotonic() + pause < until:
        await asyncio.sleep(pause)
        tally.floods += 1
        tally.flooded_until = float("inf")
        await asyncio.gather(*(judge(good, soak, tally) for _ in range(FLOOD)))
        tally.flooded_until = time.monotonic()


async def killer(soak: Soak, watch: Watch, tally: Tally, until: float) -> None:
    """Kill a random process below the service, now and then."""
    while (pause := soak.draw.uniform(*KILL_SECONDS)) and time.monotonic() + pause < until:
        await asyncio.sleep(pause)
        victim = soak.draw.choice(watch.look())
        tally.killed_at.append(time.monotonic())
        soak.last_kill = time.monotonic()
        with contextlib.suppress(psutil.NoSuchProcess):
            victim.send_signal(signal.SIGKILL)
            tally.kills += 1


async def looker(watch: Watch) -> None:
    """Remember every process that lives for a while."""
    while True:
        watch.look()
        await asyncio.sleep(LOOK_SECONDS)


async def sampler(watch: Watch, began: float, samples: list[tuple[float, Census]]) -> None:
    """Count under load."""
    while True:
        await asyncio.sleep(SAMPLE_SECONDS)
        minutes = (time.monotonic() - began) / 60
        samples.append((minutes, watch.census()))
        say(f"{minutes:5.1f} min  {brief(samples[-1][1])}")


def brief(census: Census) -> str:
    """A census in a line."""
    return ", ".join(f"{name} {value:g}" for name, value in asdict(census).items())


async def load(url: str, watch: Watch, tally: Tally, seconds: float, seed: int, *, rough: bool) -> None:
    """Callers for so long; `rough`: with floods and kills. Open sessions are deleted at the end, abandoned ones not."""
    until = time.monotonic() + seconds
    limits = httpx.Limits(max_connections=CALLERS + FLOOD + 10, max_keepalive_connections=CALLERS)
    async with httpx.AsyncClient(base_url=url, limits=limits, timeout=120, trust_env=False) as http:
        soak = Soak(http, random.Random(seed), watch.token)
        tasks = [caller(soak, tally, until) for _ in range(CALLERS)]
        if rough:
            tasks += [flooder(soak, tally, until), killer(soak, watch, tally, until)]
        looking = asyncio.create_task(looker(watch))
        showing = asyncio.create_task(show_progress(soak, tally, seconds))
        try:
            await asyncio.gather(*tasks)
        finally:
            looking.cancel()
            showing.cancel()
        for session in soak.sessions:
            with contextlib.suppress(RefusedError):
                await soak.ask(f"/sessions/{session.id}", method="DELETE")
        tally.requests += sum(soak.counts.values())


async def show_progress(soak: Soak, tally: Tally, seconds: float) -> None:
    """A bar with what has happened so far."""
    text = (
        "{task.fields[requests]} requests, {task.fields[wrong]} wrong, {task.fields[errors]} excused errors"
    )
    columns = (BarColumn(), TimeElapsedColumn(), TextColumn(text), TextColumn("{task.fields[kills]} kills"))
    with Progress(*columns, console=console, transient=True) as bar:
        task = bar.add_task("", total=seconds, requests=0, wrong=0, errors=0, kills=0)
        began = time.monotonic()
        while True:
            await asyncio.sleep(0.5)
            bar.update(
                task,
                completed=time.monotonic() - began,
                requests=sum(soak.counts.values()),
                wrong=tally.wrong,
                errors=tally.errors,
                kills=tally.kills,
            )


async def wait_until_settled(watch: Watch, earlier: Census | None) -> Census:
    """A census of the idle service: when it holds no more than it did, or, the first time, no less than 5 s before."""
    deadline = time.monotonic() + SETTLE_SECONDS
    census = watch.census()
    while time.monotonic() < deadline:
        await asyncio.sleep(5)
        before, census = census, watch.census()
        if earlier is None:
            if census.processes == before.processes and census.service_fds == before.service_fds:
                return census
        elif not any(census.leaked_since(earlier).values()):
            return census
    return census


async def soak_service(service: Service, minutes: float, seed: int) -> dict[str, Any]:
    """The whole soak; its findings but for what outlives the service."""
    watch, tally = Watch(service, f"ratchet-soak-{service.process.pid}"), Tally()
    say("warm-up")
    await load(service.url, watch, tally, WARM_UP_SECONDS, seed, rough=False)
    await asyncio.sleep(SESSION_IDLE_SECONDS)
    start = await wait_until_settled(watch, None)
    say(f"    start  {brief(start)}")

    samples: list[tuple[float, Census]] = []
    sampling = asyncio.create_task(sampler(watch, time.monotonic(), samples))
    await load(service.url, watch, tally, minutes * 60, seed + 1, rough=True)
    sampling.cancel()

    say("settling")
    await asyncio.sleep(SESSION_IDLE_SECONDS)
    end = await wait_until_settled(watch, start)
    say(f"      end  {brief(end)}")
    for file in watch.files():
        say(f"left: {file}")
    for line in service.log.read_text().splitlines():
        if '"level": "error"' in line:
            # Its end says what went wrong.
            say(line[-600:].replace("\\n", "\n"))
    return {
        "minutes": minutes,
        "requests": tally.requests,
        "wrong_results": tally.wrong,
        "server_errors": tally.errors,
        "refused_busy": tally.busy,
        "kills": tally.kills,
        "floods": tally.floods,
        **end.leaked_since(start),
        "memory_start_mb": start.memory_mb,
        "memory_end_mb": end.memory_mb,
        "memory_slope_mb_per_min": slope([(at, census.memory_mb) for at, census in samples]),
        "service_start_mb": start.service_mb,
        "service_end_mb": end.service_mb,
        "service_slope_mb_per_min": slope([(at, census.service_mb) for at, census in samples]),
        "most_processes": max((census.processes for _, census in samples), default=start.processes),
    }


def slope(samples: list[tuple[float, float]]) -> float | None:
    """The slope of the least-squares line through the samples; None from fewer than three."""
    if len(samples) < 3:
        return None
    minutes, values = zip(*samples, strict=True)
    return round(statistics.linear_regression(minutes, values).slope, 2)


@app.command()
def main(
    minutes: Annotated[float, typer.Option(min=0.1, help="Of load, beside the warm-up and the end.")] = 10,
    seed: Annotated[int, typer.Option(help="Of what the callers do.")] = 0,
) -> None:
    """Soak the sandbox service."""
    # A small queue and few snapshots, so that floods fill the one and the others are evicted.
    settings = {"queue_size": 150, "max_snapshots": 200, "session_idle_seconds": SESSION_IDLE_SECONDS}
    with running_service(workers=2, **settings) as service:
        found = asyncio.run(soak_service(service, minutes, seed))
    found["outlived_service"] = len(service.left_behind) + len(cgroups(service.process.pid))
    grew = found["memory_end_mb"] - found["memory_start_mb"] > MEMORY_SLACK_MB
    leaked = grew or any(value for name, value in found.items() if "leaked" in name or "outlived" in name)
    ok = not leaked and not found["wrong_results"]
    print(json.dumps({"benchmark": "sandbox_soak", "seed": seed, "ok": ok} | found))
    raise typer.Exit(not ok)


if __name__ == "__main__":
    app()
