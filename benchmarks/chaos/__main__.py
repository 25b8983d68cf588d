"""`make chaos`: is a search ever lost, poisoned or failed by what happens to the system? nano, the real stack, real signals.

Searches are begun, and while they run: random parts are killed with -9, Redis is flushed, the stores are away for long, and
then policy, PRM and sandbox, while as many searches again are queued. When these are over, some more are begun, and a worker
is frozen until others have taken over what it held, and goes on. Then all is left alone until every search is over, and what
the stores hold is counted.

Times are compressed by settings: a lease takes 3 s instead of 15, and a worker gives searches back after 2 s of an outage
instead of 30; so `--outage` seconds stand for 15 times as long. The parts that are away are really gone: they are killed
whenever their supervisor starts them.

`python -m benchmarks.chaos [--seed 0] [--searches 200] [--kills 30]`. The last line is a JSON object; the exit status is 0
only if every search was completed, none twice, none was failed by what happened around it, and the fence has refused
something.
"""

import asyncio
import json
import random
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from sqlalchemy import text

from benchmarks.chaos.counting import Counted, counting
from benchmarks.chaos.troubles import (
    BACKENDS,
    STORES,
    Stack,
    flush_redis,
    freeze_a_worker,
    keep_away,
    kill_at_random,
)
from ratchet.clients import SearchClient
from ratchet.contracts.search import SearchRequest
from ratchet.problems.nano import Split, generate
from ratchet.stack.config import StackConfig
from ratchet.stack.local import local_stack
from ratchet.stack.ports import free_ports
from ratchet.store.engine import make_engine, transaction

LEASE_SECONDS, OUTAGE_SECONDS = 3.0, 2.0
COMPRESSED = 15
"""How many times shorter they are than by default."""
STILL_SECONDS = 600.0
"""Where no search has grown or ended for so long, those that are not over count as lost. A slow machine loses none."""
PATIENCE_SECONDS = 600.0
LAST_SEARCHES = 24
"""Fewer than one worker has places for."""
ENDS_WELL = ("solved_verified", "answered_unverified", "budget_exhausted")

app = typer.Typer(pretty_exceptions_enable=False, add_completion=False)
console = Console(stderr=True)


def say(line: str) -> None:
    """A line for people."""
    console.print(line, markup=False, highlight=False, soft_wrap=True)


class Searches:
    """Those that were begun, by the key under which each was."""

    def __init__(self, client: SearchClient, seed: int, rollouts: int) -> None:
        self._client = client
        self.seed = seed
        self._rollouts = rollouts
        self.ids: dict[str, str] = {}

    async def begin(self, count: int) -> None:
        """Begin so many more."""
        before = len(self.ids)
        problems = generate(Split.TRAIN, before + count, self.seed)[before:]
        at_once = asyncio.Semaphore(16)

        async def one(number: int, problem: str) -> None:
            async with at_once:
                key = f"chaos-{self.seed}-{number}"
                self.ids[key] = await self._key_leads_to(key, number, problem)

        await asyncio.gather(*(one(before + place, each.text) for place, each in enumerate(problems)))

    async def led_elsewhere(self) -> int:
        """How many keys lead to another search than at first."""
        problems = generate(Split.TRAIN, len(self.ids), self.seed)
        wrong = 0
        for number, each in enumerate(problems):
            key = f"chaos-{self.seed}-{number}"
            wrong += await self._key_leads_to(key, number, each.text) != self.ids[key]
        return wrong

    async def _key_leads_to(self, key: str, number: int, problem: str) -> str:
        request = SearchRequest.model_validate(
            {
                "problem": problem,
                "strategy": ("mcts", "majority")[number % 2],
                "parameters": {"rollouts": self._rollouts, "early_stop": False, "temperature": 1.0},
                "budget": {"tokens": 10**6, "seconds": 3600, "nodes": 10**5},
                "seed": number,
            }
        )
        return (await self._client.create(request, idempotency_key=key)).id


async def trouble(
    stack: Stack, searches: Searches, count: int, kills: int, every: float, outage: float
) -> int:
    """All that happens to the stack; how many kills of random parts there were."""
    draw = random.Random(searches.seed)
    say(f"{count} searches")
    await searches.begin(count)
    done = await kill_at_random(stack, draw, kills, every, lambda: True)
    say(f"{done} kills: {stack.killed}")
    await stack.all_ready()
    await flush_redis(stack.urls)
    say("Redis flushed")
    await keep_away(stack, STORES, outage)
    await stack.all_ready()
    say(f"the stores were away for {outage:.0f} s")
    away = asyncio.create_task(keep_away(stack, BACKENDS, outage))
    await searches.begin(count)
    await away
    await stack.all_ready()
    say(f"policy, PRM and sandbox were away for {outage:.0f} s; {count} searches queued meanwhile")
    # Only workers with room take anything over.
    await all_over(stack)
    await searches.begin(LAST_SEARCHES)
    taken_over = await freeze_a_worker(stack)
    say(f"a worker was frozen past its lease, and {taken_over} of its searches were taken over")
    return done


async def states(stack: Stack) -> Counter[str]:
    """How many searches are in each state."""
    engine = make_engine(stack.urls.database)
    async with transaction(engine) as connection:
        rows = (await connection.execute(text("SELECT state, count(*) FROM searches GROUP BY state"))).all()
    await engine.dispose()
    return Counter({str(state): int(number) for state, number in rows})


