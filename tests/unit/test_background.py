"""Loops beside a service's work: what one raises does not end it, and one that does not come round is told."""

import asyncio
import time

import pytest
from prometheus_client import REGISTRY

from ratchet import background


def failures(loop: str) -> float:
    return REGISTRY.get_sample_value("ratchet_loop_failures_total", {"loop": loop}) or 0.0


async def test_an_exception_in_a_turn_is_counted_and_the_loop_goes_on(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(background, "SHORTEST_PAUSE", 0.01)
    turns, done = 0, asyncio.Event()

    async def turn() -> None:
        nonlocal turns
        turns += 1
        if turns <= 2:
            raise ValueError("hostile")
        done.set()

    async with background.running(background.repeat("unlucky", turn, 0.01)):
        await asyncio.wait_for(done.wait(), 30)
    assert failures("unlucky") == 2


@pytest.mark.parametrize("ends_by", ["error", "return"])
async def test_a_loop_that_ends_is_begun_again(ends_by: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(background, "SHORTEST_PAUSE", 0.01)
    begun, again = 0, asyncio.Event()

    async def loop() -> None:
        nonlocal begun
        begun += 1
        if begun == 1 and ends_by == "error":
            raise ValueError("hostile")
        if begun > 1:
            again.set()
            await asyncio.Event().wait()

    name = f"listener that ends by {ends_by}"
    async with background.running(background.restart(name, loop)):
        await asyncio.wait_for(again.wait(), 30)
    assert failures(name) == 1


async def test_a_loop_that_does_not_come_round_is_silent_until_it_ends(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(background, "LONGEST_PAUSE", 0.05)

    async def hang() -> None:
        await asyncio.Event().wait()

    async def work() -> None:
        pass

    loops = (
        background.repeat("hangs", hang, 0.01, silent_seconds=0.05),
        background.repeat("works", work, 0.01, silent_seconds=60),
    )
    async with background.running(*loops):
        deadline = time.monotonic() + 30
        while not (silent := background.silent_loops()) and time.monotonic() < deadline:
            await asyncio.sleep(0.01)
        assert silent == ["hangs"]
    assert background.silent_loops() == []
