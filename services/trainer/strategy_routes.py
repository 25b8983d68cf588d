"""Routes of the strategies that measured best: what searches with the strategy `auto` take."""

from typing import Annotated

from fastapi import APIRouter, Depends, Request

from ratchet.contracts.strategies import StrategyChoice, StrategyChoices
from ratchet.store.strategy_choices import StrategyChoiceStore
from ratchet.web.unavailable import UNAVAILABLE, problems

router = APIRouter(tags=["models"])


async def strategy_choices(request: Request) -> StrategyChoiceStore:
    """The app's store of choices."""
    store: StrategyChoiceStore = request.app.state.strategy_choices
    return store


Choices = Annotated[StrategyChoiceStore, Depends(strategy_choices)]


@router.get("/strategies", summary="Which strategy measured best, by policy and PRM", responses=UNAVAILABLE)
async def strategies(store: Choices) -> StrategyChoices:
    """The newest first. A pair without one is searched with `mcts`."""
    return StrategyChoices(choices=await store.all())


@router.put(
    "/strategies",
    summary="Keep the strategy that measured best",
    responses={**problems(_422="The request is not valid; `errors` names the fields."), **UNAVAILABLE},
)
async def keep(body: StrategyChoice, store: Choices) -> StrategyChoice:
    """Searches of this policy and PRM with the strategy `auto` take it from now on; an earlier choice is replaced."""
    await store.put(body)
    return body