async def all_over(stack: Stack) -> Counter[str]:
    """The states of the searches as soon as all are over, or nothing moves any more."""
    engine = make_engine(stack.urls.database)
    moved, seen = time.monotonic(), -1
    while True:
        found = await states(stack)
        if not found["queued"] + found["running"]:
            break
        async with transaction(engine) as connection:
            tasks = int((await connection.execute(text("SELECT count(*) FROM search_tasks"))).scalar_one())
        done = tasks + sum(found[state] for state in (*ENDS_WELL, "failed"))
        if done != seen:
            moved, seen = time.monotonic(), done
        elif time.monotonic() > moved + STILL_SECONDS:
            break
        await asyncio.sleep(1.0)
    await engine.dispose()
    return found


async def count(stack: Stack, searches: Searches, counted: Counted, logs: Path) -> dict[str, Any]:
    """What the stores and the workers' logs say of it all."""
    engine = make_engine(stack.urls.database)
    async with transaction(engine) as connection:

        async def number(query: str) -> int:
            return int((await connection.execute(text(query))).scalar_one() or 0)

        rows = (await connection.execute(text("SELECT state, reason FROM searches"))).all()
        stored = await number("SELECT count(*) FROM searches")
        resumed = await number(
            "SELECT count(*) FROM (SELECT search_id FROM search_tasks GROUP BY search_id "
            "HAVING count(DISTINCT fence) > 1) AS resumed"
        )
        kept = await number("SELECT sum((usage -> 'policy' ->> 'tokens')::bigint) FROM searches")
    await engine.dispose()
    worker_logs = _texts(logs)
    reasons = Counter(str(reason) for state, reason in rows if state == "failed")
    for reason, times in reasons.items():
        say(f"failed: {times} x {reason}")
    return {
        "searches": len(searches.ids),
        "completed": sum(state in ENDS_WELL for state, _ in rows),
        "lost": len(searches.ids) - sum(state in (*ENDS_WELL, "failed") for state, _ in rows),
        "failed_by_outage": sum(
            (state == "failed" and "further" not in (reason or "")) or "seconds used up" in (reason or "")
            for state, reason in rows
        ),
        "neighbours_failed": sum(state == "failed" and "further" in (reason or "") for state, reason in rows),
        "duplicate_results": stored - len(searches.ids) + await searches.led_elsewhere(),
        "fenced_writes": sum(log.count("lease lost; another worker has this search") for log in worker_logs),
        "given_back": sum(log.count("search given back") for log in worker_logs),
        "run_apart": sum(log.count("run in a process of its own") for log in worker_logs),
        "resumed_mid_tree": resumed,
        "tokens_redone_share": round(1 - kept / counted.tokens, 4) if counted.tokens else None,
    }


def _texts(logs: Path) -> list[str]:
    """What the workers have logged."""
    return [file.read_text(errors="replace") for file in logs.glob("search-worker-*.log*")]


async def run(
    data: Path,
    *,
    seed: int,
    searches: int,
    kills: int,
    every: float,
    outage: float,
    rollouts: int,
    workers: int,
) -> dict[str, Any]:
    """One run; what came of it."""
    began = time.monotonic()
    policy, in_front = free_ports(2)
    env = {
        "RATCHET_LEASE_SECONDS": str(LEASE_SECONDS),
        "RATCHET_OUTAGE_SECONDS": str(OUTAGE_SECONDS),
        "RATCHET_POLICY_URL": f"http://127.0.0.1:{in_front}",
        "OMP_NUM_THREADS": "1",
    }
    config = StackConfig(
        data=data,
        model="nano",
        search_workers=workers,
        ports={"policy": policy},
        services=("sandbox", "policy", "prm", "search"),
        env=env,
    )
    stack: Stack | None = None

    def on_status(children: Any) -> None:
        if stack is not None:
            stack.children = children

    with counting(f"http://127.0.0.1:{policy}", in_front) as counted:
        async with (
            local_stack(config, on_status) as urls,
            SearchClient(urls.search, key=urls.key, retry_seconds=PATIENCE_SECONDS) as client,
        ):
            stack = Stack(urls)
            await stack.all_ready()
            begun = Searches(client, seed, rollouts)
            done = await trouble(stack, begun, searches, kills, every, outage)
            say(f"states: {dict(await all_over(stack))}")
            result = await count(stack, begun, counted, data / "logs")
    return {
        **result,
        "kills": done,
        "killed": stack.killed,
        "queued_in_outage": searches,
        "outage_seconds": outage,
        "compressed": COMPRESSED,
        "seed": seed,
        "seconds": round(time.monotonic() - began, 1),
    }


@app.command()
def main(
    seed: Annotated[int, typer.Option(min=0, help="Of problems, victims and moments.")] = 0,
    searches: Annotated[
        int, typer.Option(min=1, help="Begun at first, and as many again in the outage.")
    ] = 200,
    kills: Annotated[int, typer.Option(min=0, help="Random parts that are killed.")] = 30,
    every: Annotated[float, typer.Option(min=0.1, help="Seconds between two kills, on average.")] = 4.0,
    outage: Annotated[float, typer.Option(min=1, help="Seconds for which parts are away.")] = 40.0,
    rollouts: Annotated[int, typer.Option(min=1, help="Of each search.")] = 40,
    workers: Annotated[int, typer.Option(min=2, help="Search workers.")] = 2,
) -> None:
    """Put a stack through it all, and count what that has cost."""
    with tempfile.TemporaryDirectory(prefix="ratchet-chaos-", ignore_cleanup_errors=True) as folder:
        result = asyncio.run(
            run(
                Path(folder),
                seed=seed,
                searches=searches,
                kills=kills,
                every=every,
                outage=outage,
                rollouts=rollouts,
                workers=workers,
            )
        )
    print(json.dumps(result))
    wrong = ("lost", "failed_by_outage", "neighbours_failed", "duplicate_results")
    completed = result["completed"] == result["searches"]
    good = completed and result["fenced_writes"] and not any(result[name] for name in wrong)
    raise typer.Exit(0 if good else 1)


if __name__ == "__main__":
    app()
