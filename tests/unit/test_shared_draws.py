"""Draws that several searches share: whose they are, how long they are kept, and who waits for them."""

import asyncio
from collections.abc import Callable, Coroutine
from dataclasses import replace
from typing import Any

import pytest

from services.policy.engines.base import Completion, Ended, Sampling
from services.policy.shared_draws import OVERHEAD, SharedDraws

PROMPT = [5, 6, 7]
HOW = Sampling(temperature=0.7, top_p=0.9, max_tokens=50, seed=1, stop=("\n\n",))


def drawn(tokens: int, ended: Ended = Ended.STOP, text: str = "a = 1") -> list[Completion]:
    return [Completion(text, (-0.5,) * tokens, tuple(range(tokens)), ended)]


class Engine:
    """Gives what it is told to, and counts how often."""

    def __init__(self, *rows: list[Completion]) -> None:
        self.rows = list(rows)
        self.asked = 0

    async def __call__(self) -> list[Completion]:
        self.asked += 1
        await asyncio.sleep(0)
        return self.rows.pop(0) if len(self.rows) > 1 else self.rows[0]


async def test_what_was_drawn_is_given_again() -> None:
    draws, engine = SharedDraws(), Engine(drawn(20))
    first = await draws.draw(PROMPT, HOW, 50, engine)
    assert await draws.draw(list(PROMPT), replace(HOW, max_tokens=30), 30, engine) == first
    assert engine.asked == 1


@pytest.mark.parametrize(
    ("prompt", "how"),
    [
        ([5, 6], HOW),
        ([5, 6, 7, 0], HOW),
        ([7, 6, 5], HOW),
        (PROMPT, replace(HOW, seed=2)),
        (PROMPT, replace(HOW, temperature=0.70001)),
        (PROMPT, replace(HOW, top_p=0.91)),
        (PROMPT, replace(HOW, n=2)),
        (PROMPT, replace(HOW, stop=("\n",))),
        (PROMPT, replace(HOW, stop=("\n\n", "\ud800"))),
    ],
)
async def test_another_draw_is_drawn(prompt: list[int], how: Sampling) -> None:
    draws, engine = SharedDraws(), Engine(drawn(20))
    await draws.draw(PROMPT, HOW, 50, engine)
    await draws.draw(prompt, how, 50, engine)
    assert engine.asked == 2


async def test_a_draw_is_cut_where_the_room_of_its_own_request_ends() -> None:
    cut, whole = drawn(20, Ended.LENGTH, "a ="), drawn(30, Ended.EOS)
    draws, engine = SharedDraws(), Engine(cut, whole, cut, whole)
    assert await draws.draw(PROMPT, HOW, 20, engine) == cut
    assert await draws.draw(PROMPT, HOW, 20, engine) == cut
    assert engine.asked == 1
    assert await draws.draw(PROMPT, HOW, 50, engine) == whole
    assert await draws.draw(PROMPT, HOW, 30, engine) == whole
    assert engine.asked == 2
    assert await draws.draw(PROMPT, HOW, 20, engine) == cut
    assert await draws.draw(PROMPT, HOW, 40, engine) == whole, "the longer one was not forgotten"
    assert engine.asked == 3


async def test_the_least_recently_used_draws_go() -> None:
    draws = SharedDraws(most_tokens=3 * (20 + OVERHEAD))
    engine = Engine(drawn(20))

    async def ask(seed: int) -> int:
        before = engine.asked
        await draws.draw(PROMPT, replace(HOW, seed=seed), 50, engine)
        return engine.asked - before

    assert [await ask(seed) for seed in (1, 2, 3, 1, 4)] == [1, 1, 1, 0, 1]
    assert [await ask(seed) for seed in (1, 3, 4)] == [0, 0, 0]
    assert await ask(2) == 1, "it was the least recently used"


class Held:
    """An engine that draws when it is let."""

    def __init__(self) -> None:
        self.asked = 0
        self.let = asyncio.Event()
        self.fails: type[Exception] | None = None

    async def __call__(self) -> list[Completion]:
        self.asked += 1
        await self.let.wait()
        if self.fails is not None:
            raise self.fails
        return drawn(20)


async def under_way(*asking: Coroutine[Any, Any, list[Completion]]) -> list[asyncio.Task[list[Completion]]]:
    tasks = [asyncio.create_task(each) for each in asking]
    for _ in range(5):
        await asyncio.sleep(0)
    return tasks


def asks(draws: SharedDraws, engine: Held) -> Callable[[], Coroutine[Any, Any, list[Completion]]]:
    return lambda: draws.draw(PROMPT, HOW, 50, engine)


async def test_who_asks_for_a_draw_under_way_waits_for_it() -> None:
    draws, engine = SharedDraws(), Held()
    ask = asks(draws, engine)
    tasks = await under_way(ask(), ask(), ask())
    engine.let.set()
    assert await asyncio.gather(*tasks) == [drawn(20)] * 3
    assert engine.asked == 1


async def test_a_draw_that_was_given_up_is_drawn_by_whoever_waits() -> None:
    draws, engine = SharedDraws(), Held()
    ask = asks(draws, engine)
    first, *others = await under_way(ask(), ask(), ask())
    first.cancel()
    await asyncio.gather(first, return_exceptions=True)
    engine.let.set()
    assert await asyncio.gather(*others) == [drawn(20)] * 2
    assert engine.asked == 2
    assert not draws._under_way


async def test_a_draw_that_failed_fails_alone() -> None:
    draws, engine = SharedDraws(), Held()
    ask = asks(draws, engine)
    first, other = await under_way(ask(), ask())
    engine.fails = RuntimeError
    engine.let.set()
    await asyncio.wait([first])
    with pytest.raises(RuntimeError):
        await first
    with pytest.raises(RuntimeError):
        await other
    engine.fails = None
    assert await ask() == drawn(20)
    assert engine.asked == 3, "each has asked for itself: no failure is remembered"
