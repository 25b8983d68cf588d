"""When a reference answer is no longer trusted: independent finds of one grounded behaviour, in two looks at the problem."""

from collections.abc import Sequence
from typing import Any

import pytest

from ratchet.contracts.rounds import Disagreement, Selection
from ratchet.solutions.behaviour import Behaviour
from ratchet.states import NodeState
from ratchet.store.nodes import NodeRecord
from services.trainer.quarantine import MAX_PROGRAMS, disagreement, suspects
from services.trainer.selection import Found, find

Tree = list[NodeRecord]
RULES = Selection()
GROUNDED = Behaviour(("82",), True, "answers a")


def node(name: str, parent: str | None, text: str, **more: Any) -> NodeRecord:
    depth = 0 if parent is None else parent.count(".") + 1
    return NodeRecord(name, parent, 0, depth, NodeState.OPEN, "t", text=text, **more)


def a_tree(answers: Sequence[str], *, prm: float = 0.9, siblings: bool = False, draws: int = 1) -> Tree:
    """A search whose programs gave these answers, each drawn from the root, or all below one first step.

    `draws`: how often the policy began with that step afresh.
    """
    n = len(answers)
    if not siblings:
        tree = [node("n", None, "", visits=n, expansions=n)]
        for place, answer in enumerate(answers):
            sign = 1.0 if answer == "42" else -1.0
            tree.append(
                node(
                    f"n.{place}",
                    "n",
                    f"x = {place}\nprint({answer})",
                    visits=1,
                    value_sum=sign,
                    prm_score=prm,
                    answer=answer,
                )
            )
        return tree
    tree = [node("n", None, "", visits=n, expansions=draws)]
    tree.append(node("n.0", "n", "x = 1", visits=n, expansions=n - draws, prm_score=prm))
    for place, answer in enumerate(answers):
        text = f"y = {place}\nprint({answer})"
        sign = 1.0 if answer == "42" else -1.0
        tree.append(node(f"n.0.{place}", "n.0", text, visits=1, value_sum=sign, prm_score=prm, answer=answer))
    return tree


def twice(first: Tree, second: Tree) -> Found:
    return find([(0, first), (1, second)])


def judged(
    found: Found, behaviour: Behaviour | None = GROUNDED, rules: Selection = RULES
) -> Disagreement | None:
    """What is made of the searches where all programs that are suspected behave like this."""
    return disagreement(found, rules, {each.fingerprint: behaviour for each in suspects(found, rules)})


THREE = ["41", "41.0", "82/2"]


def test_independent_programs_of_one_grounded_behaviour_in_both_looks_set_a_problem_aside() -> None:
    found = twice(a_tree(["13", *THREE]), a_tree(THREE))
    assert judged(found) == Disagreement(answer="41", programs=6, prm_score=0.9)


@pytest.mark.parametrize(
    "found",
    [
        pytest.param(find([(0, a_tree(THREE * 2))]), id="it was searched once"),
        pytest.param(find([(0, []), (1, a_tree(THREE * 2))]), id="of two searches one has found nothing"),
        pytest.param(twice(a_tree(THREE * 2), a_tree(["13"] * 3)), id="the second look does not agree"),
        pytest.param(twice(a_tree(THREE), a_tree(THREE[:2])), id="the last search alone has too few"),
        pytest.param(twice(a_tree(THREE), []), id="the last search has found nothing"),
        pytest.param(twice(a_tree(THREE), a_tree([*THREE, "42"])), id="one program is right"),
        pytest.param(twice(a_tree(THREE, prm=0.7), a_tree(THREE, prm=0.7)), id="a PRM that doubts"),
        pytest.param(twice(a_tree(THREE), a_tree(THREE, prm=0.5)), id="the PRM doubts the second look"),
        pytest.param(find([]), id="it was not searched"),
    ],
)
def test_without_that_the_reference_stands_and_no_program_is_run(found: Found) -> None:
    assert suspects(found, RULES) == []
    assert judged(found) is None


@pytest.mark.parametrize(("draws", "aside"), [(1, False), (2, False), (3, True)])
def test_branches_of_one_beginning_are_as_many_finds_as_it_was_drawn(draws: int, aside: bool) -> None:
    """Three siblings with one misconception under a prefix that was drawn once are one find."""
    tree = a_tree(THREE, siblings=True, draws=draws)
    assert (judged(twice(tree, tree)) is not None) is aside


@pytest.mark.parametrize(
    "behaviour",
    [
        pytest.param(None, id="they do not give it again"),
        pytest.param(Behaviour(("41",), False, "answers b"), id="they were written down"),
        pytest.param(Behaviour((), None, "form c"), id="nobody can tell"),
    ],
)
def test_programs_that_do_not_compute_the_answer_are_no_evidence(behaviour: Behaviour | None) -> None:
    found = twice(a_tree(THREE), a_tree(THREE))
    assert len(suspects(found, RULES)) == 3
    assert judged(found, behaviour) is None


def test_programs_that_behave_otherwise_do_not_agree() -> None:
    found = twice(a_tree(THREE), a_tree(THREE))
    behaviours = {
        each.fingerprint: Behaviour((str(n),), True, f"answers {n}")
        for n, each in enumerate(suspects(found, RULES))
    }
    assert disagreement(found, RULES, behaviours) is None
    # Two of three in each look.
    pair = {name: GROUNDED if n < 2 else known for n, (name, known) in enumerate(behaviours.items())}
    assert disagreement(found, RULES, pair) is None
    assert disagreement(found, Selection(quarantine_programs=2), pair) is not None


def test_so_many_programs_are_run_and_no_more() -> None:
    found = twice(a_tree(["41"] * 30), a_tree(["41"] * 20))
    assert MAX_PROGRAMS <= len(suspects(found, RULES)) <= 2 * MAX_PROGRAMS
