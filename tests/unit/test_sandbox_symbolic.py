"""What runs inside the grading jail: it gets trees of known kinds and answers with one word."""

import json

import pytest

from ratchet.notation.nodes import to_json
from ratchet.notation.reading import read
from services.sandbox.inside.symbolic import compare


def answer(one: str, other: str) -> str:
    return compare(json.dumps([to_json(read(one)), to_json(read(other))]))


def test_the_answer_is_true_false_or_null_for_what_is_too_large() -> None:
    assert answer("sqrt(2)/2", "1/sqrt(2)") == "true"
    assert answer("x + 1", "x + 2") == "false"
    assert answer("9^{9^{9^9}}", "1") == "null"


@pytest.mark.parametrize(
    "tree",
    ['"x"', "1", "[]", '["add"]', '["add", "", "x"]', '["call", 1, []]', '{"kind": "add"}', "nonsense", ""],
)
def test_what_is_no_tree_is_refused(tree: str) -> None:
    with pytest.raises(ValueError, match=r"not a tree|Expecting value"):
        compare(json.dumps([tree, '["number", "1", []]']))


@pytest.mark.parametrize(
    "tree",
    [
        ["call", "__import__", [["symbol", "os", []]]],
        ["call", "eval", [["words", "1 + 1", []]]],
        ["constant", "__class__", []],
        ["nonsense", "", []],
    ],
)
def test_only_listed_functions_and_constants_have_a_value(tree: list[object]) -> None:
    assert compare(json.dumps([json.dumps(tree), '["number", "2", []]'])) == "false"
