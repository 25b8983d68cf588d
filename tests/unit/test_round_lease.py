"""The trainer's lease of a round, while it is given up and before. The store is a double that says that it is gone."""

import asyncio
from types import SimpleNamespace
from typing import Any, cast

import pytest

from ratchet.store.rounds import RoundClaim, RoundLostError
from services.trainer.machine import Machine, _Held


async def watching(*, ending: bool) -> "asyncio.Task[None]":
    asked = asyncio.Event()

    async def renew(claim: object, seconds: float) -> tuple[bool, bool]:
        asked.set()
        raise RoundLostError

    part: Any = SimpleNamespace(lease_seconds=0.1, renew=renew)
    machine = Machine(part, part, part, part, part, part, part, part, part)
    task = asyncio.create_task(machine._watch(_Held(cast("RoundClaim", None), ending=ending)))
    await asyncio.wait_for(asked.wait(), 5)
    await asyncio.sleep(0.05)
    return task


async def test_a_lease_that_is_given_up_is_not_lost() -> None:
    task = await watching(ending=True)
    assert not task.done()
    task.cancel()


async def test_a_lease_that_is_gone_ends_the_work() -> None:
    with pytest.raises(RoundLostError):
        await (await watching(ending=False))
