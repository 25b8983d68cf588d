"""Questions of about the same moment are one call, which is given up when nobody waits for it any more."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field

import pytest

from ratchet.batching import MicroBatcher, within_a_request


@dataclass
class Service:
    """Doubles numbers, when it is let; remembers what it was asked, and which requests were given up."""

    asked: list[list[int]] = field(default_factory=list)
    given_up: int = 0
    answers: asyncio.Event = field(default_factory=asyncio.Event)

    async def send(self, questions: Sequence[int]) -> list[int]:
        self.asked.append(list(questions))
        try:
            await self.answers.wait()
        except asyncio.CancelledError:
            self.given_up += 1
            raise
        if 13 in questions:
            raise ValueError("thirteen")
        return [2 * question for question in questions]


@pytest.fixture
def service() -> Service:
    return Service()


@pytest.fixture
def batcher(service: Service) -> MicroBatcher[int, int]:
    """Collects one turn of the event loop, without bounds."""
    return MicroBatcher(service.send)


async def turns(count: int = 5) -> None:
    """Let everything run that can run."""
    for _ in range(count):
        await asyncio.sleep(0)


async def test_questions_of_one_moment_are_one_request_answered_in_order(
    service: Service, batcher: MicroBatcher[int, int]
) -> None:
    service.answers.set()
    assert await asyncio.gather(*(batcher.ask(n) for n in (5, 1, 4, 1))) == [10, 2, 8, 2]
    assert service.asked == [[5, 1, 4, 1]]
    assert await batcher.ask(7) == 14
    assert service.asked[1:] == [[7]]


async def test_those_that_one_answer_wakes_ask_together_again(
    service: Service, batcher: MicroBatcher[int, int]
) -> None:
    service.answers.set()

    async def rollout(n: int) -> int:
        for _ in range(3):
            n = await batcher.ask(n)
        return n

    assert await asyncio.gather(*map(rollout, (1, 2, 3))) == [8, 16, 24]
    assert service.asked == [[1, 2, 3], [2, 4, 6], [4, 8, 12]]


async def test_a_question_asked_while_another_is_under_way_does_not_wait_for_it(
    service: Service, batcher: MicroBatcher[int, int]
) -> None:
    first = asyncio.create_task(batcher.ask(1))
    await turns()
    second = asyncio.create_task(batcher.ask(2))
    await turns()
    assert service.asked == [[1], [2]]
    service.answers.set()
    assert (await first, await second) == (2, 4)


async def test_an_error_reaches_all_that_asked_together_and_nobody_else(
    service: Service, batcher: MicroBatcher[int, int]
) -> None:
    service.answers.set()
    found = await asyncio.gather(*(batcher.ask(n) for n in (1, 13, 3)), return_exceptions=True)
    assert [str(each) for each in found] == ["thirteen"] * 3
    assert await batcher.ask(4) == 8


async def test_one_that_is_cancelled_harms_no_other(
    service: Service, batcher: MicroBatcher[int, int]
) -> None:
    tasks = [asyncio.create_task(batcher.ask(n)) for n in (1, 2, 3)]
    await turns()
    tasks[1].cancel()
    await turns()
    service.answers.set()
    await asyncio.wait(tasks)
    assert (tasks[0].result(), tasks[1].cancelled(), tasks[2].result()) == (2, True, 6)
    assert service.given_up == 0


async def test_one_that_is_cancelled_at_once_is_not_asked_for(
    service: Service, batcher: MicroBatcher[int, int]
) -> None:
    service.answers.set()
    tasks = [asyncio.create_task(batcher.ask(n)) for n in (1, 2)]
    await asyncio.sleep(0)
    tasks[0].cancel()
    await asyncio.wait(tasks)
    assert tasks[0].cancelled()
    assert tasks[1].result() == 4
    assert sum(map(len, service.asked)) <= 2


async def test_when_all_are_cancelled_the_request_is_given_up(
    service: Service, batcher: MicroBatcher[int, int]
) -> None:
    tasks = [asyncio.create_task(batcher.ask(n)) for n in (1, 2, 3)]
    other = asyncio.create_task(_later(batcher))
    await turns()
    for task in tasks:
        task.cancel()
    await turns()
    assert service.given_up == 1
    service.answers.set()
    assert await other == 18
    assert service.asked == [[1, 2, 3], [9]]


async def _later(batcher: MicroBatcher[int, int]) -> int:
    await turns(2)
    return await batcher.ask(9)


# --- with a window and bounds ----------------------------------------------------------------------------------------


def bounded(service: Service) -> MicroBatcher[int, int]:
    return MicroBatcher(service.send, window_seconds=0.02, max_batch=3, max_under_way=1)


async def until_asked(service: Service, count: int) -> None:
    async with asyncio.timeout(5):
        while len(service.asked) < count:
            await asyncio.sleep(0.001)


async def test_questions_within_the_window_are_one_request(service: Service) -> None:
    service.answers.set()
    batcher = bounded(service)
    first = asyncio.create_task(batcher.ask(1))
    await turns()
    assert not service.asked
    second = batcher.ask(2)
    assert (await second, await first) == (4, 2)
    assert service.asked == [[1, 2]]


async def test_many_questions_are_cut_into_batches_answered_one_after_another(service: Service) -> None:
    batcher = bounded(service)
    first = asyncio.gather(*map(batcher.ask, range(1, 8)))
    await until_asked(service, 1)
    # What comes while a batch is under way goes into the next ones, for which nobody waits longer than that.
    late = asyncio.gather(*map(batcher.ask, (21, 22)))
    await asyncio.sleep(0.05)
    assert service.asked == [[1, 2, 3]]
    service.answers.set()
    assert await first == [2, 4, 6, 8, 10, 12, 14]
    assert await late == [42, 44]
    assert service.asked == [[1, 2, 3], [4, 5, 6], [7, 21, 22]]


async def test_a_request_that_nobody_waits_for_any_more_makes_room_for_the_next(service: Service) -> None:
    batcher = bounded(service)
    tasks = [asyncio.create_task(batcher.ask(n)) for n in range(1, 6)]
    await until_asked(service, 1)
    for task in tasks[:4]:
        task.cancel()
    await until_asked(service, 2)
    assert service.given_up == 1
    # The fourth was cancelled while it waited for room.
    assert service.asked == [[1, 2, 3], [5]]
    service.answers.set()
    assert await tasks[4] == 10


async def test_each_question_may_have_an_error_of_its_own() -> None:
    async def halves(questions: Sequence[int]) -> list[int | Exception]:
        return [ValueError(f"{n} is odd") if n % 2 else n // 2 for n in questions]

    batcher: MicroBatcher[int, int] = MicroBatcher(halves)
    found = await asyncio.gather(*map(batcher.ask, (4, 3, 8)), return_exceptions=True)
    assert (found[0], str(found[1]), found[2]) == (2, "3 is odd", 4)


async def test_nobody_waits_for_ever_for_a_call_that_was_cancelled() -> None:
    async def stopped(questions: Sequence[int]) -> list[int]:
        raise asyncio.CancelledError

    batcher: MicroBatcher[int, int] = MicroBatcher(stopped)
    async with asyncio.timeout(5):
        found = await asyncio.gather(*map(batcher.ask, (1, 2)), return_exceptions=True)
    assert [type(each) for each in found] == [asyncio.CancelledError] * 2


def test_requests_are_cut_by_number_and_by_text_and_lose_nothing() -> None:
    def cut(*texts: str) -> list[list[str]]:
        return list(within_a_request(texts, len, most=3, limit=10))

    assert cut() == []
    assert cut("aaaa", "bbbb", "cccc", "d") == [["aaaa", "bbbb"], ["cccc", "d"]]
    assert cut("a", "b", "c", "d") == [["a", "b", "c"], ["d"]]
    assert cut("a", "b" * 11, "c") == [["a"], ["b" * 11], ["c"]]
