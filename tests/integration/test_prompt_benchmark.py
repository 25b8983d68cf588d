"""`benchmarks.prompts`: real programs of a tiny model in the real jail, kept and gone on with; and its counts."""

import argparse
import json
from pathlib import Path

import pytest

from benchmarks import prompts
from benchmarks.prompts import VARIANTS, Record, Records, of_samples, vote
from benchmarks.slices import CALIBRATION, CHOOSING, REPORT
from tests.models import make_checkpoint


def record(answer: str | None, *, right: bool, number: int = 1) -> Record:
    return Record("chat", "p:1", number, 10, 20, False, answer, right, None if answer is None else True)


def test_what_chooses_calibrates_and_reports_does_not_overlap() -> None:
    places = [
        place
        for each in (CHOOSING, CALIBRATION, REPORT)
        for place in range(each.offset, each.offset + each.count)
    ]
    assert len(places) == len(set(places)) == 920


def test_a_vote_counts_equal_answers_in_other_spellings() -> None:
    assert vote([record("4", right=False), record("3", right=True), record("3.0", right=True)])
    assert not vote([record("4", right=False), record("3", right=True), record(None, right=False)])
    assert not vote([record(None, right=False)])
    figures = of_samples(
        [[record("3", right=True), record("4", right=False)], [record(None, right=False)] * 2]
    )
    assert (figures["right_each"]["share"], figures["any"]["count"], figures["ungrounded"]["n"]) == (
        0.25,
        1,
        2,
    )


async def test_every_variant_solves_the_problems_and_a_second_run_does_nothing_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    checkpoint = make_checkpoint(tmp_path / "tiny")
    (checkpoint / "chat_template.jinja").write_text(
        "{% for message in messages %}<{{ message.role }}>{{ message.content }}<|end|>{% endfor %}<assistant>"
    )
    data = tmp_path / "problems.jsonl"
    lines = [
        {"problem": f"A box holds {n} cups. How many hold 3 boxes?", "answer": str(3 * n)}
        for n in range(2, 6)
    ]
    data.write_text("".join(json.dumps(line) + "\n" for line in lines))
    monkeypatch.setattr(prompts, "FOLDER", tmp_path / "kept")
    monkeypatch.setattr(prompts, "MAX_TOKENS", 24)
    monkeypatch.setattr(prompts, "BLOCK", 2)
    options = argparse.Namespace(
        data=data, model=str(checkpoint), limit=3, samples=2, variants=",".join(VARIANTS)
    )
    found = await prompts.measure(options)
    assert (found["n"], list(found["variants"])) == (3, list(VARIANTS))
    for figures in found["variants"].values():
        assert figures["greedy"]["right"]["n"] == figures["greedy"]["ran"]["n"] == 3
        assert figures["samples"]["a_problem"] == 2
        assert 0 < figures["greedy"]["tokens"] <= 24
    assert len(found["paired"]) == 10
    prompt = {name: each["greedy"]["prompt_tokens"] for name, each in found["variants"].items()}
    assert prompt["chat"] < prompt["few_shot"] < prompt["chat_examples"]

    def never(*_: object) -> None:
        raise AssertionError("nothing is left to do")

    monkeypatch.setattr(prompts, "choose_engine", never)
    assert await prompts.measure(options) == found
    [file] = (tmp_path / "kept").iterdir()
    assert len(Records(file).done) == len(VARIANTS) * 3 * 3
