"""What the search API bears: `make bench-api`, or `python -m benchmarks.api_load`.

1. Many clients submit searches while a round of nano runs. Each submission is followed by the same client's GET of `/livez`, a
   trivial endpoint of the same app: the p99 of both, and their ratio. Errors are all statuses but 200, 202 and 429.
2. Searches whose every step has 64 KiB (a double before the policy writes them), with and without a reader of their events:
   the most memory that the Redis-protocol server took, and what it has when they are over.
3. Readers of the events of searches that wait: memory of the API's process and transactions of Postgres, a reader. This part
   runs in a stack without workers, so that nothing else asks the database.

The last line is a JSON object.
"""

import argparse
import asyncio
import contextlib
import json
import random
import resource
import shutil
import statistics
import sys
import tempfile
import time
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

import aiohttp
import psutil
from redis.asyncio import Redis
from sqlalchemy import text

from benchmarks import policy_in_front
from benchmarks.policy_in_front import candidate
from ratchet.clients import SearchClient, TrainerClient
from ratchet.contracts.policy import Candidate, GenerateRequest, GenerateResponse, Until
from ratchet.contracts.rounds import RoundConfig, RoundRequest
from ratchet.contracts.search import SearchRequest
from ratchet.stack.config import StackConfig, StackUrls
from ratchet.stack.local import local_stack
from ratchet.stack.ports import free_ports
from ratchet.stack.supervisor import ChildStatus
from ratchet.states import ROUND_ENDS, SEARCH_TRANSITIONS, is_end
from ratchet.store.engine import make_engine

STEP_BYTES = 64 * 1024
PROBLEM = "5 shelves hold 12 cups each. 7 are broken. How many are whole?"
TOLERATED = (200, 202, 429)
IDLE_SECONDS = 30.0
"""How long idle readers are watched."""
OVER_SECONDS = 1800.0
"""For searches to end."""


def percentile(values: Sequence[float], share: float) -> float:
    """The value under which this share of the values lies, in ms."""
    return round(1000 * statistics.quantiles(values, n=1000)[round(share * 1000) - 1], 2)


@contextlib.asynccontextmanager
async def callers(urls: StackUrls, connections: int) -> AsyncIterator[aiohttp.ClientSession]:
    """A client of the search API."""
    async with aiohttp.ClientSession(
        urls.search,
        headers={"Authorization": f"Bearer {urls.key}"},
        connector=aiohttp.TCPConnector(limit=connections),
        timeout=aiohttp.ClientTimeout(total=60),
    ) as session:
        yield session


async def submissions(urls: StackUrls, count: int, clients: int) -> dict[str, Any]:
    """Submissions and trivial requests, alternately by each client."""
    submitted: list[float] = []
    trivial: list[float] = []
    statuses: Counter[int] = Counter()
    numbers = iter(range(count))

    async def client(http: aiohttp.ClientSession) -> None:
        for number in numbers:
            body = {
                "problem": PROBLEM,
                "seed": number,
                "priority": "low",
                "parameters": {"rollouts": 1, "max_tokens": 64},
            }
            began = time.perf_counter()
            async with http.post("/search", json=body) as answer:
                await answer.read()
            submitted.append(time.perf_counter() - began)
            statuses[answer.status] += 1
            began = time.perf_counter()
            async with http.get("/livez") as answer:
                await answer.read()
            trivial.append(time.perf_counter() - began)

    began = time.perf_counter()
    async with callers(urls, clients) as http:
        await asyncio.gather(*(client(http) for _ in range(clients)))
    seconds = time.perf_counter() - began
    p99 = [percentile(each, 0.99) for each in (submitted, trivial)]
    return {
        "submissions": count,
        "clients": clients,
        "statuses": {str(status): number for status, number in sorted(statuses.items())},
        "errors": sum(number for status, number in statuses.items() if status not in TOLERATED),
        "per_second": round(count / seconds, 1),
        "p50_ms": {"submission": percentile(submitted, 0.5), "trivial": percentile(trivial, 0.5)},
        "p99_ms": {"submission": p99[0], "trivial": p99[1]},
        "p99_ratio": round(p99[0] / p99[1], 2),
    }


