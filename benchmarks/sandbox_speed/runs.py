"""Runs from nothing: against a bare fork, as many as the cores take, and for more and more callers at once."""

import asyncio
import contextlib
import subprocess
import sys
import time
from collections.abc import Callable, Iterator

import httpx
import psutil

from benchmarks.sandbox_service import ROOT, Service
from benchmarks.sandbox_speed.report import CORES, THINK_SECONDS, Report, Sizes, post, seconds_of, spread

TRIVIAL = "print(1+1)"
SYMPY = """import sympy
x = sympy.symbols("x")
print(sympy.solve(x**2 - 5*x + 6, x), sympy.expand((x + 1) * (x - 2)))"""


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
                runs.append(seconds_of(run))
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


async def call_concurrently(url: str, callers: int, requests: int) -> tuple[list[float], float, float]:
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


def measure_callers(report: Report, service: Service, sizes: Sizes) -> None:
    """Latency and throughput as callers become more."""
    rows = []
    for count in sizes.callers:
        requests = max(sizes.requests, count * 8)
        latencies, wall, client = asyncio.run(call_concurrently(service.url, count, requests))
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
