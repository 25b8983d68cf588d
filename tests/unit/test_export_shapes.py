"""Rows of trees and solutions: their shapes, and what is said of the licence of problems."""

import random
from pathlib import Path

import pytest

from ratchet.exports.kinds import Kind, Style
from ratchet.exports.licences import declared_licence
from ratchet.exports.shapes import messages_of, tree_rows
from ratchet.exports.withheld import Withheld, withheld
from ratchet.solutions.preferences import preferences
from ratchet.store.exported import SetAside
from tests.known_trees import known_tree


@pytest.mark.parametrize("style", Style)
def test_a_pair_of_steps_goes_on_from_the_same_prompt(style: Style) -> None:
    tree = known_tree(0, rng=random.Random(1))
    found = preferences(tree, margin=0.3, edit_distance=1)
    rows = [row for kind, row in tree_rows(tree, found, style) if kind is Kind.PREFERENCE]
    assert len(rows) == len(found.pairs) > 0
    texts = {node.id: node.text for node in tree.nodes}
    for pair, row in zip(found.pairs, rows, strict=True):
        assert row["prompt"].startswith(tree.problem)
        assert texts[pair.better] in row["chosen"]
        assert texts[pair.worse] in row["rejected"]
        assert row["q_chosen"] > row["q_rejected"]
    assert {row["pair"] for row in rows} == {"step", "solution"}
    assert all(row["prompt"].strip() == tree.problem for row in rows if row["pair"] == "solution")


def test_a_step_is_right_where_any_rollout_through_it_ended_right() -> None:
    tree = known_tree(0, rng=random.Random(2))
    found = preferences(tree, margin=0.3, edit_distance=1)
    rows = [row for kind, row in tree_rows(tree, found, Style.PROGRAM) if kind is Kind.STEPWISE]
    assert {row["correct"] for row in rows} == {True, False}
    for row in rows:
        assert len(row["completions"]) == len(row["labels"]) == len(row["soft_labels"])
        assert [soft > 0 for soft in row["soft_labels"]] == row["labels"]
        # After a wrong step no end is right.
        assert row["labels"] == sorted(row["labels"], reverse=True)
        assert row["labels"][-1] is row["correct"]


def test_a_fence_in_a_program_does_not_end_the_fence_around_it() -> None:
    [_, answer] = messages_of("Why?", ["text = '''\n```\n'''", "print(text)"])
    assert answer["content"].startswith("````python\n")
    assert answer["content"].endswith("\n````")


def test_what_another_run_has_set_aside_stays_and_what_this_one_trusts_leaves() -> None:
    ledger = [
        SetAside("mine", "One?", overruled=True),
        SetAside("other", "ONE ?", overruled=False),
        SetAside("other", "Two?", overruled=False),
        SetAside("other", "Three?", overruled=True),
    ]
    texts = ["One?", "two?", "Three?", "Four?", "Five?"]
    found = withheld(texts, ledger=ledger, evaluation=["four?"], excluded=["Five?", "Two?"], run="mine")
    assert found == {
        "two?": Withheld.SET_ASIDE,
        "four?": Withheld.EVALUATION,
        "five?": Withheld.EXCLUDED,
    }


def test_a_licence_is_said_only_as_the_source_declares_it(tmp_path: Path) -> None:
    assert declared_licence("nano:train?count=5") == "apache-2.0"
    assert declared_licence("mine.jsonl", tmp_path) is None
    card = tmp_path / "README.md"
    for text, licence in (
        ("no front matter", None),
        ("---\nlanguage: en\n---\n", None),
        ("---\nlicense: [unclosed\n---\n", None),
        ("---\n- a list\n---\n", None),
        ("---\nlicense: cc-by-4.0\n---\n# Mine", "cc-by-4.0"),
        ("---\nlicense:\n- mit\n- cc0-1.0\n---\n", "mit, cc0-1.0"),
    ):
        card.write_text(text)
        assert declared_licence("mine.jsonl", tmp_path) == licence
        assert declared_licence(str(tmp_path / "mine.jsonl")) == licence
        assert declared_licence("mine.jsonl?answer=meta/gold", tmp_path) == licence