def round_beside(seed: int) -> RoundConfig:
    """A round that lasts as long as the submissions do."""
    training = {"batch_tokens": 1024, "micro_tokens": 1024, "max_length": 256, "seed": seed}
    return RoundConfig.model_validate(
        {
            "train": {"spec": f"nano:train?count=150&seed={seed}", "count": 150},
            "development": {"spec": "nano:development?count=60", "count": 60},
            "held_out": {"spec": "nano:held_out?count=40", "count": 40},
            "seed": seed,
            "label": {"rollouts": 8, "max_tokens": 160},
            "policy": {**training, "epochs": 2, "lr": 5e-4},
            "prm": {**training, "epochs": 1, "lr": 7e-4, "value_weight": 1.0},
            "evaluation": {"tokens": 300, "samples": 2, "max_tokens": 160},
            "gate": {"selection": 20, "block": 20},
        }
    )


async def beside_a_round(urls: StackUrls, count: int, clients: int, seed: int) -> dict[str, Any]:
    """Submissions while a round searches; it is cancelled afterwards."""
    async with TrainerClient(urls.trainer, key=urls.key) as trainer:
        view = await trainer.create_round(RoundRequest(run="beside", config=round_beside(seed)))
        while view.progress.done == 0 and view.state not in ROUND_ENDS:
            await asyncio.sleep(0.5)
            view = await trainer.round(view.id)
        found = await submissions(urls, count, clients)
        after = await trainer.round(view.id)
        await trainer.ask(view.id, "cancel")
        last = after
        while last.state not in ROUND_ENDS:
            await asyncio.sleep(0.5)
            last = await trainer.round(view.id)
    return {**found, "round": {"before": view.state, "after": after.state}}


class LargeSteps:
    """Writes steps of 64 KiB, each another one, once it is told to."""

    def __init__(self, seed: int) -> None:
        self.on = False
        self._draw = random.Random(seed)

    def rewrite(self, asked: GenerateRequest, answered: GenerateResponse) -> list[list[Candidate]]:
        """See `policy_in_front.Rewrite`."""
        if not self.on:
            return answered.candidates
        return [[self._one(asked.until) for _ in row] for row in answered.candidates]

    def _one(self, until: Until) -> Candidate:
        steps = [f"# {self._draw.randbytes(STEP_BYTES // 2 - 20).hex()}\nx = 5 * 12", "print(x - 7)"]
        if until is Until.END:
            return candidate(steps, final=True)
        return candidate(steps[:1], final=False)


async def large_steps(urls: StackUrls, count: int, large: LargeSteps) -> dict[str, Any]:
    """The memory of the Redis-protocol server, before, at the most, and after; every tenth search is watched."""
    redis = Redis.from_url(urls.redis)
    await redis.ping()

    async def used() -> int:
        return int((await redis.info("memory"))["used_memory"])

    before = most = await used()
    limit = int((await redis.config_get("maxmemory"))["maxmemory"] or 0)
    large.on = True
    together = asyncio.Semaphore(100)
    ends: Counter[str] = Counter()

    async def one(number: int) -> None:
        request = SearchRequest(
            problem=PROBLEM,
            seed=number,
            parameters={"rollouts": 2, "max_tokens": 64, "early_stop": False},
        )
        async with together, SearchClient(urls.search, key=urls.key) as search:
            begun = await search.create(request)
            if number % 10 == 0:
                async for _ in search.events(begun.id):
                    pass
            async with asyncio.timeout(OVER_SECONDS):
                while not is_end(SEARCH_TRANSITIONS, begun.state):
                    await asyncio.sleep(1.0)
                    begun = await search.get(begun.id)
            ends[begun.state] += 1

    async def watch() -> None:
        nonlocal most
        while True:
            most = max(most, await used())
            await asyncio.sleep(0.2)

    watching = asyncio.create_task(watch())
    await asyncio.gather(*(one(number) for number in range(count)))
    watching.cancel()
    large.on = False
    after = await used()
    await redis.aclose()
    return {
        "searches": count,
        "step_bytes": STEP_BYTES,
        "ends": dict(ends),
        "maxmemory_bytes": limit,
        "used_bytes": {"before": before, "most": most, "after": after},
        "bytes_a_search_after": round((after - before) / count),
    }


