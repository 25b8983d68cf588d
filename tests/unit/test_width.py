"""How many tasks of a search are under way at once."""

import pytest

from ratchet.contracts.search import SearchRequest
from services.search.run import WIDEST, most_in_flight


@pytest.mark.parametrize(
    ("strategy", "early_stop", "most"),
    [
        ("best_of_n", False, WIDEST),
        ("majority", False, WIDEST),
        ("best_of_n", True, 4),
        ("mcts", False, 4),
    ],
)
def test_trajectories_that_cannot_be_spared_are_drawn_as_wide_as_the_budget(
    strategy: str, early_stop: bool, most: int
) -> None:
    request = SearchRequest.model_validate(
        {"problem": "1 + 1", "strategy": strategy, "parameters": {"in_flight": 4, "early_stop": early_stop}}
    )
    assert most_in_flight(request) == most
