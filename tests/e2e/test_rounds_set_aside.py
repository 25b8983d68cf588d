"""A problem that a run has set aside: no training of a later round sees it, until a person overrules that."""

import json
from collections import Counter
from typing import Any

from tests.running_stack import ratchet
from tests.small_rounds import FEW, Rounds, is_over

RUN = "distrust"
CHEAP: dict[str, Any] = {
    "train": FEW,
    "label": {"retries": 1},
    "evaluation": {"system": False, "max_tokens": 80},
}


def ids_in(rounds: Rounds, number: int, name: str) -> set[str]:
    """The problems of a file of a round."""
    lines = (rounds.stack.data / "rounds" / RUN / f"round-{number}" / name).read_text().splitlines()
    return {line.get("problem_id") or line["id"] for line in map(json.loads, lines)}


def trees_of(rounds: Rounds, number: int) -> Counter[str]:
    """How many trees of each problem a round has."""
    file = rounds.stack.data / "rounds" / RUN / f"round-{number}" / "trees.jsonl"
    return Counter(json.loads(line)["problem_id"] for line in file.read_text().splitlines())


def prm_job(rounds: Rounds, number: int) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(
        (rounds.stack.data / "rounds" / RUN / f"round-{number}" / "prm" / "job.json").read_text()
    )
    return found


async def test_no_later_training_sees_a_problem_that_is_set_aside_until_a_person_overrules_it(
    rounds: Rounds,
) -> None:
    first = await rounds.run(RUN, **CHEAP)
    assert first.metrics.prm is not None, first.reason
    assert prm_job(rounds, 1)["without"] == []
    assert first.metrics.selection is not None
    assert first.metrics.selection.kept_apart == len(prm_job(rounds, 1)["held_out"]) == 6
    aside = min(ids_in(rounds, 1, "sft.jsonl") & ids_in(rounds, 1, "trees.jsonl"))
    await rounds.set_aside(first, aside)

    second = await rounds.run(RUN, **CHEAP)
    assert second.metrics.prm is not None, second.reason
    assert second.metrics.problems is not None
    assert second.metrics.problems.train.set_aside == 1
    assert prm_job(rounds, 2)["without"] == [aside]
    for name in ("sft.jsonl", "validation.jsonl", "trees.jsonl"):
        assert aside not in ids_in(rounds, 2, name)
    assert second.metrics.selection is not None
    of_first = trees_of(rounds, 1)
    kept = sum(of_first.values()) - of_first[aside]
    assert second.metrics.prm.trees == kept + second.metrics.selection.trees

    data = f"--data={rounds.stack.data}"
    listed = await ratchet("rounds", "quarantine", RUN, data)
    assert listed.code == 0, listed.stderr
    assert f"{aside}  (round 1)" in listed.stdout
    assert "41 (found 3 times independently, PRM 0.90)" in listed.stdout
    unknown = await ratchet("rounds", "overrule", RUN, "0" * 16, data)
    assert unknown.code != 0
    assert "has set no problem" in unknown.stderr
    assert "Traceback" not in unknown.stderr
    done = await ratchet("rounds", "overrule", RUN, aside, data)
    assert done.code == 0, done.stderr
    assert f"{aside} is trained on again in {RUN}" in done.stdout

    third = await rounds.begin(RUN, **CHEAP)
    third = await rounds.until(third, lambda now: now.metrics.selection is not None or is_over(now))
    await rounds.ask(third, "cancel")
    await rounds.ended(third)
    assert third.metrics.problems is not None
    assert third.metrics.problems.train.set_aside == 0
    assert aside in ids_in(rounds, 3, "sft.jsonl") | ids_in(rounds, 3, "validation.jsonl")
