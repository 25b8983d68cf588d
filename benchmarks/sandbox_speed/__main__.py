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

import json
import os
import platform
import time
from pathlib import Path
from typing import Annotated, Any

import httpx
import psutil
import typer
from rich.console import Console
from rich.table import Table

from benchmarks import rstar_replay
from benchmarks.sandbox_service import Service, running_service
from benchmarks.sandbox_speed.report import CORES, FULL, QUICK, Report
from benchmarks.sandbox_speed.runs import measure_callers, run_over_fork, throughput
from benchmarks.sandbox_speed.trees import deep_step, snapshot_memory, whole_tree
from benchmarks.steps import DEPTH, Kind

MAX_SNAPSHOTS = 6000

app = typer.Typer(pretty_exceptions_enable=False, add_completion=False)
console = Console(width=110)
progress = Console(stderr=True)


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
        measure_callers(report, service, sizes)
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
