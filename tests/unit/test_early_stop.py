"""A search ends early for a clear lead, and looks for it so seldom that looking stays cheap."""

import itertools

import pytest

from ratchet.contracts.sandbox import StepStatus
from ratchet.contracts.search import SearchRequest
from ratchet.states import NodeState
from services.search import early_stop
from services.search.early_stop import LOOKS, EarlyStop
from services.search.interpreter import Interpreter
from services.search.search import Search
from services.search.strategies import Node, Tree


def search_of(answers: list[str], **changes: object) -> Search:
    """One that has drawn a trajectory of one step for each answer."""
    request = SearchRequest.model_validate({"problem": "1 + 1", "strategy": "majority", **changes})
    interpreter = Interpreter.__new__(Interpreter)  # It runs nothing here.
    search = Search(request, None, Tree(), interpreter)
    for answer in answers:
        draw(search, answer)
    return search


def draw(search: Search, answer: str) -> None:
    tree, number = search.tree, search.tree.root.visits
    text = f"# Draw {number}.\nprint({answer})"
    node = Node(f"n{number}", "root", (number, 0), 1, NodeState.TERMINAL, text, StepStatus.OK)
    node.answer = answer
    tree.add(tree.root, node)
    for each in (node, tree.root):
        each.visits += 1
    tree.root.expansions += 1


def test_a_clear_lead_ends_the_search() -> None:
    assert EarlyStop(search_of(["2"] * 6)).reason() == "the leading answer can hardly be overtaken"
    assert EarlyStop(search_of(["2", "3"] * 3)).reason() is None


@pytest.mark.parametrize(("require", "settled"), [("agreement", False), ("execution", True), ("none", True)])
def test_only_an_agreement_is_waited_for(require: str, settled: bool) -> None:
    search = search_of(["2"] * 6, require=require, parameters={"min_agreement": 8})
    assert (EarlyStop(search).reason() is not None) is settled


def test_a_search_that_is_to_spend_its_budget_does_not_look() -> None:
    assert EarlyStop(search_of(["2"] * 6, parameters={"early_stop": False})).reason() is None


def test_all_looks_together_cost_a_bounded_number_of_the_last_one(monkeypatch: pytest.MonkeyPatch) -> None:
    looked: list[int] = []

    def look(tree: Tree, *_: object) -> bool:
        looked.append(tree.root.visits)
        return False

    monkeypatch.setattr(early_stop, "is_settled", look)
    search = search_of([])
    stop = EarlyStop(search)
    for number in range(2000):
        draw(search, str(number))
        stop.reason()
    assert looked[:LOOKS] == list(range(1, LOOKS + 1))
    assert sum(looked) < 2 * LOOKS * 2000
    assert all(later <= earlier * (1 + 1 / LOOKS) + 1 for earlier, later in itertools.pairwise(looked))
