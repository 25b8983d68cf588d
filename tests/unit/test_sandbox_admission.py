"""Who may run next: a bounded queue, fair between callers."""

import asyncio
from http import HTTPStatus

import pytest

from services.sandbox.admission import Admission, BusyError


async def _hold(admission: Admission, caller: str, order: list[str], release: asyncio.Event) -> None:
    async with admission.permit(caller):
        order.append(caller)
        await release.wait()


async def _let_run() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


async def test_callers_take_turns_however_many_requests_one_of_them_has() -> None:
    admission, order = Admission(1, queue_size=100, queue_timeout=10), list[str]()
    release = asyncio.Event()
    holders = [asyncio.create_task(_hold(admission, caller, order, release)) for caller in ["many"] * 20]
    await _let_run()
    holders += [asyncio.create_task(_hold(admission, caller, order, release)) for caller in ["few"] * 2]
    await _let_run()
    assert order == ["many"]
    assert admission.waiting == 21
    release.set()
    await asyncio.gather(*holders)
    assert order[1:5] == ["many", "few", "many", "few"]
    assert admission.waiting == 0


async def test_nobody_fills_more_than_half_of_the_queue_and_nothing_more_than_all_of_it() -> None:
    admission, release = Admission(1, queue_size=4, queue_timeout=10), asyncio.Event()
    # A batch is let in whole or not at all; one of its requests runs at once.
    admission.check_room("one", 3)
    for count, status in ((4, HTTPStatus.TOO_MANY_REQUESTS), (6, HTTPStatus.SERVICE_UNAVAILABLE)):
        with pytest.raises(BusyError) as refused:
            admission.check_room("one", count)
        assert refused.value.status == status
    callers = ["one", "one", "one", "two", "two"]
    holders = [asyncio.create_task(_hold(admission, caller, [], release)) for caller in callers]
    await _let_run()
    assert admission.waiting == 4
    with pytest.raises(BusyError) as refused:
        await admission._acquire("three")
    assert refused.value.status == HTTPStatus.SERVICE_UNAVAILABLE
    assert refused.value.retry_after >= 1
    release.set()
    await asyncio.gather(*holders)


async def test_a_wait_that_takes_too_long_is_refused_and_leaves_the_queue() -> None:
    admission, release = Admission(1, queue_size=4, queue_timeout=0.05), asyncio.Event()
    holder = asyncio.create_task(_hold(admission, "one", [], release))
    await _let_run()
    with pytest.raises(BusyError, match="No worker became free"):
        await admission._acquire("two")
    assert admission.waiting == 0
    release.set()
    await holder


async def test_a_caller_that_goes_away_as_its_turn_comes_gives_it_on() -> None:
    admission, order, release = Admission(1, queue_size=4, queue_timeout=10), list[str](), asyncio.Event()
    release.set()
    async with admission.permit("first"):
        gone, last = (
            asyncio.create_task(_hold(admission, caller, order, release)) for caller in ("gone", "last")
        )
        await _let_run()
    gone.cancel()
    await asyncio.gather(gone, last, return_exceptions=True)
    assert order == ["last"]
    async with admission.permit("next"):
        assert admission.waiting == 0
