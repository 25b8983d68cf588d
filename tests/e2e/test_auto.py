"""The strategy `auto` through the whole system: it takes what was kept for the models that answer."""

import httpx

from ratchet.states import SearchState
from tests.models import REMEMBERED
from tests.running_stack import Running

CUPS = REMEMBERED[0]


async def test_auto_is_mcts_until_something_was_measured_and_that_from_then_on(stack: Running) -> None:
    before = await stack.solve(CUPS.problem, strategy="auto", require="execution", seed=4)
    assert (before.strategy, before.answer) == ("mcts", CUPS.answer)
    measured = {
        "policy": before.models["policy"],
        "prm": before.models["prm"],
        "strategy": "majority",
        "accuracy": 0.9,
        "n": 10,
        "tokens": [400],
        "compared": ["majority", "mcts"],
        "source": "what the model remembers",
    }
    async with httpx.AsyncClient(base_url=stack.urls.trainer, trust_env=False) as trainer:
        kept = await trainer.put("/strategies", json=measured)
        assert kept.status_code == 200, kept.text
    after = await stack.solve(CUPS.problem, strategy="auto", require="execution", seed=4)
    assert (after.strategy, after.state) == ("majority", SearchState.SOLVED_VERIFIED)
    # Models that are asked for count, whatever serves.
    pinned = {"policy": before.models["policy"], "prm": "prm1-likelihood"}
    asked = await stack.solve(CUPS.problem, strategy="auto", require="execution", seed=4, models=pinned)
    assert asked.strategy == "majority"
