"""Names of the files in which an evaluation that was broken off goes on."""

from pathlib import Path

from ratchet.cli.evaluation.plan import Comparison, Models, Plan, comparison_stem, result_name
from ratchet.contracts.search import SearchRequest, StrategyName
from ratchet.problems import load

PAIR: Models = {"policy": "small@1", "prm": "prm@1"}
OTHERS: list[Models] = [{**PAIR, "prm": "prm@2"}, {**PAIR, "policy": "small@2"}, {**PAIR, "prm": None}]


def test_results_of_other_models_go_into_other_files(tmp_path: Path) -> None:
    file = tmp_path / "problems.jsonl"
    file.write_text('{"problem": "What is 1 + 2?", "answer": "3"}\n')
    held, request = load(str(file)), SearchRequest(problem="any", strategy=StrategyName.MCTS, seed=7)
    plan = Plan(held, held.problems, request, with_reference=False, offset=0)
    comparison = Comparison((StrategyName.MCTS,), (100,), (0,), StrategyName.MCTS)
    name, stem = result_name(held, request, False, PAIR), comparison_stem(plan, comparison, PAIR)
    assert name.startswith("problems-mcts-small@1-s7-")
    assert result_name(held, request, False, dict(PAIR)) == name
    for other in OTHERS:
        assert result_name(held, request, False, other) != name
        assert comparison_stem(plan, comparison, other) != stem
    assert "served" in result_name(held, request, False, {"policy": None, "prm": None})
