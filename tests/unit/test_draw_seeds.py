"""Seeds of a search's draws: its own, and the same again."""

import numpy as np

from ratchet.contracts.search import SearchRequest
from services.policy.engines.base import sequence_seed, uniforms
from services.search.search import draw_seed


def a_request(problem: str, seed: int = 1) -> SearchRequest:
    return SearchRequest(problem=problem, seed=seed)


def test_a_draw_has_its_own_seed_and_the_same_one_again() -> None:
    wanted = [
        (problem, seed, task, draw)
        for problem in ("What is 1 + 2?", "What is 1 + 3?", "Ünicode?")
        for seed in (0, 1, 2**31 - 1)
        for task in (0, 1, 1009)
        for draw in (0, 1, 1009)
    ]
    found = [draw_seed(a_request(problem, seed), task, draw) for problem, seed, task, draw in wanted]
    assert found == [draw_seed(a_request(problem, seed), task, draw) for problem, seed, task, draw in wanted]
    assert len(set(found)) == len(wanted)
    assert all(0 <= seed < 2**63 for seed in found), "the policy takes no others"


def test_problems_that_differ_by_their_numbers_are_drawn_independently_under_one_seed() -> None:
    """What the engine draws with: with one seed for all, every problem would get the same numbers."""
    problems = 400
    seeds = [
        sequence_seed(draw_seed(a_request(f"Tom has {number} pens. How many?"), 0, 0), 0, 0)
        for number in range(problems)
    ]
    first, second = (
        uniforms(np.array(seeds, np.uint64), np.full(problems, place, np.uint64)) for place in (0, 1)
    )
    shares = np.histogram(first, bins=4, range=(0, 1))[0] / problems
    # Four standard errors of a quarter.
    assert abs(shares - 0.25).max() < 4 * (0.25 * 0.75 / problems) ** 0.5
    assert abs(np.corrcoef(first, second)[0, 1]) < 4 / problems**0.5
    assert abs(np.corrcoef(first[:-1], first[1:])[0, 1]) < 4 / problems**0.5
