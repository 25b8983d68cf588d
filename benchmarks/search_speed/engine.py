"""How much of the engine do searches use, and how long do they take beside a lock-step driver?

*Utilisation*: many searches at once on the real services, then every sequence that they drew once more, by the same prompts,
seeds and limits, from the same kind of engine alone, all of them handed over at once. The seeds make the texts and so the
lengths the same (but for the last bit of a logit); the figure is tokens a second through searches over tokens a second of
the engine.

*Lock step*: the driver of `lock_step.py` draws some rollouts for a batch of problems; then the same problems are searched with
as many tokens. Compared are seconds a token.

Limits: policy, PRM, sandbox and worker share the machine's cores, so what the others compute the policy's engine cannot;
`no_prm` says how much of it is the PRM, whose model runs on the same cores.
"""

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from benchmarks.search_speed.lock_step import LockStep
from benchmarks.search_speed.searching import Searcher, request, searcher
from ratchet.clients import PolicyClient, PrmClient, SandboxClient
from ratchet.contracts.policy import GenerateRequest
from ratchet.models.prompts import choose
from ratchet.models.sources import resolve
from ratchet.problems import Problem
from ratchet.settings import PolicySettings
from ratchet.stack.config import StackUrls
from services.policy.__main__ import choose_engine
from services.policy.app import complete, sampling_of

STRATEGIES = ("best_of_n", "mcts")
LOCK_STEP_ROLLOUTS = 2
IN_FLIGHT = 8


@dataclass(frozen=True)
class Speed:
    """Generated tokens and the seconds that they took."""

    tokens: int
    seconds: float

    @property
    def rate(self) -> float:
        """Tokens a second."""
        return self.tokens / self.seconds

    def figures(self) -> dict[str, float]:
        """For the JSON object."""
        return {
            "tokens": self.tokens,
            "seconds": round(self.seconds, 2),
            "tokens_per_second": round(self.rate, 1),
        }


@dataclass
class Drawn:
    """What one way of searching drew, and how fast."""

    name: str
    speed: Speed
    asked: list[GenerateRequest]


async def search_and_listen(
    urls: StackUrls, problems: Sequence[Problem], tokens: int, seed: int, at_once: int
) -> list[Drawn]:
    """Search all problems with each strategy, and best-of-N without a PRM too."""
    ways: dict[str, dict[str, Any]] = {strategy: {} for strategy in STRATEGIES} | {
        "best_of_n without PRM": {"prm": "none"}
    }
    found: list[Drawn] = []
    async with searcher(urls, policy=urls.policy, prm=urls.prm, sandbox=urls.sandbox) as searches:
        # Connections, and what the services do at first use.
        await _speed(searches, problems[:2], "best_of_n", [tokens // 4] * 2, seed + 1, at_once)
        for name, parameters in ways.items():
            searches.policy.asked.clear()
            strategy = name.partition(" ")[0]
            budgets = [tokens] * len(problems)
            speed = await _speed(searches, problems, strategy, budgets, seed, at_once, **parameters)
            print(f"{name}: {speed.rate:.0f} tokens/s through searches", flush=True)
            found.append(Drawn(name, speed, list(searches.policy.asked)))
    return found


async def _speed(
    searches: Searcher,
    problems: Sequence[Problem],
    strategy: str,
    budgets: Sequence[int],
    seed: int,
    at_once: int,
    **parameters: Any,
) -> Speed:
    """Search each problem with its budget of tokens."""
    requests = [
        request(problem.text, strategy, tokens=tokens, seed=seed, in_flight=IN_FLIGHT, **parameters)
        for problem, tokens in zip(problems, budgets, strict=True)
    ]
    began = time.monotonic()
    results = await searches.run(requests, at_once)
    seconds = time.monotonic() - began
    return Speed(sum(result.usage.policy.tokens for result in results), seconds)


async def measure_engine(model: str, drawn: Sequence[Drawn]) -> dict[str, Any]:
    """The engine alone, asked the same. The stack must have ended: its engine would hold memory."""
    settings = PolicySettings(model=model)
    found = await asyncio.to_thread(resolve, model, settings.cache_dir)
    step_format = choose(settings.step_format, found.path, found.version)
    engine = choose_engine(settings, found)
    await engine.start()

    async def ask(asked: GenerateRequest) -> int:
        texts = [step_format.render(prefix) for prefix in asked.prefixes]
        stop = tuple(step_format.stops(asked.until))
        rows = await complete(engine, engine.encode(texts), sampling_of(asked, stop), asked.seeds)
        return sum(one.tokens for row in rows for one in row)

    figures: dict[str, Any] = {"engine": engine.name}
    try:
        await asyncio.gather(*map(ask, drawn[0].asked[:16]))
        for each in drawn:
            began = time.monotonic()
            tokens = sum(await asyncio.gather(*map(ask, each.asked)))
            alone = Speed(tokens, time.monotonic() - began)
            print(f"{each.name}: {alone.rate:.0f} tokens/s by the engine alone", flush=True)
            figures[each.name] = {
                "sequences": sum(len(asked.prefixes) * asked.n for asked in each.asked),
                "searches": each.speed.figures(),
                "engine": alone.figures(),
                "utilisation": round(each.speed.rate / alone.rate, 3),
            }
    finally:
        await engine.stop()
    return figures


async def measure_lock_step(
    urls: StackUrls, problems: Sequence[Problem], seed: int, at_once: int
) -> dict[str, Any]:
    """The same problems in lock step, and by searches with the tokens that those took."""
    async with (
        PolicyClient(urls.policy, key=urls.token) as policy,
        PrmClient(urls.prm, key=urls.token) as prm,
        SandboxClient(urls.sandbox, key=urls.token) as sandbox,
    ):
        driver = LockStep(policy, prm, sandbox)
        await driver.run(problems[:2], 1, seed + 1)
        budgets, seconds = await driver.run(problems, LOCK_STEP_ROLLOUTS, seed)
    lock_step = Speed(sum(budgets), seconds)
    print(f"lock step: {lock_step.rate:.0f} tokens/s", flush=True)
    async with searcher(urls, policy=urls.policy, prm=urls.prm, sandbox=urls.sandbox) as searches:
        searched = await _speed(searches, problems, "mcts", [max(1, each) for each in budgets], seed, at_once)
    return {
        "searches": len(problems),
        "lock_step": lock_step.figures(),
        "mcts": searched.figures(),
        "times_as_fast": round(searched.rate / lock_step.rate, 3),
    }
