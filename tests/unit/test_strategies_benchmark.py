"""What the benchmark of strategies asks for, and what it makes of the outcomes."""

import pytest
from pydantic import ValidationError

from benchmarks.search_parts import PARTS, row
from benchmarks.strategies import Grid, cells, held_out, parameters_of, request_of
from ratchet.cli.evaluation.comparison import ArmOutcomes
from ratchet.cli.presets import Preset, round_config
from ratchet.contracts.rounds import Evaluation
from ratchet.contracts.search import StrategyName, StrategyParameters
from tests.unit.test_comparison import outcomes


def test_the_budget_alone_ends_a_search_and_only_lengths_and_sampling_come_from_the_run() -> None:
    how = Evaluation(
        tokens=400, rollouts=32, branching_factor=3, exploration=1.5, temperature=0.6, max_tokens=200
    )
    parameters = parameters_of(how, ["min_agreement=3"])
    assert (parameters.rollouts, parameters.early_stop) == (4096, False)
    assert (parameters.temperature, parameters.max_tokens, parameters.min_agreement) == (0.6, 200, 3)
    assert parameters.branching_factor == StrategyParameters().branching_factor
    assert parameters.exploration == StrategyParameters().exploration
    request = request_of(StrategyName.MCTS, "nano@1", "prm@2", 800, 2, parameters)
    assert (request.budget.tokens, request.seed, request.reference_answer) == (800, 2, None)
    assert (request.models.policy, request.models.prm) == ("nano@1", "prm@2")


@pytest.mark.parametrize("change", ["exploration", "magic=1", "exploration=much"])
def test_a_parameter_that_is_none_is_refused(change: str) -> None:
    with pytest.raises((ValidationError, ValueError)):
        parameters_of(Evaluation(), [change])


def test_a_cell_holds_both_accuracies_and_their_difference() -> None:
    grid = Grid([StrategyName.BEST_OF_N, StrategyName.MCTS], {"round 4": "prm@4"}, [400], [0, 1])
    arms = [
        ArmOutcomes(StrategyName.BEST_OF_N, 400, [outcomes("1000", "1010"), outcomes("1000", "1000")]),
        ArmOutcomes(StrategyName.MCTS, 400, [outcomes("1110"), outcomes("1100")]),
    ]
    [cell] = cells(grid, {("round 4", 400): arms})
    assert (cell["prm"], cell["tokens"], cell["n"], cell["seeds"]) == ("round 4", 400, 4, 2)
    assert (cell["best_of_n"], cell["mcts"], cell["difference"]) == (0.25, 0.625, 0.375)
    assert cell["ci95"][0] < 0.375 < cell["ci95"][1]
    assert (cell["better"], cell["worse"], cell["p"]) == (2, 0, 0.5)
    assert cell["coverage"] == {"best_of_n": 0.375, "mcts": 0.625}
    three = [*arms, ArmOutcomes(StrategyName.BEAM, 400, [outcomes("0000"), outcomes("0000")])]
    [cell] = cells(grid, {("round 4", 400): three})
    assert cell["mcts_against"]["difference"] == 0.375
    assert cell["beam_against"]["difference"] == -0.25


def test_problems_are_the_held_out_source_whole_whatever_the_rounds_measured_on() -> None:
    config = round_config(Preset.NANO, 4, 7, ["held_out.count=10"])
    held = held_out(config, None)
    assert (held.spec, len(held.problems)) == ("nano:held_out?count=400", 400)
    assert [each.id for each in held_out(config, 20).problems] == [each.id for each in held.problems[:20]]


def test_each_part_is_a_change_that_a_request_takes_and_no_two_are_the_same_search() -> None:
    requests = [
        request_of(part.strategy, "p", "q", 400, 0, parameters_of(Evaluation(), part.changes))
        for part in PARTS
    ]
    assert len({request.model_dump_json() for request in requests}) == len(PARTS)
    assert len({part.name for part in PARTS}) == len(PARTS)
    assert PARTS[0].changes == ()
    assert PARTS[0].strategy is StrategyName.MCTS


def test_a_part_is_held_against_the_search_with_nothing_changed() -> None:
    whole = ArmOutcomes(StrategyName.MCTS, 400, [outcomes("1110")])
    changed = ArmOutcomes(StrategyName.MCTS, 400, [outcomes("1001")])
    assert "difference" not in row(PARTS[0], whole, whole)
    found = row(PARTS[2], changed, whole)
    assert (found["changed"], found["accuracy"], found["difference"]) == (PARTS[2].name, 0.5, -0.25)
    assert (found["better"], found["worse"]) == (1, 2)
