"""A budget of tokens holds on average, however many tasks are under way, and whatever their lengths."""

import heapq
import random
from collections.abc import Callable
from statistics import mean

import pytest

from services.search.reserve import Reserve

LONGEST = 300


def even(rng: random.Random) -> int:
    return int(rng.gauss(45, 8))


def with_a_tail(rng: random.Random) -> int:
    """Some eighty tokens mostly, and where the model does not come to an end the longest there may be."""
    return LONGEST if rng.random() < 0.12 else min(LONGEST, int(rng.lognormvariate(4.5, 0.45)))


def spent(budget: int, at_once: int, draw: Callable[[random.Random], int], rng: random.Random) -> int:
    """Tokens of a search whose tasks all grow at one pace."""
    reserve, used, now, number = Reserve(), 0, 0, 0
    under_way: list[tuple[int, int, int]] = []
    while True:
        while len(under_way) < at_once and reserve.has_room(budget - used):
            tokens = draw(rng)
            heapq.heappush(under_way, (now + tokens, number, tokens))
            reserve.begin(number)
            number += 1
        if not under_way:
            return used
        now, ended, tokens = heapq.heappop(under_way)
        used += tokens
        reserve.end(ended, tokens)


@pytest.mark.parametrize("draw", [even, with_a_tail])
@pytest.mark.parametrize("at_once", [1, 4, 64])
@pytest.mark.parametrize("budget", [1000, 3000])
def test_a_budget_holds_on_average_however_wide_the_search(
    budget: int, at_once: int, draw: Callable[[random.Random], int]
) -> None:
    rng = random.Random(7)
    assert mean(spent(budget, at_once, draw, rng) for _ in range(400)) == pytest.approx(budget, rel=0.16)


def test_a_small_budget_is_overrun_by_a_task_at_the_most_on_average() -> None:
    rng = random.Random(7)
    wide, one_by_one = (
        mean(spent(500, at_once, with_a_tail, rng) for _ in range(400)) for at_once in (64, 1)
    )
    assert wide < 500 + 120
    assert wide == pytest.approx(one_by_one, rel=0.15)


def test_a_short_task_says_little_while_longer_ones_are_under_way() -> None:
    reserve = Reserve()
    for task in "abcd":
        assert reserve.has_room(450)
        reserve.begin(task)
    assert not reserve.has_room(450)
    reserve.end("a", 20)
    assert not reserve.has_room(400), "the others have taken 20 each as well, and have not ended"
    for task in "bcd":
        reserve.end(task, 20)
    assert reserve.has_room(60), "now they are known to be short"


def test_one_task_begins_whatever_the_budget_and_none_where_nothing_is_left() -> None:
    assert Reserve().has_room(1)
    assert not Reserve().has_room(0)
    reserve = Reserve()
    reserve.begin("a")
    reserve.end("a", 100)
    assert not reserve.has_room(40), "half a task and more would go beyond the budget"
    assert reserve.has_room(80)
