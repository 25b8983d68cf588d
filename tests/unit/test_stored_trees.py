"""Stored trees as they would have been, had their searches ended early."""

from benchmarks.stored_trees import settled
from ratchet.contracts.search import StrategyName
from ratchet.store.search_tasks import SearchJournal
from services.search.early_stop import EarlyStop
from services.search.interpreter import Interpreter
from services.search.search import Search
from services.search.strategies import Tree
from tests.unit.test_search_replay import grow, request_of


class Watch:
    """Looks at a search while it runs, as a worker does, and lets it go on."""

    def __init__(self) -> None:
        self.nodes: set[str] | None = None
        """Those at which it would have ended."""
        self._stop: EarlyStop | None = None

    def look(self, tree: Tree) -> None:
        if self._stop is None:
            request = request_of(StrategyName.BEST_OF_N)
            self._stop = EarlyStop(Search(request, None, tree, Interpreter.__new__(Interpreter)))
        if self.nodes is None and self._stop.reason() is not None:
            self.nodes = set(tree.nodes)


def test_a_stored_search_ends_early_where_it_would_have_ended() -> None:
    early = 0
    for seed in range(40):
        watch = Watch()
        searched = grow(StrategyName.BEST_OF_N, seed, 2, look=watch.look)
        every = {node.id for node in searched.nodes}
        found = {node.id for node in settled(SearchJournal(searched.request, searched.nodes, searched.tasks))}
        assert found == (every if watch.nodes is None else watch.nodes), seed
        early += watch.nodes is not None and watch.nodes < every
    assert 0 < early < 40, "both ends are seen"
