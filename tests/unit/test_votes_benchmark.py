"""The benchmarks of votes and of what verified is worth, on stored trees whose truth is known."""

import random
from pathlib import Path
from uuid import UUID

import pytest
from pydantic import TypeAdapter

from benchmarks import package_calibrations
from benchmarks.stored_trees import StoredEnd, StoredTree, is_right, load_trees
from benchmarks.verified import answers_crosswise, answers_of_trees, figures
from benchmarks.votes import measure
from ratchet.contracts.calibration import AnswerCalibration
from ratchet.contracts.search import StrategyName


def tree(
    number: int, split: str, rng: random.Random, strategy: StrategyName = StrategyName.MCTS
) -> StoredTree:
    """A PRM that is right about ends, and a policy that is wrong more often than right about every second problem."""
    share = 0.9 if number % 2 else 0.4
    right = [rng.random() < share for _ in range(6)]
    ends = [
        StoredEnd(
            answer="42" if truth else str(number % 7),
            right=truth,
            scores=(0.9 if truth else 0.2,),
            votes=1,
            mass=1 / 6,
        )
        for truth in right
    ]
    return StoredTree(
        search=UUID(int=number),
        problem=f"p{number}",
        split=split,
        strategy=strategy,
        policy="small@1",
        prm="prm@1",
        token_budget=400,
        answer="42" if any(right) else ends[0].answer,
        level="agreement",
        ends=tuple(ends),
    )


def trees(n: int, split: str, seed: int) -> list[StoredTree]:
    rng = random.Random(seed)
    return [tree(number, split, rng) for number in range(n)]


def test_votes_are_chosen_on_development_and_reported_on_held_out_problems() -> None:
    found = measure([*trees(60, "development", 1), *trees(80, "held_out", 2)])
    assert found["n"] == 140
    held_out, development = found["held_out"], found["development"]
    assert development[found["chosen"]] == max(development.values())
    assert development["mass_last"] > development["majority"]
    assert held_out["mass_last"]["right"] > held_out["majority"]["right"]
    assert held_out["mass_last"]["right"] == held_out["visits_last"]["right"], "independent trajectories"
    assert held_out["majority"]["difference"] < 0
    assert "aggregator" not in development, "what is fitted to these trees says nothing about them"
    assert {"aggregator", "log_odds"} <= set(held_out)
    [stated] = found["probable"]
    assert stated["n"] == 80
    assert stated["solved_right"] / stated["solved"] > 0.85


def test_verified_is_counted_on_trees_that_nothing_was_fitted_on(tmp_path: Path) -> None:
    file = tmp_path / "trees.jsonl"
    file.write_text("".join(each.model_dump_json() + "\n" for each in trees(80, "held_out", 3)))
    answers, least = answers_of_trees(trees(80, "held_out", 4), load_trees([file]))
    found = figures(answers)
    assert (found["n"], found["answered"]) == (80, 80)
    agreed = [each for each in answers if each.agreed]
    assert 0 < len(agreed) < 80, "a level is that of the answer that the search gave"
    assert found["before"]["verified"] == len(agreed)
    assert found["verified"] == sum(each.verified for each in answers) <= len(agreed)
    assert found["precision"] >= found["before"]["precision"]
    assert all(each.confidence is not None and each.confidence >= least for each in answers if each.verified)


def test_where_trees_are_few_each_tenth_is_counted_by_a_calibration_of_the_others() -> None:
    stored = trees(80, "held_out", 3)
    # A calibration that had seen its answer would say that the odd problem out is right like all others.
    odd = stored[0].model_copy(
        update={"ends": tuple(end.model_copy(update={"right": False}) for end in stored[0].ends)}
    )
    answers, least = answers_crosswise([odd, *stored[1:]])
    found = figures(answers)
    assert (found["n"], found["answered"]) == (80, 80)
    [seen], same = answers_of_trees([odd, *stored[1:]], [odd])
    [unseen], _ = answers_of_trees(stored[1:], [odd])
    assert same == least
    assert seen.confidence is not None
    assert unseen.confidence is not None
    assert seen.confidence < unseen.confidence
    assert unseen.confidence > min(each.confidence or 0.0 for each in answers)
    assert seen.confidence < max(each.confidence or 0.0 for each in answers if not each.right)


def test_an_answer_is_right_in_any_spelling() -> None:
    assert is_right("7.0", "7")
    assert is_right("sqrt(2)/2", "1/sqrt(2)")
    assert not is_right("8", "7")


def test_a_packaged_calibration_takes_the_place_of_its_pair_s_alone(tmp_path: Path) -> None:
    file = tmp_path / "calibrations.json"
    file.write_bytes(package_calibrations.PACKAGED.read_bytes())
    shipped = TypeAdapter(list[AnswerCalibration]).validate_json(file.read_bytes())
    for n in (60, 80):
        made = package_calibrations.fitted(trees(n, "development", 1), f"{n} trees", early_stop=n == 80)
        package_calibrations.put(made, file)
    found = TypeAdapter(list[AnswerCalibration]).validate_json(file.read_bytes())
    assert found == [*shipped, made]
    assert (made.problems, made.source, made.early_stop) == (80, "80 trees", True)
    with pytest.raises(ValueError, match="2 pairs"):
        package_calibrations.fitted(
            [*trees(1, "a", 1), trees(1, "a", 1)[0].model_copy(update={"prm": "other"})], "", early_stop=False
        )
