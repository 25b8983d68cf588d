"""Can anything that a caller sends or a model writes break a service? `make fuzz`, or `python -m benchmarks.fuzz`.

On a stack of its own, with nano and through the real door:

1. schemathesis on the OpenAPI document of each service: every operation with valid and invalid requests, and chains of them;
2. what no HTTP library sends: broken JSON, lying and endless bodies, trickling clients, vanishing readers of events;
3. searches and a round with a policy that writes hostile text (a double, `policy_in_front.py`), by every strategy, with and
   without reference; of each search everything that can be asked is asked: result, events, tree, replay, proof.

A server error is a status of 500 or more but 503, or an error with its traceback in a service's log. A search is poisoned that
fails or is taken up more than once; a round, that fails. The last line is a JSON object. Status 0 if both are none.
"""

import argparse
import asyncio
import contextlib
import json
import shutil
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
from sqlalchemy import text

from benchmarks import policy_in_front
from benchmarks.fuzz.generated import Seen, chains, each_operation
from benchmarks.fuzz.hostile_policy import HostilePolicy
from benchmarks.fuzz.wire import ATTACKS, target, vanishing_readers
from ratchet.clients import SearchClient, TrainerClient
from ratchet.contracts.rounds import RoundConfig, RoundRequest
from ratchet.contracts.search import SearchRequest, StrategyName
from ratchet.service_client import ServiceError
from ratchet.stack.config import SERVICES, StackConfig, StackUrls
from ratchet.stack.local import local_stack
from ratchet.stack.ports import free_ports
from ratchet.states import ROUND_ENDS, SEARCH_TRANSITIONS, RoundState, SearchState, is_end
from ratchet.store.engine import make_engine

SEARCH_SECONDS = 300.0
"""For one search beside the others; one that takes longer hangs."""
PROBLEMS = (
    ("5 shelves hold 12 cups each. 7 are broken. How many are whole?", "53"),
    (
        "Tom has 48 nuts. He gives away 5 and shares the rest with 3 friends. How many nuts does each get?",
        "10",
    ),
    ("What is \x1b[31m6 * 7\u202e, [bold]please[/bold]?", "42"),
    # It leaves nano's context little room for steps.
    ("A" * 700 + " How many?", None),
)


@dataclass
class Poisoned:
    """What hostile text did."""

    searches: int = 0
    ids: list[str] = field(default_factory=list)
    ends: dict[str, int] = field(default_factory=dict)
    rounds: int = 0
    poisoned: list[str] = field(default_factory=list)


async def fuzz_callers(urls: StackUrls, examples: int, seed: int, seen: Seen) -> None:
    """Hostile callers of every service."""
    async with SearchClient(urls.search, key=urls.key) as search:
        known = await search.create(SearchRequest(problem=PROBLEMS[0][0], wait=60))
    for name in SERVICES:
        url, key = getattr(urls, name), urls.key if name in ("search", "trainer") else urls.token
        headers = {"Authorization": f"Bearer {key}"}
        await asyncio.to_thread(each_operation, url, headers, examples, seed, seen)
        await asyncio.to_thread(chains, url, headers, examples, seed, seen)
        to = target(name, url, key)
        for attack in ATTACKS:
            await attack(to, seen)
        if name == "search":
            await vanishing_readers(to, f"/search/{known.id}/events", seen)
        say(f"{name}: {seen.cases} cases, {len(seen.server_errors)} server errors so far")
    await _cancel_rounds(urls)


async def _cancel_rounds(urls: StackUrls) -> None:
    """The rounds that were begun by chance are not what is measured next."""
    async with TrainerClient(urls.trainer, key=urls.key) as trainer:
        while under_way := [each for each in await trainer.rounds() if each.state not in ROUND_ENDS]:
            for each in under_way:
                with contextlib.suppress(ServiceError):
                    await trainer.ask(each.id, "cancel")
            await asyncio.sleep(0.5)


async def poison_searches(urls: StackUrls, count: int, seed: int, found: Poisoned) -> None:
    """Searches with hostile candidates, and all that can be asked of each."""
    strategies = [each for each in StrategyName if each is not StrategyName.AUTO]
    together = asyncio.Semaphore(8)

    async def one(number: int) -> None:
        problem, reference = PROBLEMS[number % len(PROBLEMS)]
        request = SearchRequest(
            problem=problem,
            reference_answer=reference if number % 2 else None,
            strategy=strategies[number % len(strategies)],
            seed=seed + number,
            parameters={"rollouts": 12, "early_stop": False, "max_tokens": 120},
            budget={"tokens": 3000, "seconds": 120},
        )
        async with together, SearchClient(urls.search, key=urls.key) as search:
            state = await _one_search(search, request, found)
            found.ends[state] = found.ends.get(state, 0) + 1

    await asyncio.gather(*(one(number) for number in range(count)))
    found.searches += count
    # Of the callers' searches before, some were cancelled or pinned models that nobody holds: they may fail.
    engine = make_engine(urls.database)
    # The fence grows with each worker that takes a search up; attempts are counted anew wherever there was progress.
    asked = text("select id, fence, state from searches where fence > 1 and id = any(:ids)")
    async with engine.connect() as connection:
        for row in await connection.execute(asked, {"ids": found.ids}):
            found.poisoned.append(f"search {row.id}: taken up {row.fence} times, {row.state}")
    await engine.dispose()


