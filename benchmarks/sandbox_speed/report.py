"""What is measured, how much of it, and the numbers that come out."""

import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import httpx
import numpy as np

CORES = len(os.sched_getaffinity(0))
THINK_SECONDS = 0.02
"""Between requests of a caller that thinks: a policy takes at least that long to write a step."""
TREE_NODES = 200
SESSION_MEMORY_MB = 8192
BOOTSTRAPS = 2000


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
    """The interval that holds 95 % of the values."""
    return [round(float(edge), 3) for edge in np.percentile(values, [2.5, 97.5])]


def seconds_of(action: Callable[[], object]) -> float:
    """Seconds that the action takes."""
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
