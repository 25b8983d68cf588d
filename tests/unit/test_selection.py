"""From trees to training data: what is taken, in which order, what is left out and counted, what is set aside."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any
from uuid import UUID

import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from ratchet.contracts.rounds import Disagreement, SelectBy, Selection
from ratchet.states import NodeState
from ratchet.store.nodes import NodeRecord
from ratchet.store.rounds import RoundProblem
from services.trainer.selection import Card, Chosen, Dropped, choose, quarantine, trajectories, tree_line

PROBLEM = RoundProblem(0, "What is 6 * 7?", "42", "packs", 1, "nano:train:0", False)
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


def chosen(
    *trees: Tree, trained_prm: bool = False, seed: int = 0, card: Card | None = None, **rules: Any
) -> Chosen:
    return choose(
        PROBLEM,
        trees,
        Selection(**rules),
        Card() if card is None else card,
        trained_prm=trained_prm,
        seed=seed,
    )


def numbers(found: Chosen) -> list[int]:
    """Which paths were taken, by the number that each program begins with."""
    return [int(each.steps[0].split("= ")[1].split(" ")[0]) for each in found.trajectories]


def test_a_trajectory_is_the_path_from_the_first_step_to_an_answer() -> None:
    tree = a_tree(a_path(1, "42", q=0.25, prm=0.75), a_path(2, None), a_path(3, "13", q=-1, prm=None))
    right, wrong = trajectories([tree])
    assert right.steps == ("# First.\nx = 1 + 0", "# Then.\nprint(x, 1)")
    assert (right.answer, right.correct, right.mean_q, right.mean_prm) == ("42", True, 0.25, 0.75)
    assert (wrong.answer, wrong.correct, wrong.mean_q, wrong.mean_prm) == ("13", False, -1.0, 0.5)


def test_an_end_that_was_never_visited_is_no_trajectory() -> None:
    path = a_path(1, "42")
    assert trajectories([a_tree([*path[:-1], replace(path[-1], visits=0)])]) == []


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
        a_path(3, "42", q=0.1, code=["# Other.\na = 7 * 6", "# Say it.\nprint(a)"]),
    )
    found = chosen(tree, card=card)
    assert [each.steps[0] for each in found.trajectories] == [
        "# Every cup.\ncups = 6 * 7",
        "# Other.\na = 7 * 6",
    ]
    assert card.dropped == {Dropped.DUPLICATE: 1, Dropped.WRONG: 0}


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
    assert [list(each.steps) for each in found.trajectories] == [short]
    assert card.dropped[why] == 1
    alone = chosen(a_tree(a_path(1, "42", q=q, code=long)), **rules)
    assert alone.solved
    assert alone.trajectories == []


def test_a_duplicate_of_one_that_was_too_long_is_judged_by_itself() -> None:
    wordy = ["# " + "Very many words. " * 9 + "\nprint(6 * 7)"]
    tree = a_tree(a_path(1, "42", code=wordy), a_path(2, "42", code=["print(6 * 7)"]))
    assert [each.steps for each in chosen(tree, max_chars=40).trajectories] == [("print(6 * 7)",)]


def test_random_selection_takes_correct_ones_whatever_their_q_and_follows_its_seed() -> None:
    tree = a_tree(*(a_path(n, "42", q=n / 10) for n in range(9)), a_path(9, "13"))
    picks = [numbers(chosen(tree, how=SelectBy.RANDOM, seed=seed)) for seed in range(40)]
    assert picks == [numbers(chosen(tree, how=SelectBy.RANDOM, seed=seed)) for seed in range(40)]
    assert {number for pick in picks for number in pick} == set(range(9))


def test_unverified_selection_takes_wrong_answers_too() -> None:
    tree = a_tree(a_path(1, "42"), a_path(2, "13", q=-1), a_path(3, "41", q=-1))
    picks = [chosen(tree, how=SelectBy.UNVERIFIED, seed=seed) for seed in range(30)]
    assert {number for pick in picks for number in numbers(pick)} == {1, 2, 3}
    assert all(pick.solved and len(pick.trajectories) == 2 for pick in picks)
    wrong_only = chosen(a_tree(a_path(2, "13", q=-1)), how=SelectBy.UNVERIFIED)
    assert (wrong_only.solved, numbers(wrong_only)) == (False, [2])


# --- quarantine ------------------------------------------------------------------------------------------------------


def test_a_reference_that_loses_against_three_programs_is_set_aside() -> None:
    card = Card()
    tree = a_tree(*(a_path(n, "41", q=-1, prm=0.9) for n in (1, 2, 3)), a_path(4, "13", q=-1, prm=0.9))
    found = chosen(tree, trained_prm=True, card=card)
    assert found.quarantine == Disagreement(answer="41", programs=3, prm_score=0.9)
    assert (found.trajectories, found.solved) == ([], False)
    assert (card.quarantined, card.dropped) == (1, {Dropped.QUARANTINED: 4})


def test_equal_answers_that_are_written_otherwise_agree() -> None:
    tree = a_tree(*(a_path(n, answer, prm=0.9) for n, answer in enumerate(("41", "41.0", "82/2"))))
    found = quarantine(trajectories([tree]), Selection())
    assert found is not None
    assert found.programs == 3


@pytest.mark.parametrize(
    "paths",
    [
        pytest.param([a_path(n, "41", prm=0.9) for n in (1, 2)], id="only two programs"),
        pytest.param([a_path(n, "41", prm=0.9, code=["print(41)"]) for n in (1, 2, 3)], id="the same program"),
        pytest.param([a_path(n, "41", prm=0.7) for n in (1, 2, 3)], id="a PRM that doubts"),
        pytest.param([a_path(n, ANSWERS[n], prm=0.9) for n in (1, 2)] * 2, id="they do not agree"),
        pytest.param([a_path(n, "41", prm=0.9) for n in (1, 2, 3)] + [a_path(4, "42", prm=0.1)], id="one is right"),
        pytest.param([], id="nothing was found"),
    ],
)  # fmt: skip
def test_without_that_the_reference_stands(paths: list[Tree]) -> None:
    assert quarantine(trajectories([a_tree(*paths)]), Selection()) is None


def test_as_long_as_no_prm_was_trained_nothing_is_set_aside() -> None:
    tree = a_tree(*(a_path(n, "41", prm=0.99) for n in range(5)))
    assert chosen(tree, trained_prm=False).quarantine is None


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
    PATHS, PATHS, st.sampled_from(SelectBy), st.integers(1, 4), st.booleans(), st.floats(-1, 1), st.booleans()
)
def test_each_trajectory_is_selected_or_counted_with_the_reason_why_not(
    one: list[Any],
    other: list[Any],
    how: SelectBy,
    per_problem: int,
    capped: bool,
    least: float,
    trained: bool,
) -> None:
    card, rules = Card(), {"how": how, "per_problem": per_problem, "min_mean_q": least}
    if capped:
        rules["max_chars"] = 20
    trees = [drawn(one), drawn(other)]
    found = [chosen(tree, card=card, trained_prm=trained, seed=3, **rules) for tree in trees]
    kept = sum(len(each.trajectories) for each in found)
    assert card.trajectories_found == len(trajectories(trees))
    assert card.trajectories_selected == kept
    assert card.trajectories_found == kept + sum(card.dropped.values())
    assert card.problems == 2
    assert card.selected_problems == sum(bool(each.trajectories) for each in found)
    assert card.quarantined == sum(each.quarantine is not None for each in found)
    assert card.coverage["family"] == {"packs": [card.solved, 2]}
    assert card.coverage["difficulty"] == {"1": [card.solved, 2]}
    for each in found:
        assert len(each.trajectories) <= per_problem
        assert len({trajectory.fingerprint for trajectory in each.trajectories}) == len(each.trajectories)
        for trajectory in each.trajectories:
            assert trajectory.correct or how is SelectBy.UNVERIFIED
            assert trajectory.mean_q >= least
            assert not capped or sum(map(len, trajectory.steps)) <= 20
    written = card.close(from_earlier_rounds=0, trees=2, dataset=UUID(int=0), sha256="0", rows=kept)
    assert written.trajectories_found == kept + sum(written.dropped.values())


@FAST
@given(PATHS, st.randoms(use_true_random=False))
def test_by_score_the_order_in_which_trees_were_grown_does_not_matter(paths: list[Any], rng: Any) -> None:
    trees = [drawn([path]) for path in paths]
    shuffled = list(trees)
    rng.shuffle(shuffled)
    one, other = (chosen(*each, per_problem=3, trained_prm=True) for each in (trees, shuffled))

    def scores(found: Chosen) -> list[float]:
        return [each.mean_q + each.mean_prm for each in found.trajectories]

    assert scores(one) == pytest.approx(scores(other))
    assert one.solved == other.solved


@FAST
@given(PATHS)
def test_the_best_of_each_program_is_the_one_that_is_taken(paths: list[Any]) -> None:
    tree = drawn(paths)
    best: dict[str, float] = {}
    for each in trajectories([tree]):
        if each.correct:
            best[each.fingerprint] = max(best.get(each.fingerprint, -9.0), each.mean_q)
    taken = [each.mean_q for each in chosen(tree, per_problem=64).trajectories]
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
