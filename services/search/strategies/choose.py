"""From a request to the strategy that it names."""

from ratchet.contracts.search import PrmUse, SearchRequest, StrategyName, StrategyParameters
from ratchet.contracts.serving import PRM1
from services.search.strategies.base import Strategy
from services.search.strategies.beam import Beam
from services.search.strategies.dvts import Dvts
from services.search.strategies.independent import BestOfN, Greedy, Majority
from services.search.strategies.mcts import Mcts
from services.search.strategies.rebase import Rebase

GATE = 0.6
"""The gate of a trained PRM."""
BRANCHING_FACTOR = 8
LEVEL_BRANCHING_FACTOR = 4
"""With the usual width of 8 two nodes of a level are kept: on small budgets wider searches never come to an end."""


def strategy_of(request: SearchRequest, prm: str | None) -> Strategy:
    """The strategy with the request's parameters; `prm` is the version that scores, None where it is not known yet."""
    parameters = request.parameters
    # As mcts draws with this PRM: only so are its draws theirs.
    stepwise = parameters.shared_draws and _gate(request, prm) > 0
    match request.strategy:
        case StrategyName.MCTS:
            return Mcts(
                parameters.rollouts,
                parameters.branching_factor or BRANCHING_FACTOR,
                parameters.max_depth,
                parameters.exploration,
                widening=parameters.widening,
                gate=_gate(request, prm),
                redraws=parameters.redraws,
            )
        case StrategyName.BEST_OF_N:
            return BestOfN(parameters.rollouts, parameters.max_depth, stepwise)
        case StrategyName.MAJORITY:
            return Majority(parameters.rollouts, parameters.max_depth, stepwise)
        case StrategyName.GREEDY:
            return Greedy(1, parameters.max_depth)
        case StrategyName.BEAM:
            return Beam(*_level_wise(parameters))
        case StrategyName.DVTS:
            return Dvts(*_level_wise(parameters))
        case StrategyName.REBASE:
            return Rebase(*_level_wise(parameters))
        case StrategyName.AUTO:
            raise ValueError("auto stands for another strategy, which is chosen before a search begins")


def _level_wise(parameters: StrategyParameters) -> tuple[int, int, int, int]:
    branching_factor = parameters.branching_factor or LEVEL_BRANCHING_FACTOR
    return parameters.rollouts, parameters.width, branching_factor, parameters.max_depth


def _gate(request: SearchRequest, prm: str | None) -> float:
    if request.parameters.prm is PrmUse.NONE:
        return 0.0
    if request.parameters.gate is not None:
        return request.parameters.gate
    return 0.0 if prm is None or prm.startswith(PRM1) else GATE
