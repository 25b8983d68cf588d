"""Less urgent calls give way to more urgent searches, are asked again, and never starve."""

import asyncio

import pytest

from ratchet.contracts.search import Priority
from services.search import right_of_way
from services.search.right_of_way import RightOfWay


class Engine:
    """Answers a call when it is told to, and counts."""

    def __init__(self) -> None:
        self.asked = 0
        self.given_up = 0
        self.answering = asyncio.Event()

    async def __call__(self) -> int:
        self.asked += 1
        number = self.asked
        try:
            await self.answering.wait()
        except asyncio.CancelledError:
            self.given_up += 1
            raise
        return number


async def turns() -> None:
    for _ in range(10):
        await asyncio.sleep(0)


async def test_a_call_waits_while_something_more_urgent_is_under_way() -> None:
    way, engine = RightOfWay(), Engine()
    engine.answering.set()
    with way.under_way(Priority.NORMAL):
        low = asyncio.create_task(way.ask(Priority.LOW, engine))
        await turns()
        assert engine.asked == 0
        assert await way.ask(Priority.NORMAL, engine) == 1
        assert await way.ask(Priority.HIGH, engine) == 2
        assert not low.done()
    assert await low == 3


async def test_a_call_that_was_asked_is_given_up_and_asked_again() -> None:
    way, engine = RightOfWay(), Engine()
    low = asyncio.create_task(way.ask(Priority.LOW, engine))
    await turns()
    assert engine.asked == 1
    with way.under_way(Priority.HIGH):
        await turns()
        assert engine.given_up == 1
        assert engine.asked == 1
    engine.answering.set()
    assert await low == 2


async def test_another_of_the_same_priority_is_no_reason_to_wait() -> None:
    way, engine = RightOfWay(), Engine()
    low = asyncio.create_task(way.ask(Priority.LOW, engine))
    await turns()
    with way.under_way(Priority.LOW):
        await turns()
        engine.answering.set()
        assert await low == 1
    assert engine.given_up == 0


async def test_nothing_starves(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(right_of_way, "LONGEST_SECONDS", 0.05)
    way, engine = RightOfWay(), Engine()
    with way.under_way(Priority.HIGH):
        low = asyncio.create_task(way.ask(Priority.LOW, engine))
        await asyncio.sleep(0.1)
        assert engine.asked == 1
        engine.answering.set()
        assert await low == 1


async def test_a_caller_who_goes_gives_its_call_up() -> None:
    way, engine = RightOfWay(), Engine()
    low = asyncio.create_task(way.ask(Priority.LOW, engine))
    await turns()
    low.cancel()
    await asyncio.gather(low, return_exceptions=True)
    await turns()
    assert engine.given_up == 1


async def test_an_error_is_the_callers() -> None:
    async def fail() -> int:
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        await RightOfWay().ask(Priority.LOW, fail)