async def _one_search(search: SearchClient, request: SearchRequest, found: Poisoned) -> str:
    result = await search.create(request)
    found.ids.append(result.id)
    try:
        async with asyncio.timeout(SEARCH_SECONDS):
            async for _ in search.events(result.id):
                pass
            # The last event comes after the end is stored.
            result = await search.get(result.id)
    except TimeoutError:
        found.poisoned.append(f"search {result.id}: still {result.state} after {SEARCH_SECONDS:g} s")
        return str(result.state)
    if result.state is SearchState.FAILED or not is_end(SEARCH_TRANSITIONS, result.state):
        found.poisoned.append(f"search {result.id}: {result.state}: {result.reason}")
        return str(result.state)
    try:
        await search.tree(result.id)
        if not (replay := await search.replay(result.id)).holds:
            found.poisoned.append(f"search {result.id}: its replay differs: {replay}")
        if result.state is SearchState.SOLVED_VERIFIED:
            await search.proof(result.id)
    except ServiceError as error:
        found.poisoned.append(f"search {result.id}: {error}")
    return str(result.state)


async def poison_a_round(urls: StackUrls, seed: int, found: Poisoned) -> None:
    """A round of which half of the candidates are hostile."""
    training = {"batch_tokens": 1024, "micro_tokens": 1024, "max_length": 256, "seed": seed, "epochs": 1}
    config = RoundConfig.model_validate(
        {
            "train": {"spec": f"nano:train?count=40&seed={seed}", "count": 40},
            "development": {"spec": "nano:development?count=24", "count": 24},
            "held_out": {"spec": "nano:held_out?count=12", "count": 12},
            "seed": seed,
            "label": {"rollouts": 6, "max_tokens": 160, "retries": 0},
            "policy": {**training, "lr": 5e-4},
            "prm": {**training, "lr": 7e-4, "batch_problems": 1, "value_weight": 1.0},
            "evaluation": {"tokens": 300, "rollouts": 8, "samples": 2, "max_tokens": 160},
            "gate": {"selection": 8, "block": 16},
        }
    )
    async with TrainerClient(urls.trainer, key=urls.key) as trainer:
        view = await trainer.create_round(RoundRequest(run="hostile", config=config))
        while view.state not in ROUND_ENDS:
            await asyncio.sleep(1.0)
            view = await trainer.round(view.id)
    found.rounds += 1
    say(f"round: {view.state}, {view.reason or 'no reason'}")
    if view.state is RoundState.FAILED:
        found.poisoned.append(f"round: {view.reason}")


def tracebacks(data: Path) -> list[str]:
    """Errors with a traceback in the logs of the services."""
    found = []
    for log in sorted((data / "logs").glob("*.log*")):
        lines = log.read_text(errors="replace").splitlines()
        found += [
            f"{log.name}: {line[:200]}" for line in lines if "Traceback (most recent call last)" in line
        ]
    return found


async def measure(options: argparse.Namespace, data: Path) -> dict[str, Any]:
    """All three, in one stack."""
    [policy_port, double_port] = free_ports(2)
    hostile = HostilePolicy()
    double = policy_in_front.app(f"http://127.0.0.1:{policy_port}", hostile.rewrite)
    config = StackConfig(
        data=data,
        model="nano",
        ports={"policy": policy_port},
        log_level="WARNING",
        env={"RATCHET_POLICY_URL": f"http://127.0.0.1:{double_port}"},
    )
    seen, found = Seen(), Poisoned()
    began = time.monotonic()
    with policy_in_front.served(double, double_port):
        async with local_stack(config) as urls:
            await fuzz_callers(urls, options.examples, options.seed, seen)
            hostile.share = 0.5
            await poison_searches(urls, options.searches, options.seed, found)
            say(f"{options.searches} searches: {found.ends}, {len(found.poisoned)} poisoned")
            await poison_a_round(urls, options.seed, found)
            async with httpx.AsyncClient(trust_env=False, timeout=10) as http:
                for name in SERVICES:
                    answer = await http.get(f"{getattr(urls, name)}/livez")
                    seen.note(f"{name}: alive after all", answer.status_code)
    logged = tracebacks(data)
    for line in (*seen.server_errors, *logged, *found.poisoned):
        say(line)
    return {
        "seed": options.seed,
        "operations": len(seen.operations),
        "cases": seen.cases,
        "statuses": {str(status): count for status, count in sorted(seen.statuses.items())},
        "server_errors": len(seen.server_errors) + len(logged),
        "searches": found.searches,
        "hostile_candidates": hostile.written,
        "ends": found.ends,
        "rounds": found.rounds,
        "poisoned": len(found.poisoned),
        "seconds": round(time.monotonic() - began),
    }


def say(message: str) -> None:
    """Tell people how far it is, and what was found."""
    print(message, file=sys.stderr, flush=True)


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--examples", type=int, default=15, help="of each kind and operation (default: 15)")
    parser.add_argument("--searches", type=int, default=60, help="with hostile text (default: 60)")
    parser.add_argument("--seed", type=int, default=1, help="of all that is drawn (default: 1)")
    parser.add_argument("--data", type=Path, help="keep the stack's data folder here, with its logs")
    options = parser.parse_args()
    data = options.data or Path(tempfile.mkdtemp(prefix="fuzz-"))
    try:
        found = asyncio.run(measure(options, data))
    finally:
        if options.data is None:
            shutil.rmtree(data, ignore_errors=True)
    print(json.dumps(found))
    sys.exit(0 if not found["server_errors"] and not found["poisoned"] else 1)


if __name__ == "__main__":
    main()
