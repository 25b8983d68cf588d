"""How fast are searches beside what bounds them? One run, on one machine, side by side.

- `cost`: CPU-ms a node with engines that answer at once, in trees of 100 to 10,000 nodes and in 256 trees at once (`cost.py`)
- `engine`: tokens a second through searches over those of the engine alone, for the same sequences (`engine.py`)
- `lock_step`: seconds a token against a driver that moves all searches of a batch in lock step (`lock_step.py`)
- `interactive`: the 99th percentile of a search of high priority beside a batch, over the same alone (`interactive.py`)

`make bench-search [MODEL=nano]`, or `python -m benchmarks.search_speed --model small --problems FILE --data FOLDER`. The last
line is a JSON object.
"""

import argparse
import json
import os
import tempfile
from pathlib import Path
from typing import Any

import structlog
import uvloop

from benchmarks.search_speed.cost import SIZES, TREES_AT_ONCE, measure_cost
from benchmarks.search_speed.engine import measure_engine, measure_lock_step, search_and_listen
from benchmarks.search_speed.interactive import measure_interactive
from ratchet.garbage import collect_less_often
from ratchet.problems import Problem, load
from ratchet.stack.config import StackConfig
from ratchet.stack.local import local_stack

PARTS = ("cost", "engine", "lock_step", "interactive")
QUICK_SIZES, QUICK_TREES = {100: 2, 1_000: 1}, 8


async def measure(options: argparse.Namespace, data: Path) -> dict[str, Any]:
    """All parts that were asked for, in turn."""
    problems = load(options.problems).require_any().problems[: options.limit]
    figures: dict[str, Any] = {
        "benchmark": "search_speed",
        "model": options.model,
        "problems": options.problems,
        "n": len(problems),
        "tokens": options.tokens,
        "at_once": options.at_once,
        "seed": options.seed,
        "cores": len(os.sched_getaffinity(0)),
    }
    if "cost" in options.parts:
        # Only the databases: the engines are doubles.
        async with local_stack(StackConfig(data=data, services=())) as urls:
            sizes, trees = (QUICK_SIZES, QUICK_TREES) if options.quick else (SIZES, TREES_AT_ONCE)
            figures["cost"] = await measure_cost(urls, options.seed, sizes, trees)
    return figures | await measure_with_engine(options, data, problems)


async def measure_with_engine(
    options: argparse.Namespace, data: Path, problems: list[Problem]
) -> dict[str, Any]:
    """The parts that need a model."""
    figures: dict[str, Any] = {}
    if not set(options.parts) & {"engine", "lock_step", "interactive"}:
        return figures
    services = ("sandbox", "policy", "prm", "search")
    drawn = None
    async with local_stack(StackConfig(data=data, model=options.model, services=services)) as urls:
        if "engine" in options.parts:
            drawn = await search_and_listen(urls, problems, options.tokens, options.seed, options.at_once)
        if "lock_step" in options.parts:
            figures["lock_step"] = await measure_lock_step(urls, problems, options.seed, options.at_once)
        if "interactive" in options.parts:
            figures["interactive"] = await measure_interactive(
                urls, problems, options.tokens, options.seed, options.interactive
            )
    if drawn is not None:
        figures["engine"] = await measure_engine(options.model, drawn)
    return figures


def main() -> None:
    """Measure, and print the JSON object."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", default="nano")
    parser.add_argument("--problems", default="nano:development", help="as `ratchet eval` takes them")
    parser.add_argument("--limit", type=int, default=48, help="so many of the problems")
    parser.add_argument("--tokens", type=int, default=600, help="of a search")
    parser.add_argument("--at-once", type=int, default=32, help="searches at once")
    parser.add_argument("--interactive", type=int, default=40, help="interactive searches")
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--quick", action="store_true", help="small trees; to see that it works")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--data", type=Path, help="data folder of the stack; default: one that is removed")
    options = parser.parse_args()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(40))
    # As the worker, which runs in this process here.
    collect_less_often()
    with tempfile.TemporaryDirectory(prefix="ratchet-bench-") as temporary:
        figures = uvloop.run(measure(options, options.data or Path(temporary, "data")))
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
