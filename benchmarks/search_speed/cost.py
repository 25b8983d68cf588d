"""What does a node cost the worker itself, and does it stay so in large trees and in many at once?

The engines are doubles that answer at once, in a process of their own. Counted is the processor time of this process, which
runs the real worker with a real journal, divided by the nodes that it made. Answers all differ, so the vote is counted and
never ends a search.
"""

import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from benchmarks.search_speed.searching import Searcher, request, searcher
from ratchet.clients import SandboxClient, ServiceError
from ratchet.stack.config import StackUrls
from ratchet.stack.ports import free_port

ROOT = Path(__file__).parents[2]
SIZES = {100: 20, 1_000: 4, 10_000: 1}
"""Nodes in a tree, and how many such trees are grown one after another."""
TREES_AT_ONCE = 256
STRATEGIES = ("best_of_n", "mcts")
IN_FLIGHT = 16
START_SECONDS = 30.0


async def measure_cost(urls: StackUrls, seed: int, sizes: dict[int, int], trees: int) -> dict[str, Any]:
    """CPU-ms a node by the size of the tree, and with many trees at once."""
    port = free_port()
    doubles = subprocess.Popen(  # noqa: ASYNC220 - nothing else waits here
        [sys.executable, "-m", "benchmarks.search_speed.doubles", str(port)], cwd=ROOT
    )
    url = f"http://127.0.0.1:{port}"
    try:
        await _wait_until_ready(url)
        async with searcher(urls, policy=url, prm=url, sandbox=url) as searches:
            await cpu_ms_a_node(searches, "mcts", 100, 4, 1, seed)  # imports and connections
            return {
                strategy: {
                    "ms_a_node": {
                        size: await cpu_ms_a_node(searches, strategy, size, times, 1, seed)
                        for size, times in sizes.items()
                    },
                    "ms_a_node_trees_at_once": {
                        trees: await cpu_ms_a_node(searches, strategy, 100, trees, trees, seed)
                    },
                }
                for strategy in STRATEGIES
            }
    finally:
        doubles.kill()
        doubles.wait()


async def cpu_ms_a_node(
    searches: Searcher, strategy: str, size: int, times: int, at_once: int, seed: int
) -> float:
    """Of this process, over so many trees of that size."""
    # Another seed for each tree: the worker remembers what steps did, and a tree should get nothing from the one before.
    requests = [
        request(
            "double",
            strategy,
            tokens=10_000_000,
            seed=seed + size + number,
            nodes=size,
            in_flight=IN_FLIGHT,
            early_stop=True,
        )
        for number in range(times)
    ]
    began = time.process_time()
    results = await searches.run(requests, at_once)
    used = time.process_time() - began
    nodes = sum(result.usage.nodes for result in results)
    if nodes < 0.9 * size * times:
        raise SystemExit(f"Trees of {size} nodes were wanted, and {nodes / times:.0f} were grown.")
    print(f"{strategy}: {times} x {size} nodes, {at_once} at once: {1000 * used / nodes:.2f} ms", flush=True)
    return round(1000 * used / nodes, 3)


async def _wait_until_ready(url: str) -> None:
    async with SandboxClient(url) as client:
        deadline = time.monotonic() + START_SECONDS
        while True:
            try:
                await client.health()
                return
            except ServiceError:
                if time.monotonic() > deadline:
                    raise