async def idle_readers(urls: StackUrls, process: psutil.Process, readers: int) -> dict[str, Any]:
    """What readers cost of searches that wait: memory of the API and transactions of Postgres."""
    engine = make_engine(urls.database)

    async def transactions() -> int:
        async with engine.connect() as connection:
            asked = "select sum(xact_commit + xact_rollback) from pg_stat_database where datname = current_database()"
            found = (await connection.execute(text(asked))).scalar_one()
        return int(found)

    async def rate() -> float:
        # Postgres tells its counts with a delay of up to a second.
        before, began = await transactions(), time.monotonic()
        await asyncio.sleep(IDLE_SECONDS)
        return (await transactions() - before) / (time.monotonic() - began)

    async with callers(urls, readers + 10) as http:
        ids = []
        for number in range(50):
            body = {"problem": PROBLEM, "seed": number}
            async with http.post("/search", json=body) as answer:
                ids.append((await answer.json())["id"])
        without, memory = await rate(), process.memory_info().rss
        async with contextlib.AsyncExitStack() as stack:
            statuses: Counter[int] = Counter()

            async def read(number: int) -> None:
                limit = aiohttp.ClientTimeout(total=None, sock_connect=60)
                path = f"/search/{ids[number % len(ids)]}/events"
                answer = await stack.enter_async_context(http.get(path, timeout=limit))
                statuses[answer.status] += 1

            for first in range(0, readers, 50):
                await asyncio.gather(*(read(number) for number in range(first, min(readers, first + 50))))
            with_readers, memory_with = await rate(), process.memory_info().rss
            began = time.perf_counter()
            async with http.get("/livez") as answer:
                await answer.read()
            livez = time.perf_counter() - began
    await engine.dispose()
    return {
        "readers": readers,
        "statuses": {str(status): number for status, number in sorted(statuses.items())},
        "transactions_per_second": {"without": round(without, 2), "with": round(with_readers, 2)},
        "bytes_a_reader": round((memory_with - memory) / readers),
        "livez_ms_beside": round(1000 * livez, 1),
    }


class Children:
    """What the supervisor tells of the stack's processes."""

    def __init__(self) -> None:
        self.all: Sequence[ChildStatus] = ()

    def on_status(self, children: Sequence[ChildStatus]) -> None:
        """Called at every change."""
        self.all = children

    def process(self, name: str) -> psutil.Process:
        """The process of a part; it is a child of its supervisor's shim."""
        pid = next(child.pid for child in self.all if child.name == name)
        return psutil.Process(pid)


async def measure(options: argparse.Namespace, data: Path) -> dict[str, Any]:
    """All three parts."""
    [policy_port, double_port] = free_ports(2)
    large = LargeSteps(options.seed)
    double = policy_in_front.app(f"http://127.0.0.1:{policy_port}", large.rewrite)
    config = StackConfig(
        data=data / "whole",
        model="nano",
        search_workers=2,
        ports={"policy": policy_port},
        log_level="WARNING",
        env={"RATCHET_POLICY_URL": f"http://127.0.0.1:{double_port}"},
    )
    with policy_in_front.served(double, double_port):
        async with local_stack(config) as urls:
            load = await beside_a_round(urls, options.submissions, options.clients, options.seed)
            say(f"submissions: {load}")
            memory = await large_steps(urls, options.large, large)
            say(f"large steps: {memory}")
    children = Children()
    alone = StackConfig(data=data / "alone", services=("search",), log_level="WARNING")
    async with local_stack(alone, children.on_status) as urls:
        readers = await idle_readers(urls, children.process("search"), options.readers)
    return {"seed": options.seed, "load": load, "large_steps": memory, "idle_readers": readers}


def say(message: str) -> None:
    """Tell people how far it is."""
    print(message, file=sys.stderr, flush=True)


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--submissions", type=int, default=1000, help="(default: 1000)")
    parser.add_argument("--clients", type=int, default=100, help="that submit at once (default: 100)")
    parser.add_argument("--large", type=int, default=1000, help="searches of 64 KiB steps (default: 1000)")
    parser.add_argument("--readers", type=int, default=1000, help="of idle event streams (default: 1000)")
    parser.add_argument("--seed", type=int, default=1, help="of the round and of the steps (default: 1)")
    parser.add_argument("--data", type=Path, help="keep the data folders here")
    options = parser.parse_args()
    # Each reader takes a descriptor here.
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    data = options.data or Path(tempfile.mkdtemp(prefix="api-load-"))
    try:
        found = asyncio.run(measure(options, data))
    finally:
        if options.data is None:
            shutil.rmtree(data, ignore_errors=True)
    print(json.dumps(found))


if __name__ == "__main__":
    main()
