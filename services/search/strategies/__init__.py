"""How a tree is grown, as pure code: no HTTP, clock, database or randomness.

A strategy holds configuration only. `ask(tree)` names the next piece of work, `explain(tree, task)` says why it is that one,
`tell(tree, rollout)` records what came of it. The caller owns the tree, does the I/O, may save the tree and go on later, and
may tell rollouts in any order.
"""

from services.search.strategies.base import Draw, ExecutedStep, Rollout, Strategy, Task
from services.search.strategies.beam import Beam
from services.search.strategies.choose import strategy_of
from services.search.strategies.dvts import Dvts
from services.search.strategies.gate import Gate
from services.search.strategies.independent import BestOfN, Greedy, Majority
from services.search.strategies.mcts import Mcts
from services.search.strategies.rebase import Rebase
from services.search.strategies.tree import Node, Tree
from services.search.strategies.why import Why

__all__ = [
    "Beam",
    "BestOfN",
    "Draw",
    "Dvts",
    "ExecutedStep",
    "Gate",
    "Greedy",
    "Majority",
    "Mcts",
    "Node",
    "Rebase",
    "Rollout",
    "Strategy",
    "Task",
    "Tree",
    "Why",
    "strategy_of",
]
