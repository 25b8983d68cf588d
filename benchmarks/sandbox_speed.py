"""What does isolation cost, and what do kept snapshots gain? One run measures all of it side by side.

- a run over HTTP against a bare fork of an equally large process
- programs per second and core, and processor time per program, with all workers busy
- a step at depth 16 from its parent's kept snapshot, against running all 17 steps from nothing in the sandbox, and
  against rStar-Math's way (`rstar`: the same in new plain processes for each round; `rstar_kept`: in processes that stay)
- a tree of 200 nodes in these ways, with a check that all print the same
- the memory of a kept snapshot
- latency from 1 to 64 concurrent callers

What is compared is measured in turn, within seconds. Intervals are 95 %, by bootstrap. Times are those of the caller,
whose client (httpx) shares the cores with the service: `client_cpu_ms_per_request` says how much of them is its own.

`make bench-sandbox`, or `python -m benchmarks.sandbox_speed [--quick] [--seed 0]`. The last line is a JSON object.
"""

import asyncio
import contextlib
import json
import os
import platform
import random
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import httpx
import numpy as np
import psutil
import typer
from rich.console import Console
from rich.table import Table

from benchmarks import rstar_replay
from benchmarks.rstar_replay import Replay, kept_workers, replay_in_new_workers
from benchmarks.sandbox_service import ROOT, Service, running_service
from benchmarks.steps import DEPTH, Kind, Node, chain, level_by_level, one_by_one, path, step, tree

CORES = len(os.sched_getaffinity(0))
THINK_SECONDS = 0.02
"""Between requests of a caller that thinks: a policy takes at least that long to write a step."""
MAX_SNAPSHOTS = 6000
SESSION_MEMORY_MB = 8192
TREE_NODES = 200
FREE_MB = 3000
"""Memory that snapshots leave to the machine."""
GIB_4 = 4096
BOOTSTRAPS = 2000

TRIVIAL = "print(1+1)"
SYMPY = """import sympy
x = sympy.symbols("x")
print(sympy.solve(x**2 - 5*x + 6, x), sympy.expand((x + 1) * (x - 2)))"""

app = typer.Typer(pretty_exceptions_enable=False, add_completion=False)
console = Console(width=110)
progress = Console(stderr=True)


@dataclass(frozen=True)
class Sizes:
    """How much is measured."""

    calls: int
    batches: int
    batch: int
    chains: int
    siblings: int
    tree_nodes: int
    trees: int
    snapshots: int
    requests: int
    callers: tuple[int, ...]


FULL = Sizes(300, 8, 256, 40, 4, TREE_NODES, 3, 1000, 400, (1, 2, 4, 8, 16, 32, 64))
QUICK = Sizes(10, 2, 8, 2, 2, 20, 1, 20, 16, (1, 4))


@dataclass
class Report:
    """All that was measured, under the names that the JSON object has."""

    numbers: dict[str, float] = field(default_factory=dict)
    ci95: dict[str, list[float]] = field(default_factory=dict)
    ms: dict[str, dict[str, float]] = field(default_factory=dict)
    details: dict[str, Any] = field(default_factory=dict)

    def times(self, name: str, seconds: Sequence[float]) -> None:
        """Median and 99th percentile of latencies."""
        self.ms[name] = spread(seconds)

    def ratio(self, name: str, above: Sequence[float], below: Sequence[float]) -> None:
        """The ratio of two medians, with its interval."""
        self.numbers[name] = round(float(np.median(above) / np.median(below)), 3)
        draw = np.random.default_rng(0)
        medians = [
            np.median(draw.choice(np.asarray(values), (BOOTSTRAPS, len(values))), axis=1)
            for values in (above, below)
        ]
        self.ci95[name] = percentiles(medians[0] / medians[1])

    def rate(self, name: str, counts: int, seconds: Sequence[float]) -> None:
        """Per second and core, from the times of equally large batches, with its interval."""
        self.numbers[name] = round(counts / float(np.mean(seconds)) / CORES, 2)
        draw = np.random.default_rng(0)
        means = draw.choice(np.asarray(seconds), (BOOTSTRAPS, len(seconds))).mean(axis=1)
        self.ci95[name] = percentiles(counts / means / CORES)


