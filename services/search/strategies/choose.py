"""From a request to the strategy that it names."""

from ratchet.contracts.search import SearchRequest, StrategyName
from services.search.strategies.base import Strategy
from services.search.strategies.independent import BestOfN, Greedy, Majority
from services.search.strategies.mcts import Mcts


def strategy_of(request: SearchRequest, prm: str | None) -> Strategy:
    """The strategy with the request's parameters; `prm` is the version that scores, None where it is not known yet."""
    parameters = request.parameters
    match request.strategy:
        case StrategyName.MCTS:
            return Mcts(
                parameters.rollouts,
                parameters.branching_factor,
                parameters.max_depth,
                parameters.exploration,
            )
        case StrategyName.BEST_OF_N:
            return BestOfN(parameters.rollouts, parameters.max_depth)
        case StrategyName.MAJORITY:
            return Majority(parameters.rollouts, parameters.max_depth)
        case StrategyName.GREEDY:
            return Greedy(1, parameters.max_depth)
