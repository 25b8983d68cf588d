"""Fingerprints: equal for copies under other names, different for anything more."""

import pytest

from ratchet.solutions.programs import fingerprint

BASE = """
# Sheep bought in four weeks.
bought = 5 * 4
total = 17 + bought
print(total)
"""


@pytest.mark.parametrize(
    "copy",
    [
        "x = 5 * 4\ny = 17 + x\nprint(y)",
        "bought = (5*4)  # other layout\n\n\ntotal = 17 + bought\nprint( total )",
        "'''A docstring.'''\na = 5 * 4\n'a note'\nb = 17 + a\nprint(b)",
        # A builtin's name that the program gives a meaning of its own is a name like any other.
        "sum = 5 * 4\nmax = 17 + sum\nprint(max)",
    ],
)
def test_copies_under_other_names_collide(copy: str) -> None:
    assert fingerprint(copy) == fingerprint(BASE)


@pytest.mark.parametrize(
    "other",
    [
        "bought = 5 * 5\ntotal = 17 + bought\nprint(total)",
        "bought = 4 * 5\ntotal = 17 + bought\nprint(total)",
        "total = 17 + 5 * 4\nprint(total)",
        "bought = 5 * 4\ntotal = 17 + bought\nprint(bought)",
        "bought = 5 * 4\ntotal = 17 + bought\nrepr(total)",
        "bought = 5 * 4\nbought = 17 + bought\nprint(bought)",
    ],
)
def test_other_constants_or_structure_differ(other: str) -> None:
    assert fingerprint(other) != fingerprint(BASE)


@pytest.mark.parametrize(
    ("one", "two"),
    [
        ("import math\nprint(math.sqrt(2))", "import math as m\nprint(m.sqrt(2))"),
        ("from math import sqrt\nprint(sqrt(2))", "from math import sqrt as root\nprint(root(2))"),
        ("def f(a, b=1):\n  return a+b\nprint(f(2, b=3))", "def g(x, y=1):\n  return x+y\nprint(g(2, y=3))"),
        ("print(sum(i*i for i in range(3)))", "print(sum(k*k for k in range(3)))"),
        (
            "try:\n  1/0\nexcept Exception as e:\n  print(e)",
            "try:\n  1/0\nexcept Exception as why:\n  print(why)",
        ),
        ("match [1]:\n  case [a, *b]:\n    print(a, b)", "match [1]:\n  case [p, *q]:\n    print(p, q)"),
        ("n = 0\ndef f():\n  global n\n  n += 1", "m = 0\ndef g():\n  global m\n  m += 1"),
    ],
)
def test_every_kind_of_binding_is_renamed(one: str, two: str) -> None:
    assert fingerprint(one) == fingerprint(two)


def test_imports_of_other_modules_differ() -> None:
    assert fingerprint("import math as m\nprint(m.pi)") != fingerprint("import cmath as m\nprint(m.pi)")


def test_what_is_no_python_falls_back_to_its_text() -> None:
    assert fingerprint("x = = 1") == fingerprint("x = = 1")
    assert fingerprint("x = = 1") != fingerprint("y = = 1")


@pytest.mark.parametrize(
    "hostile", ["\x00", "(" * 5000 + ")" * 5000, "-" * 100_000 + "1", "x = " + "9" * 5000, "\ud800"]
)
def test_hostile_text_still_gets_a_fingerprint(hostile: str) -> None:
    assert len(fingerprint(hostile)) == 64