def spread(seconds: Sequence[float]) -> dict[str, float]:
    """Median and 99th percentile in milliseconds, and of how many."""
    median, high = np.percentile(np.asarray(seconds) * 1000, [50, 99])
    return {"median": round(float(median), 3), "p99": round(float(high), 3), "n": len(seconds)}


def percentiles(values: Any) -> list[float]:
    """The interval that holds 95 % of them."""
    return [round(float(edge), 3) for edge in np.percentile(values, [2.5, 97.5])]


def timed(action: Callable[[], object]) -> float:
    """Seconds that it takes."""
    began = time.perf_counter()
    action()
    return time.perf_counter() - began


def post(http: httpx.Client, url: str, body: dict[str, Any]) -> Any:
    """The answer. Raises httpx.HTTPStatusError."""
    return http.post(url, json=body).raise_for_status().json()


def only_ok(steps: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """The results of steps. Raises RuntimeError if one did not run to its end."""
    for number, each in enumerate(steps):
        if each["status"] != "ok":
            raise RuntimeError(f"step {number} of {len(steps)} was not ok: {each}")
    return list(steps)


# A run against a bare fork


@contextlib.contextmanager
def bare_fork() -> Iterator[tuple[Callable[[], float], int]]:
    """A function that measures one bare fork, in seconds, and the resident bytes of the process that forks."""
    command = [sys.executable, "-m", "benchmarks.bare_fork"]
    with subprocess.Popen(
        command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        asked, answers = process.stdin, process.stdout

        def measure() -> float:
            asked.write("fork\n")
            return int(answers.readline()) / 1e9

        yield measure, int(answers.readline())
        asked.close()


def run_over_fork(report: Report, http: httpx.Client, service: Service, sizes: Sizes) -> None:
    """A trivial program over HTTP against a bare fork, in turn: with time to think between them, and without."""

    def run() -> None:
        answer = post(http, "/run_code", {"code": TRIVIAL})
        assert answer["run_result"]["stdout"] == "2\n", answer

    with bare_fork() as (fork, resident):
        for suffix, think in (("", THINK_SECONDS), ("_back_to_back", 0.0)):
            forks, runs = [], []
            for _ in range(5):
                fork()
                run()
            client = time.process_time()
            for _ in range(sizes.calls):
                time.sleep(think)
                forks.append(fork())
                time.sleep(think)
                runs.append(timed(run))
            report.numbers[f"client_cpu_ms_per_request{suffix}"] = round(
                (time.process_time() - client) / sizes.calls * 1000, 3
            )
            report.times(f"run{suffix}", runs)
            report.times(f"bare_fork{suffix}", forks)
            report.ratio(f"run_over_fork{suffix}", runs, forks)
    largest = max(process.memory_info().rss for process in service.below())
    report.details["resident_mb"] = {
        "bare_fork": round(resident / 2**20, 1),
        "largest_below_service": round(largest / 2**20, 1),
    }


# Throughput


def throughput(report: Report, http: httpx.Client, service: Service, sizes: Sizes) -> None:
    """Programs per second and core with all workers busy, and the processor time of each."""
    for name, code, printed in (("trivial", TRIVIAL, "2\n"), ("sympy", SYMPY, "[2, 3] x**2 - x - 2\n")):
        body = {"programs": [{"code": code}] * sizes.batch}
        post(http, "/run_code/batch", {"programs": [{"code": code}] * 2 * CORES})
        cpu, machine, client = service.cpu_seconds(), machine_cpu_seconds(), time.process_time()
        seconds = []
        for _ in range(sizes.batches):
            began = time.perf_counter()
            results = post(http, "/run_code/batch", body)["results"]
            seconds.append(time.perf_counter() - began)
            assert all(result["run_result"]["stdout"] == printed for result in results), results
        client = time.process_time() - client
        runs = sizes.batches * sizes.batch
        cpu = (service.cpu_seconds() - cpu) / runs
        machine = (machine_cpu_seconds() - machine - client) / runs
        report.rate(f"{name}_per_second_per_core", sizes.batch, seconds)
        report.details[f"throughput_{name}"] = {
            "runs": runs,
            "cpu_ms_per_run": round(cpu * 1000, 3),
            "per_cpu_second": round(1 / cpu, 2) if cpu else None,
            # Whatever else runs on the machine is in this one: an upper bound.
            "machine_cpu_ms_per_run": round(machine * 1000, 3),
        }


def machine_cpu_seconds() -> float:
    """Processor time of everything on the machine since it started."""
    times = psutil.cpu_times()
    return float(times.user + times.nice + times.system + times.irq + times.softirq)


# A step at depth 16


def deep_step(report: Report, http: httpx.Client, sizes: Sizes, kind: Kind, last: Kind, seed: int) -> None:
    """A step after 16 others: from the kept snapshot, from nothing in the sandbox, and rStar-Math's way.

    All steps are new each time. `last` is the kind of the step itself: a dear one costs all ways the same, and in a fork
    a little more, as it has to copy the memory that it touches. rStar-Math's worker, where it is kept, has run the first
    16 before.
    """
    draw = random.Random(seed)
    seconds: dict[str, list[float]] = {"snapshot_step": [], "replay": [], "rstar": [], "rstar_kept": []}
    replayed = 0
    with kept_workers(1) as kept:
        for _ in range(sizes.chains):
            steps = chain(kind, DEPTH, draw)
            session = post(http, "/sessions", {"memory_limit_MB": SESSION_MEMORY_MB})["id"]
            (known,) = post(http, f"/sessions/{session}/batch", {"chains": [{"steps": steps}]})["chains"]
            run_url = f"/sessions/{session}/nodes/{only_ok(known['steps'])[-1]['node']}/run"
            kept([steps])
            for number in range(sizes.siblings):
                answers = in_turn(http, run_url, kept, [*steps, step(last, DEPTH + 1, number, draw)], seconds)
                assert len(set(answers)) == 1, f"not the same output: {answers}"
            replayed += http.get(f"/sessions/{session}").raise_for_status().json()["replayed"]
            http.delete(f"/sessions/{session}").raise_for_status()
    suffix = {
        (Kind.MIXED, Kind.TRIVIAL): "",
        (Kind.MIXED, Kind.ALGEBRA): "_algebra_last",
        (Kind.TRIVIAL, Kind.TRIVIAL): "_trivial",
    }[kind, last]
    for name, values in seconds.items():
        report.times(f"{name}{suffix}", values)
        report.numbers[f"{name}_ms{suffix}"] = report.ms[f"{name}{suffix}"]["median"]
    snapshot = seconds["snapshot_step"]
    report.ratio(f"snapshot_speedup_depth16{suffix}", seconds["replay"], snapshot)
    report.ratio(f"rstar_speedup_depth16{suffix}", seconds["rstar"], snapshot)
    report.ratio(f"rstar_kept_speedup_depth16{suffix}", seconds["rstar_kept"], snapshot)
    report.details[f"steps_replayed{suffix}"] = replayed


def in_turn(
    http: httpx.Client, run_url: str, kept: Replay, steps: list[str], seconds: dict[str, list[float]]
) -> list[str]:
    """Run the last step in each way and note the seconds. What the last step printed, each way."""

    def snapshot_step() -> str:
        (ran,) = only_ok([post(http, run_url, {"code": steps[-1]})["step"]])
        return str(ran["stdout"])

    def replay() -> str:
        return str(only_ok(post(http, "/run_steps", {"steps": steps})["steps"])[-1]["stdout"])

    def last_line(run: Replay) -> str:
        return run([steps])[0].splitlines(keepends=True)[-1]

    new_worker = replay_in_new_workers(1)
    ways: dict[str, Callable[[], str]] = {
        "snapshot_step": snapshot_step,
        "replay": replay,
        "rstar": lambda: last_line(new_worker),
        "rstar_kept": lambda: last_line(kept),
    }
    printed = []
    for name, way in ways.items():
        time.sleep(THINK_SECONDS)
        began = time.perf_counter()
        printed.append(way())
        seconds[name].append(time.perf_counter() - began)
    return printed


# A tree


def by_session(
    http: httpx.Client, nodes: Sequence[Node], waves: Sequence[Sequence[int]]
) -> tuple[str, list[str]]:
    """A session in which every step was run once, from its parent's snapshot; what was printed up to each node."""
    session = str(post(http, "/sessions", {"memory_limit_MB": SESSION_MEMORY_MB})["id"])
    ids: dict[int | None, str] = {None: "root"}
    printed: dict[int | None, str] = {None: ""}
    for wave in waves:
        chains = [{"parent": ids[nodes[index].parent], "steps": [nodes[index].code]} for index in wave]
        answer = post(http, f"/sessions/{session}/batch", {"chains": chains})
        for index, result in zip(wave, answer["chains"], strict=True):
            (ran,) = only_ok(result["steps"])
            ids[index] = ran["node"]
            printed[index] = printed[nodes[index].parent] + ran["stdout"]
    return session, [printed[index] for index in range(len(nodes))]


def replay_in_sandbox(http: httpx.Client, threads: ThreadPoolExecutor) -> Replay:
    """Every step after all before it, in the sandbox."""

    def one(steps: Sequence[str]) -> str:
        ran = post(http, "/run_steps", {"steps": list(steps)})["steps"]
        return "".join(each["stdout"] for each in only_ok(ran))

    return lambda paths: list(threads.map(one, paths))


def by_replay(run: Replay, nodes: Sequence[Node], waves: Sequence[Sequence[int]]) -> list[str]:
    """What is printed up to each node, by running every step after all before it."""
    found: dict[int, str] = {}
    for wave in waves:
        found.update(zip(wave, run([path(nodes, index) for index in wave]), strict=True))
    return [found[index] for index in range(len(nodes))]


def whole_tree(report: Report, http: httpx.Client, service: Service, sizes: Sizes, seed: int) -> None:
    """A tree as it grows: one node at a time, and all nodes of a depth at a time on all cores."""
    for order, waves_of in (("one_by_one", one_by_one), ("level_by_level", level_by_level)):
        spent: dict[str, list[tuple[float, float]]] = {}
        steps = 0
        for number in range(sizes.trees):
            nodes = tree(Kind.MIXED, sizes.tree_nodes, seed + number)
            waves = waves_of(nodes)
            steps += sum(node.depth for node in nodes)
            with Spent(spent, "session", service.cpu_seconds):
                session, expected = by_session(http, nodes, waves)
            http.delete(f"/sessions/{session}").raise_for_status()
            # The baseline's kept workers are new for each tree, as a search's would be.
            with ThreadPoolExecutor(CORES) as threads, kept_workers(CORES) as kept:
                for name, run, cpu in (
                    ("replay", replay_in_sandbox(http, threads), service.cpu_seconds),
                    ("rstar", replay_in_new_workers(CORES), rstar_replay.cpu_seconds),
                    ("rstar_kept", kept, rstar_replay.cpu_seconds),
                ):
                    with Spent(spent, name, cpu):
                        printed = by_replay(run, nodes, waves)
                    assert printed == expected, f"{name} did not print the same"
        report.details[f"tree_{order}"] = {
            "nodes": sizes.tree_nodes,
            "trees": sizes.trees,
            "steps_of_replay": steps // sizes.trees,
            "outputs_equal": True,
            "wall_seconds": {name: middle([wall for wall, _ in values]) for name, values in spent.items()},
            "cpu_seconds": {name: middle([cpu for _, cpu in values]) for name, values in spent.items()},
        } | {
            f"{name}_over_session_{what}": over(
                [each[at] for each in spent[name]], [each[at] for each in spent["session"]]
            )
            for name in ("replay", "rstar", "rstar_kept")
            for at, what in enumerate(("wall", "cpu"))
        }


@dataclass
class Spent:
    """Notes the wall-clock and processor seconds of a block under a name."""

    into: dict[str, list[tuple[float, float]]]
    name: str
    cpu_seconds: Callable[[], float]

    def __enter__(self) -> None:
        self._cpu, self._began = self.cpu_seconds(), time.perf_counter()

    def __exit__(self, *_: object) -> None:
        wall = time.perf_counter() - self._began
        self.into.setdefault(self.name, []).append((wall, self.cpu_seconds() - self._cpu))


def middle(values: Sequence[float]) -> float:
    """Their median, for people."""
    return round(float(np.median(values)), 3)


def over(above: Sequence[float], below: Sequence[float]) -> dict[str, float]:
    """Median, lowest and highest of the ratios, one a tree: too few for an interval."""
    ratios = np.asarray(above) / np.maximum(np.asarray(below), 1e-9)
    return {
        "median": middle(list(ratios)),
        "lowest": middle([ratios.min()]),
        "highest": middle([ratios.max()]),
    }


# Memory


def snapshot_memory(report: Report, http: httpx.Client, service: Service, sizes: Sizes, seed: int) -> None:
    """MiB that a kept snapshot takes, from trees of several sessions, as many as the machine has memory for."""
    idle = settled_processes(service)
    for kind in Kind:
        before, free_before = service.memory_mb(), available_mb()
        sessions: list[str] = []
        while len(sessions) * sizes.tree_nodes < sizes.snapshots and available_mb() > FREE_MB:
            nodes = tree(kind, sizes.tree_nodes, seed + len(sessions))
            sessions.append(by_session(http, nodes, level_by_level(nodes))[0])
        found = [http.get(f"/sessions/{session}").raise_for_status().json() for session in sessions]
        held = sum(each["snapshots"] for each in found)
        mapped = service.memory_mb() - before
        machine = free_before - available_mb()
        cpu = machine_cpu_seconds() - time.process_time()
        for session in sessions:
            http.delete(f"/sessions/{session}").raise_for_status()
        wait_for_processes(service, idle)
        cpu = machine_cpu_seconds() - time.process_time() - cpu
        # The larger of the two: one leaves out the kernel's own memory, the other has the whole machine in it.
        each_mb = max(mapped, machine) / max(held, 1)
        report.details[f"snapshots_{kind}"] = {
            "asked": sizes.snapshots,
            "held": held,
            "processes_mb": round(mapped, 1),
            "machine_mb": round(machine, 1),
            "mb_per_snapshot": round(each_mb, 3),
            # Not in the trees' processor time: the kernel does it after they are gone.
            "machine_cpu_ms_to_end_one": round(cpu * 1000 / max(held, 1), 3),
        }
        report.numbers[f"snapshot_mb_{kind}"] = round(each_mb, 3)
        report.numbers[f"snapshots_in_4gb_{kind}"] = int(GIB_4 / each_mb) if each_mb > 0 else 0
    report.numbers["snapshots_in_4gb"] = report.numbers[f"snapshots_in_4gb_{Kind.MIXED}"]


def available_mb() -> float:
    """Memory that the machine could still give."""
    return float(psutil.virtual_memory().available) / 2**20


def settled_processes(service: Service) -> int:
    """How many processes an idle service has: the count that a whole second confirms.

    A count beside processes that end or are being forked misses some, as their parents change under the reader.
    """
    counts = [len(service.below())]
    while len(counts) < 5 or len(set(counts[-5:])) > 1:
        time.sleep(0.25)
        counts.append(len(service.below()))
    return counts[-1]


def wait_for_processes(service: Service, idle: int) -> None:
    """Wait until the processes of deleted sessions have ended. Raises RuntimeError if they stay."""
    deadline = time.monotonic() + 20
    while len(service.below()) > idle:
        if time.monotonic() > deadline:
            raise RuntimeError(f"{len(service.below()) - idle} processes of deleted sessions are still there")
        time.sleep(0.1)


# Concurrent callers


async def concurrent(url: str, callers: int, requests: int) -> tuple[list[float], float, float]:
    """Latencies of trivial runs, the seconds that all took together, and this client's processor time."""
    latencies: list[float] = []
    async with contextlib.AsyncExitStack() as stack:
        # One client each: with dozens of connections, httpx takes longer over its pool than the service over a run.
        clients = [
            await stack.enter_async_context(
                httpx.AsyncClient(base_url=url, timeout=60, trust_env=False, verify=False)
            )
            for _ in range(callers)
        ]

        async def caller(http: httpx.AsyncClient, count: int) -> None:
            for _ in range(count):
                began = time.perf_counter()
                response = await http.post("/run_code", json={"code": TRIVIAL})
                latencies.append(time.perf_counter() - began)
                assert response.json()["run_result"]["stdout"] == "2\n", response.text

        # Connections are made before the clock starts.
        await asyncio.gather(*(caller(http, 1) for http in clients))
        latencies.clear()
        cpu, began = time.process_time(), time.perf_counter()
        await asyncio.gather(*(caller(http, max(1, requests // callers)) for http in clients))
        return latencies, time.perf_counter() - began, time.process_time() - cpu


def callers(report: Report, service: Service, sizes: Sizes) -> None:
    """Latency and throughput as callers become more."""
    rows = []
    for count in sizes.callers:
        requests = max(sizes.requests, count * 8)
        latencies, wall, client = asyncio.run(concurrent(service.url, count, requests))
        found = spread(latencies)
        rows.append(
            {
                "callers": count,
                "p50_ms": found["median"],
                "p99_ms": found["p99"],
                "per_second": round(len(latencies) / wall, 1),
                "client_cpu_ms_per_request": round(client / len(latencies) * 1000, 3),
                "n": len(latencies),
            }
        )
    report.details["callers"] = rows


# The whole


def machine_facts(http: httpx.Client, service: Service) -> dict[str, Any]:
    """What the numbers depend on."""
    models = [
        line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")
    ]
    return {
        "cores": CORES,
        "cpu": models[0].partition(":")[2].strip() if models else platform.machine(),
        "memory_mb": psutil.virtual_memory().total // 2**20,
        "kernel": platform.release(),
        "python": platform.python_version(),
        "cpu_time_of": "cgroup" if service.cpu_group else "processes",
        "load_before": [round(value, 2) for value in os.getloadavg()],
        "sandbox": http.get("/health").raise_for_status().json()["detail"],
    }


def show(report: Report) -> None:
    """The numbers as tables."""
    latencies = Table("latency", "median ms", "p99 ms", "n", title="Latencies")
    for name, found in report.ms.items():
        latencies.add_row(name, f"{found['median']:.2f}", f"{found['p99']:.2f}", str(found["n"]))
    numbers = Table("number", "value", "95 % interval", title="Results")
    for name, value in report.numbers.items():
        interval = report.ci95.get(name)
        numbers.add_row(name, f"{value:g}", f"{interval[0]:g} to {interval[1]:g}" if interval else "")
    growth = Table("callers", "p50 ms", "p99 ms", "per second", title="Concurrent callers")
    for row in report.details["callers"]:
        growth.add_row(*(f"{row[key]:g}" for key in ("callers", "p50_ms", "p99_ms", "per_second")))
    details = Table("what", "found", title="Details")
    for name, detail in report.details.items():
        if name not in {"callers", "machine"}:
            details.add_row(name, json.dumps(detail))
    for table in (latencies, numbers, growth, details):
        console.print(table)


@app.command()
def main(
    quick: Annotated[bool, typer.Option(help="Small samples: does it work at all?")] = False,
    seed: Annotated[int, typer.Option(help="Of the steps and trees.")] = 0,
) -> None:
    """Measure the sandbox service."""
    sizes = QUICK if quick else FULL
    report = Report()
    began = time.monotonic()
    rstar_replay.warm_up()

    def say(what: str) -> None:
        progress.print(f"[dim]{time.monotonic() - began:6.1f} s[/dim] {what}")

    with (
        running_service(workers=CORES, max_snapshots=MAX_SNAPSHOTS, queue_size=4096) as service,
        httpx.Client(base_url=service.url, timeout=120, trust_env=False) as http,
    ):
        report.details["machine"] = machine_facts(http, service)
        say("a run against a bare fork")
        run_over_fork(report, http, service, sizes)
        say("throughput")
        throughput(report, http, service, sizes)
        for kind, last in (
            (Kind.MIXED, Kind.TRIVIAL),
            (Kind.MIXED, Kind.ALGEBRA),
            (Kind.TRIVIAL, Kind.TRIVIAL),
        ):
            say(f"a {last} step after {DEPTH} {kind} ones")
            deep_step(report, http, sizes, kind, last, seed)
        say(f"trees of {sizes.tree_nodes} nodes")
        whole_tree(report, http, service, sizes, seed)
        say("concurrent callers")
        callers(report, service, sizes)
        say("memory of snapshots")
        snapshot_memory(report, http, service, sizes, seed)
    say("done")
    show(report)
    report.details["seconds"] = round(time.monotonic() - began, 1)
    print(
        json.dumps(
            {"benchmark": "sandbox_speed", "seed": seed, "quick": quick, **report.numbers}
            | {"ci95": report.ci95, "ms": report.ms, **report.details}
        )
    )


if __name__ == "__main__":
    app()
