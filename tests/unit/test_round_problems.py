"""What a round is made of before any work is put into it: splits that share nothing, and searches that nothing cuts off."""

import json
from pathlib import Path

import pytest

from ratchet.contracts.round_metrics import StartModels
from ratchet.contracts.rounds import LabelSearch, ProblemSource, RoundConfig
from ratchet.contracts.search import MAX_NODES, MAX_ROLLOUTS, StrategyParameters
from ratchet.store.rounds import RoundProblem
from services.trainer.stages.context import RoundFailedError
from services.trainer.stages.prepare import load_problems
from services.trainer.stages.search import label_request

MODELS = StartModels(base="b", base_uri="/b", policy="p", policy_uri="/p", prm="prm1-likelihood")
PROBLEM = RoundProblem(3, "What is 6 * 7?", "42", "packs", 1, "nano:train:0")
SPLITS = ("train", "development", "held_out")


def a_split(file: Path, first: int) -> ProblemSource:
    """A file of four problems, whose numbers begin with `first`."""
    lines = [
        {"problem": f"Alice has {n} dreams and tells {n + 3} of them. What remains?", "answer": "3"}
        for n in range(first, first + 4)
    ]
    file.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return ProblemSource(spec=str(file), count=4)


@pytest.mark.parametrize(("one", "other"), [(0, 1), (0, 2), (1, 2)])
def test_no_two_splits_of_a_round_share_a_problem(tmp_path: Path, one: int, other: int) -> None:
    firsts = [100, 200, 300]
    sources = [a_split(tmp_path / f"{n}.jsonl", first) for n, first in enumerate(firsts)]
    config = RoundConfig(**dict(zip(SPLITS, sources, strict=True)))
    assert [len(load_problems(config, tmp_path)[split][0]) for split in SPLITS] == [4, 4, 4]
    a_split(tmp_path / f"{other}.jsonl", firsts[one] + 3)
    with pytest.raises(RoundFailedError, match=f"1 problems of {SPLITS[other]} are also in {SPLITS[one]}"):
        load_problems(config, tmp_path)


@pytest.mark.parametrize(
    ("label", "factor", "nodes"),
    [
        (LabelSearch(rollouts=8, max_depth=16), 1.0, 384),
        (LabelSearch(rollouts=512, max_depth=16), 2.0, 49_152),
        (LabelSearch(tokens=4000, max_depth=16), 1.0, MAX_NODES),
    ],
)
def test_the_nodes_of_a_label_search_are_as_many_as_its_rollouts_can_make(
    label: LabelSearch, factor: float, nodes: int
) -> None:
    request = label_request(PROBLEM, label, factor, MODELS, seed=1)
    parameters = request.parameters
    assert request.budget.nodes == nodes >= min(MAX_NODES, parameters.rollouts * parameters.max_depth)


def test_no_number_of_rollouts_asks_for_more_nodes_than_a_search_may_have() -> None:
    assert StrategyParameters(rollouts=MAX_ROLLOUTS, max_depth=64, redraws=8).most_nodes == MAX_NODES
