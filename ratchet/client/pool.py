"""A pool of tokens: what some problems of a batch leave of theirs goes to those that are not solved yet. Pure.

A search ends early where its answer is as good as certain. So the budget of a pooled batch is that of all its problems
together: pass after pass, what is left is shared alike among the unsolved ones, until each of them would get too little.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from ratchet.contracts.search import MAX_ROLLOUTS, MAX_TOKENS, SearchRequest
from ratchet.states import SearchState

UNSOLVED: Final = frozenset({SearchState.ANSWERED_UNVERIFIED, SearchState.BUDGET_EXHAUSTED})
LEAST_SHARE: Final = 0.125
"""Of a problem's own budget. Less seldom pays for one more solution, and every pass concludes each search anew."""
MOST_GROWTH: Final = 2.0
"""In one pass: of many problems some are solved on the way, and leave their share to the others again."""


@dataclass(frozen=True, slots=True)
class Spent:
    """What a search may use of tokens, what it has used, and whether more may help it."""

    budget: int
    tokens: int
    unsolved: bool


def spent(result: Mapping[str, Any], own: int) -> Spent:
    """Of a search's result as JSON; `own` is the budget that it began with."""
    asked = result.get("asked")
    return Spent(
        budget=own if asked is None else int(asked["budget"]["tokens"]),
        tokens=int(result["usage"]["policy"]["tokens"]),
        unsolved=SearchState(result["state"]) in UNSOLVED,
    )


def pooled(request: SearchRequest) -> SearchRequest:
    """The request as a pooled batch asks it: tokens alone end it, so that whatever it leaves is left in tokens."""
    parameters = request.parameters.model_copy(update={"rollouts": MAX_ROLLOUTS, "early_stop": True})
    budget = request.budget.model_copy(update={"nodes": parameters.most_nodes})
    return request.model_copy(update={"parameters": parameters, "budget": budget})


def shares(own: Mapping[int, int], found: Mapping[int, Spent], closed: frozenset[int]) -> dict[int, int]:
    """What each unsolved problem may use in all from now on, by its line; empty: there is nothing to share.

    `own`: the budgets of all problems. `found`: what came of those that were searched. `closed`: those that cannot go on.
    """
    left = sum(own[line] - each.tokens for line, each in found.items())
    waiting = [line for line, each in found.items() if each.unsolved and line not in closed]
    if not waiting or left < len(waiting) * LEAST_SHARE * min(own[line] for line in waiting):
        return {}
    share = left // len(waiting)
    granted = {
        line: min(found[line].tokens + share, int(MOST_GROWTH * found[line].budget), MAX_TOKENS)
        for line in waiting
    }
    return {line: tokens for line, tokens in granted.items() if tokens > found[line].budget}
