"""Steps that go on from others: one deep step, whole trees, and the memory of the states that are kept."""

import random
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import httpx
import numpy as np
import psutil

from benchmarks import rstar_replay
from benchmarks.rstar_replay import Replay, kept_workers, replay_in_new_workers
from benchmarks.sandbox_service import Service
from benchmarks.sandbox_speed.report import (
    CORES,
    SESSION_MEMORY_MB,
    THINK_SECONDS,
    Report,
    Sizes,
    only_ok,
    post,
)
from benchmarks.sandbox_speed.runs import machine_cpu_seconds
from benchmarks.steps import DEPTH, Kind, Node, chain, level_by_level, one_by_one, path, step, tree

FREE_MB = 3000
"""Memory that snapshots leave to the machine."""
GIB_4 = 4096


def deep_step(report: Report, http: httpx.Client, sizes: Sizes, kind: Kind, last: Kind, seed: int) -> None:
    """A step after 16 others: from the kept snapshot, from nothing in the sandbox, and rStar-Math's way.

    All steps are new each time. `last` is the kind of the step itself: a dear one costs the same in all ways, and in a
    fork a little more, as it copies the memory that it touches. rStar-Math's worker, where it is kept, has run the first
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
            "wall_seconds": {
                name: rounded_median([wall for wall, _ in values]) for name, values in spent.items()
            },
            "cpu_seconds": {
                name: rounded_median([cpu for _, cpu in values]) for name, values in spent.items()
            },
        } | {
            f"{name}_over_session_{what}": ratio_range(
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


def rounded_median(values: Sequence[float]) -> float:
    """Their median, for people to read."""
    return round(float(np.median(values)), 3)


def ratio_range(above: Sequence[float], below: Sequence[float]) -> dict[str, float]:
    """Median, lowest and highest of the ratios. There is one a tree, too few for an interval."""
    ratios = np.asarray(above) / np.maximum(np.asarray(below), 1e-9)
    return {
        "median": rounded_median(list(ratios)),
        "lowest": rounded_median([ratios.min()]),
        "highest": rounded_median([ratios.max()]),
    }


def snapshot_memory(report: Report, http: httpx.Client, service: Service, sizes: Sizes, seed: int) -> None:
    """MiB that a kept snapshot takes, from trees of several sessions, as many as the machine has memory for."""
    idle = count_settled_processes(service)
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


def count_settled_processes(service: Service) -> int:
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
