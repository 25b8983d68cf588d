"""From trees to training data: what is taken, in which order, what is left out and counted."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any
from uuid import UUID

import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from ratchet.contracts.rounds import SelectBy, Selection
from ratchet.solutions.behaviour import Behaviour
from ratchet.states import NodeState
from ratchet.store.nodes import NodeRecord
from ratchet.store.rounds import RoundProblem
from services.trainer.selection import (
    Card,
    Choice,
    Dropped,
    Trajectory,
    find,
    tree_line,
    verdict,
    weighted,
)

PROBLEM = RoundProblem(0, "What is 6 * 7?", "42", "packs", 1, "nano:train:0")
ANSWERS = ("42", "41", "13")
# Several draws show what one does not, and a failure is read as it was drawn.
FAST = settings(max_examples=60, deadline=None, phases=(Phase.explicit, Phase.reuse, Phase.generate))

Tree = list[NodeRecord]


def root() -> NodeRecord:
    return NodeRecord("n0", None, 0, 0, NodeState.OPEN, "root", visits=4)


def a_path(
    number: int, answer: str | None, *, q: float = 1.0, prm: float | None = 0.5, code: Sequence[str] = ()
) -> Tree:
    """A trajectory below the root, one visit a node; its end was correct if it says 42, and Q is the same all along.

    Without `code` its program is one of its own.
    """
    texts = code or [f"# First.\nx = {number} + 0", f"# Then.\nprint(x, {number})"]
    last = len(texts) - 1
    sign = 1.0 if answer == "42" else -1.0
    return [
        NodeRecord(
            id=f"n{number}.{depth}",
            parent="n0" if depth == 0 else f"n{number}.{depth - 1}",
            ordinal=10 * number + depth,
            depth=depth + 1,
            state=NodeState.TERMINAL if depth == last and answer is not None else NodeState.OPEN,
            task=f"t{number}",
            text=text,
            prm_score=prm,
            visits=1,
            # Of the end: what it is worth; before it: as much as makes the mean `q`.
            value_sum=sign if depth == last else (q * len(texts) - sign) / max(1, last),
            answer=answer if depth == last else None,
        )
        for depth, text in enumerate(texts)
    ]


def a_tree(*paths: Tree) -> Tree:
    return [root(), *(node for path in paths for node in path)]


def stands(_: Trajectory) -> Dropped | None:
    return None


def chosen(
    *trees: Tree,
    trained_prm: bool = False,
    seed: int = 0,
    card: Card | None = None,
    told: Callable[[Trajectory], Dropped | None] = stands,
    **rules: Any,
) -> Choice:
    """What is taken of these trees when the programs that are asked for are told as `told` says."""
    found = find((0, tree) for tree in trees)
    choice = Choice(found, Selection(**rules), trained_prm=trained_prm, seed=seed)
    while asked := choice.ask():
        for each in asked:
            choice.tell(each, told(each))
    if card is not None:
        card.count(PROBLEM, found, choice)
    return choice


def numbers(found: Choice) -> list[int]:
    """Which paths were taken, by the number that each program begins with."""
    return [int(each.steps[0].split("= ")[1].split(" ")[0]) for each in found.taken]


def test_a_trajectory_is_the_path_from_the_first_step_to_an_answer() -> None:
    tree = a_tree(a_path(1, "42", q=0.25, prm=0.75), a_path(2, None), a_path(3, "13", q=-1, prm=None))
    right, wrong = find([(3, tree)]).trajectories
    assert right.steps == ("# First.\nx = 1 + 0", "# Then.\nprint(x, 1)")
    assert (right.answer, right.correct, right.mean_q, right.mean_prm) == ("42", True, 0.25, 0.75)
    assert (wrong.answer, wrong.correct, wrong.mean_q, wrong.mean_prm) == ("13", False, -1.0, 0.5)
    assert (right.attempt, right.votes, wrong.first) == (3, 1, "0/n3.0")


def test_an_end_that_was_never_visited_is_no_trajectory() -> None:
    path = a_path(1, "42")
    assert find([(0, a_tree([*path[:-1], replace(path[-1], visits=0)]))]).trajectories == []


def test_the_correct_ones_with_the_highest_mean_q_are_taken_from_all_trees() -> None:
    one = a_tree(a_path(1, "42", q=0.1), a_path(2, "42", q=0.9), a_path(3, "13", q=-1))
    other = a_tree(a_path(4, "42", q=0.5), a_path(5, "42", q=-0.5))
    assert numbers(chosen(one, other)) == [2, 4]
    assert numbers(chosen(one, other, per_problem=3)) == [2, 4, 1]


def test_the_prm_counts_once_it_was_trained_and_then_half() -> None:
    tree = a_tree(
        a_path(1, "42", q=0.6, prm=0.1),
        a_path(2, "42", q=0.4, prm=0.9),
        # 0.9 + 0.5 * (2 * 0 - 1) is as much as 0.4.
        a_path(3, "42", q=0.9, prm=0.0),
    )
    assert numbers(chosen(tree, per_problem=3)) == [3, 1, 2]
    assert numbers(chosen(tree, per_problem=3, trained_prm=True)) == [2, 3, 1]


def test_a_program_that_differs_only_in_names_and_comments_is_a_duplicate_of_the_better_one() -> None:
    card = Card()
    tree = a_tree(
        a_path(1, "42", q=0.2, code=["# All.\na = 6 * 7", "# Say it.\nprint(a)"]),
        a_path(2, "42", q=0.8, code=["# Every cup.\ncups = 6 * 7", "print(cups)"]),
        a_path(3, "42", q=0.1, code=["# Other.\na = 6 + 36", "# Say it.\nprint(a)"]),
    )
    found = chosen(tree, card=card)
    assert [each.steps[0] for each in found.taken] == [
        "# Every cup.\ncups = 6 * 7",
        "# Other.\na = 6 + 36",
    ]
    assert card.dropped == {Dropped.DUPLICATE: 1}


@pytest.mark.parametrize(
    "code", [["print(7 * 6)"], ["a = 6", "b = 7", "print(a * b)"], ["unused = 3", "print(6 * 7)"]]
)
def test_a_program_that_computes_the_same_in_the_same_way_is_a_duplicate(code: list[str]) -> None:
    tree = a_tree(a_path(1, "42", q=0.9, code=["x = 6 * 7", "print(x)"]), a_path(2, "42", code=code))
    assert chosen(tree).dropped == {Dropped.DUPLICATE: 1}


@pytest.mark.parametrize(
    ("rules", "why"),
    [
        ({"max_chars": 30}, Dropped.TOO_LONG),
        ({"max_steps": 1}, Dropped.TOO_LONG),
        ({"min_mean_q": 0.5}, Dropped.LOW_Q),
    ],
)
def test_what_a_limit_excludes_makes_room_for_the_next_one(rules: dict[str, Any], why: Dropped) -> None:
    card = Card()
    long, short = ["x = 6 * 7 * 1 * 1 * 1", "print(x, 1, 1, 1)"], ["print(6 * 7)"]
    q = 0.4 if why is Dropped.LOW_Q else 0.9
    tree = a_tree(a_path(1, "42", q=q, code=long), a_path(2, "42", code=short))
    found = chosen(tree, card=card, per_problem=1, **rules)
    assert [list(each.steps) for each in found.taken] == [short]
    assert card.dropped[why] == 1
    alone = chosen(a_tree(a_path(1, "42", q=q, code=long)), **rules)
    assert alone.taken == []


def test_a_duplicate_of_one_that_was_too_long_is_judged_by_itself() -> None:
    wordy = ["# " + "Very many words. " * 9 + "\nprint(6 * 7)"]
    tree = a_tree(a_path(1, "42", code=wordy), a_path(2, "42", code=["print(6 * 7)"]))
    assert [each.steps for each in chosen(tree, max_chars=40).taken] == [("print(6 * 7)",)]


def test_random_selection_takes_correct_ones_whatever_their_q_and_follows_its_seed() -> None:
    tree = a_tree(*(a_path(n, "42", q=n / 10) for n in range(9)), a_path(9, "13"))
    picks = [numbers(chosen(tree, how=SelectBy.RANDOM, seed=seed)) for seed in range(40)]
    assert picks == [numbers(chosen(tree, how=SelectBy.RANDOM, seed=seed)) for seed in range(40)]
    assert {number for pick in picks for number in pick} == set(range(9))


def test_unverified_selection_takes_wrong_answers_too() -> None:
    tree = a_tree(a_path(1, "42"), a_path(2, "13", q=-1), a_path(3, "41", q=-1))
    picks = [chosen(tree, how=SelectBy.UNVERIFIED, seed=seed) for seed in range(30)]
    assert {number for pick in picks for number in numbers(pick)} == {1, 2, 3}
    assert all(len(pick.taken) == 2 for pick in picks)
    card = Card()
    wrong_only = chosen(a_tree(a_path(2, "13", q=-1)), how=SelectBy.UNVERIFIED, card=card)
    assert (card.solved, numbers(wrong_only)) == (0, [2])


# --- what was run again ----------------------------------------------------------------------------------------------


def is_even(each: Trajectory) -> Dropped | None:
    return None if int(each.steps[0].split("= ")[1].split(" ")[0]) % 2 == 0 else Dropped.NOT_REPEATED


def test_one_that_does_not_stand_makes_room_for_the_next_best() -> None:
    tree = a_tree(*(a_path(n, "42", q=1 - n / 10) for n in range(1, 8)))
    found = chosen(tree, told=is_even)
    assert numbers(found) == [2, 4]
    assert found.dropped == {Dropped.NOT_REPEATED: 2, Dropped.SURPLUS: 3}


def test_only_those_that_would_be_taken_are_asked_for() -> None:
    found = find([(0, a_tree(*(a_path(n, "42", q=1 - n / 10) for n in range(1, 8))))])
    choice = Choice(found, Selection(per_problem=3), trained_prm=False, seed=0)
    first = choice.ask()
    assert [each.mean_q for each in first] == pytest.approx([0.9, 0.8, 0.7])
    choice.tell(first[0], None)
    choice.tell(first[1], Dropped.UNGROUNDED)
    choice.tell(first[2], None)
    [missing] = choice.ask()
    assert missing.mean_q == pytest.approx(0.6)
    choice.tell(missing, None)
    assert choice.ask() == []
    assert [each.mean_q for each in choice.taken] == pytest.approx([0.9, 0.7, 0.6])


def test_the_like_of_a_program_that_was_written_down_is_not_tried_and_of_one_that_failed_it_is() -> None:
    alike = [a_path(1, "42", q=0.9, code=["print(42)"]), a_path(2, "42", q=0.8, code=["x = 42", "print(x)"])]
    asked: list[Trajectory] = []

    def told(why: Dropped) -> Callable[[Trajectory], Dropped]:
        return lambda each: asked.append(each) or why  # type: ignore[func-returns-value]

    assert chosen(a_tree(*alike), told=told(Dropped.UNGROUNDED)).dropped == {Dropped.UNGROUNDED: 2}
    assert len(asked) == 1
    asked.clear()
    assert chosen(a_tree(*alike), told=told(Dropped.NOT_REPEATED)).dropped == {Dropped.NOT_REPEATED: 2}
    assert len(asked) == 2


@pytest.mark.parametrize(
    ("behaviour", "why"),
    [
        (None, Dropped.NOT_REPEATED),
        (Behaviour(("42",), False, "a"), Dropped.UNGROUNDED),
        (Behaviour(("84",), True, "a"), None),
        (Behaviour((), None, "f"), None),
    ],
)
def test_a_program_stands_unless_it_was_written_down_or_fails(
    behaviour: Behaviour | None, why: Dropped | None
) -> None:
    assert verdict(behaviour) is why


def test_all_problems_weigh_alike() -> None:
    lines = [{"id": name} for name in ("a", "b", "a", "a", "c", "c")]
    assert [line["weight"] for line in weighted(lines)] == [0.333333, 1.0, 0.333333, 0.333333, 0.5, 0.5]
    assert weighted(weighted(lines)) == weighted(lines)


# --- what holds of every tree ----------------------------------------------------------------------------------------

PATHS = st.lists(
    st.tuples(
        st.sampled_from([*ANSWERS, None]), st.floats(-1, 1), st.floats(0, 1), st.integers(0, 5)
    ),
    max_size=14,
)  # fmt: skip


def drawn(paths: list[tuple[str | None, float, float, int]]) -> Tree:
    """Paths some of which have the same program."""
    return a_tree(
        *(
            a_path(number, answer, q=q, prm=prm, code=[f"x = {program}", f"# {number}\nprint(x)"])
            for number, (answer, q, prm, program) in enumerate(paths)
        )
    )


@FAST
@given(
    PATHS,
    PATHS,
    st.sampled_from(SelectBy),
    st.integers(1, 4),
    st.booleans(),
    st.floats(-1, 1),
    st.booleans(),
    st.integers(0, 2),
)
def test_each_trajectory_is_selected_or_counted_with_the_reason_why_not(
    one: list[Any],
    other: list[Any],
    how: SelectBy,
    per_problem: int,
    capped: bool,
    least: float,
    trained: bool,
    luck: int,
) -> None:
    card, rules = Card(), {"how": how, "per_problem": per_problem, "min_mean_q": least}
    if capped:
        rules["max_chars"] = 20
    trees = [drawn(one), drawn(other)]
    of_run = [None, Dropped.NOT_REPEATED, Dropped.UNGROUNDED]
    told = {
        each: of_run[(luck + place) % 3]
        for tree in trees
        for place, each in enumerate(find([(0, tree)]).trajectories)
    }
    found = [
        chosen(tree, card=card, trained_prm=trained, seed=3, told=told.__getitem__, **rules) for tree in trees
    ]
    kept = sum(len(each.taken) for each in found)
    assert card.trajectories_found == len(find((0, tree) for tree in trees).trajectories)
    assert card.trajectories_selected == kept
    assert card.trajectories_found == kept + sum(card.dropped.values())
    assert card.problems == 2
    assert card.selected_problems == sum(bool(each.taken) for each in found)
    assert card.coverage["family"] == {"packs": [card.solved, 2]}
    assert card.coverage["difficulty"] == {"1": [card.solved, 2]}
    for each in found:
        assert len(each.taken) <= per_problem
        assert len({trajectory.fingerprint for trajectory in each.taken}) == len(each.taken)
        for trajectory in each.taken:
            assert told[trajectory] is None
            assert trajectory.correct or how is SelectBy.UNVERIFIED
            assert trajectory.mean_q >= least
            assert not capped or sum(map(len, trajectory.steps)) <= 20
    written = card.close(
        from_earlier_rounds=0,
        trees=2,
        kept_apart=0,
        validation_rows=0,
        dataset=UUID(int=0),
        sha256="0",
        rows=kept,
    )
    assert written.trajectories_found == kept + sum(written.dropped.values())


@FAST
@given(PATHS, st.randoms(use_true_random=False))
def test_by_score_the_order_in_which_trees_were_grown_does_not_matter(paths: list[Any], rng: Any) -> None:
    trees = [drawn([path]) for path in paths]
    shuffled = list(trees)
    rng.shuffle(shuffled)
    one, other = (chosen(*each, per_problem=3, trained_prm=True) for each in (trees, shuffled))

    def scores(found: Choice) -> list[float]:
        return [each.mean_q + each.mean_prm for each in found.taken]

    assert scores(one) == pytest.approx(scores(other))


@FAST
@given(PATHS)
def test_the_best_of_each_program_is_the_one_that_is_taken(paths: list[Any]) -> None:
    tree = drawn(paths)
    best: dict[str, float] = {}
    for each in find([(0, tree)]).trajectories:
        if each.correct:
            best[each.fingerprint] = max(best.get(each.fingerprint, -9.0), each.mean_q)
    taken = [each.mean_q for each in chosen(tree, per_problem=64).taken]
    assert taken == sorted(best.values(), reverse=True)


# --- trees for the PRM -----------------------------------------------------------------------------------------------


def test_a_tree_for_the_prm_has_its_steps_without_the_root_and_says_what_each_was_worth() -> None:
    failed = replace(a_path(3, None)[0], state=NodeState.FAILED, visits=0, value_sum=0.0)
    left = replace(a_path(4, "42")[-1], parent="n0", state=NodeState.ABANDONED, visits=0, value_sum=0.0)
    line = tree_line(
        "id", PROBLEM, 2, a_tree(a_path(1, "42", q=0.5), a_path(2, "13", q=-1), [failed], [left])
    )
    assert line is not None
    assert (line["problem_id"], line["problem"], line["round"]) == ("id", PROBLEM.text, 2)
    nodes = {node["id"]: node for node in line["nodes"]}
    assert [node["parent"] for node in line["nodes"]] == [None, "n1.0", None, "n2.0", None, None]
    assert (nodes["n1.1"]["terminal"], nodes["n1.1"]["correct"], nodes["n1.1"]["q"]) == (True, True, 1.0)
    assert (nodes["n2.1"]["correct"], nodes["n2.1"]["q"]) == (False, -1.0)
    assert (nodes["n1.0"]["terminal"], nodes["n1.0"]["correct"]) == (False, None)
    assert (nodes["n3.0"]["ran"], nodes["n3.0"]["q"], nodes["n3.0"]["visits"]) == (False, 0.0, 0)
    abandoned = nodes[left.id]
    assert (abandoned["ran"], abandoned["visits"], abandoned["correct"]) == (True, 0, None)


def test_a_tree_without_an_answer_teaches_the_prm_nothing() -> None:
    assert tree_line("id", PROBLEM, 1, a_tree(a_path(1, None))) is None
    assert tree_line("id", PROBLEM, 1, [root()]) is None
