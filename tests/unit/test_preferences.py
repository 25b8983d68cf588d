"""Pairs and values of search trees: which steps are compared, how they weigh, and what is left out."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from ratchet.solutions.preferences import (
    Pair,
    Preferences,
    Tree,
    nodes_that_ran,
    path,
    preferences,
)


def node(name: str, parent: str | None = None, q: float = 0.0, **fields: Any) -> dict[str, Any]:
    right = fields.pop("right", None)
    return {
        "id": name,
        "parent": parent,
        "text": f"step {name}",
        "ran": True,
        "q": q,
        "visits": 4,
        "terminal": right is not None,
        "correct": right,
    } | fields


def tree(*nodes: dict[str, Any]) -> Tree:
    return Tree.model_validate({"problem_id": "p", "problem": "How many?", "round": 1, "nodes": list(nodes)})


def found(*nodes: dict[str, Any], margin: float = 0.5, edit_distance: int = 1) -> Preferences:
    return preferences(tree(*nodes), margin=margin, edit_distance=edit_distance)


def test_the_two_best_right_children_stand_against_the_two_worst_wrong_ones() -> None:
    pairs = found(
        *(node(f"r{q}", q=q / 10, right=True) for q in (9, 7, 5)),
        *(node(f"w{q}", q=-q / 10, right=False) for q in (9, 7, 5)),
    ).siblings
    assert {(pair.better, pair.worse) for pair in pairs} == {
        ("r9", "w9"),
        ("r9", "w7"),
        ("r7", "w9"),
        ("r7", "w7"),
    }
    assert [pair.weight for pair in pairs] == [1 / 4] * 4


def test_a_pair_weighs_one_over_the_positives_times_the_negatives_that_are_left() -> None:
    pairs = found(
        node("a", q=0.9, right=True),
        node("b", q=-0.2, right=True),
        node("c", q=-0.5, right=False),
    ).siblings
    # b and c are too near to each other.
    assert pairs == (Pair("a", "c", 1.0),)


def test_a_child_that_also_leads_to_a_right_end_is_no_negative() -> None:
    common = [
        node("good", q=1.0),
        node("good end", "good", q=1.0, right=True),
        node("mixed", q=-0.5),
        node("mixed wrong", "mixed", q=-1.0, right=False),
    ]
    assert ("good", "mixed") in {(pair.better, pair.worse) for pair in found(*common).siblings}
    more = found(*common, node("mixed right", "mixed", q=1.0, right=True))
    assert "mixed" not in {pair.worse for pair in more.siblings}


def test_a_child_that_led_to_no_end_is_in_no_pair() -> None:
    nodes = (node("a", q=1.0, right=True), node("open", q=-1.0))
    assert found(*nodes).pairs == ()


def test_steps_are_compared_only_with_their_siblings() -> None:
    pairs = found(
        node("a", q=0.5),
        node("a end", "a", q=1.0, right=True),
        node("b", q=0.4),
        node("b end", "b", q=-1.0, right=False),
    )
    assert (
        pairs.siblings == ()
    )  # a and b are within the margin of each other, their ends have different parents
    assert pairs.trajectories == (Pair("a end", "b end", 1.0),)


@pytest.mark.parametrize(("margin", "kept"), [(0.5, True), (0.6, True), (0.61, False)])
def test_the_margin_is_the_least_difference_that_is_kept(margin: float, kept: bool) -> None:
    nodes = (node("a", q=0.5, right=True), node("b", q=-0.1, right=False))
    assert bool(found(*nodes, margin=margin).siblings) is kept


@pytest.mark.parametrize(("edit_distance", "kept"), [(0, True), (3, True), (4, False)])
def test_the_edit_distance_is_the_least_that_is_kept(edit_distance: int, kept: bool) -> None:
    nodes = (
        node("a", q=1.0, right=True, text="x = 1 + 2"),
        node("b", q=-1.0, right=False, text="x = 345 + 2"),
    )
    assert bool(found(*nodes, edit_distance=edit_distance).pairs) is kept


def test_whole_trajectories_are_chosen_by_their_mean_q_and_compared_by_all_their_text() -> None:
    nodes = [
        entry
        for name, q, right in (
            ("r1", 0.9, True),
            ("r2", 0.5, True),
            ("r3", 0.1, True),
            ("w1", -0.9, False),
            ("w2", -0.5, False),
            ("w3", -0.1, False),
        )
        for entry in (
            node(name, q=q),
            node(f"{name} end", name, q=1.0 if right else -1.0, right=right, text="print(x)"),
        )
    ]
    trajectories = found(*nodes).trajectories
    assert {pair.better for pair in trajectories} == {"r1 end", "r2 end"}
    assert {pair.worse for pair in trajectories} == {"w1 end", "w2 end"}
    assert sum(pair.weight for pair in trajectories) == pytest.approx(1.0)


def test_siblings_that_end_the_solution_are_not_paired_twice() -> None:
    both = found(node("a", q=1.0, right=True), node("b", q=-1.0, right=False))
    assert both.siblings == both.trajectories == both.pairs == (Pair("a", "b", 1.0),)


def test_what_did_not_run_is_left_out_with_all_after_it() -> None:
    broken = found(
        node("child", "broken", q=-1.0, right=False),
        node("broken", q=-1.0, ran=False),
        node("a", q=1.0, right=True),
    )
    assert broken.pairs == ()
    assert set(broken.values) == {"a"}


def test_values_are_mean_results_that_count_for_more_with_more_visits() -> None:
    values = found(
        node("a", q=0.5, visits=1),
        node("b", q=-1.0, visits=9),
        node("new", visits=0),
        node("end", "a", q=0.3, visits=2, right=True),
    ).values
    assert (values["a"].target, values["a"].weight) == (0.75, 0.5)
    assert (values["b"].target, values["b"].weight) == (0.0, 0.9)
    # What an end is worth is known, whatever its Q was seeded with.
    assert (values["end"].target, values["end"].weight) == (1.0, 1.0)
    assert "new" not in values


@pytest.mark.parametrize(
    ("nodes", "message"),
    [
        ([node("a"), node("a")], "same id"),
        ([node("a", "gone")], "not in the tree"),
        ([node("a", "b"), node("b", "a")], "its own ancestor"),
        ([node("a", "a")], "its own ancestor"),
        ([node("a", q=1.5)], "less than or equal to 1"),
    ],
)
def test_what_is_no_tree_is_refused(nodes: list[dict[str, Any]], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        tree(*nodes)


def test_parents_come_before_children_whatever_the_order_of_the_lines() -> None:
    nodes = nodes_that_ran(tree(node("c", "b"), node("b", "a"), node("a")))
    assert list(nodes) == ["a", "b", "c"]
    assert [one.id for one in path(nodes, "c")] == ["a", "b", "c"]


@st.composite
def trees(draw: st.DrawFn) -> Tree:
    nodes: list[dict[str, Any]] = []
    inner: list[str | None] = [None]
    for number in range(draw(st.integers(1, 15))):
        right = draw(st.sampled_from([None, True, False]))
        nodes.append(
            node(
                str(number),
                draw(st.sampled_from(inner)),
                draw(st.floats(-1, 1)),
                right=right,
                ran=draw(st.booleans()) or draw(st.booleans()),
            )
        )
        if right is None:
            inner.append(str(number))
    return tree(*draw(st.permutations(nodes)))


@given(trees())
def test_every_pair_has_a_better_and_a_worse_step_that_ran(one: Tree) -> None:
    both = preferences(one, margin=0.5, edit_distance=0)
    nodes = nodes_that_ran(one)
    assert all(nodes[step].ran for step in nodes)
    for pair in both.pairs:
        assert nodes[pair.better].q - nodes[pair.worse].q >= 0.5
        assert 1 / 4 <= pair.weight <= 1
    assert all(nodes[pair.better].parent == nodes[pair.worse].parent for pair in both.siblings)
    assert len({(pair.better, pair.worse) for pair in both.pairs}) == len(both.pairs)
