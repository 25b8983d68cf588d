"""Canonical forms: what only looks different is one program, and what computes otherwise is not."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ratchet.solutions.canonical import canonical_form, count_forms

LONG = "0x" + "f" * 5000
LOOP = "s = 0\nfor i in range(10):\n    s += i * 2\nprint(s)"


@pytest.mark.parametrize(
    "alike",
    [
        [
            "print(42)",
            "x = 42; print(x)",
            "print(40 + 2)",
            "x = 40\nx += 2\nprint(x)",
            "print(84 / 2)",
            "print(int(42.0))",
            "import math\nnever = 7\nprint(42)  # so",
        ],
        [
            "import math\na = math.pi\nb = math.e\nprint(a * b)",
            "from math import pi  # not used\nimport math as m\nprint(m.e * m.pi)",
        ],
        ["import math\nprint(math.pi - 3)", "from math import pi\nimport math\nprint(-3 + math.pi)"],
        [LOOP, "k = 3\nt = 0\nfor j in range(5 + 5):\n    t += 2 * j\nprint(t)"],
        ["print((x := 3) + 2 + 5)", "print(7 + (y := 3))"],
        [LOOP, "import math\na = math.pi\nb = a\n" + LOOP],
    ],
)
def test_programs_that_compute_alike_are_one(alike: list[str]) -> None:
    assert len({canonical_form(program) for program in alike}) == 1


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("print(42)", "print(sum([40, 2]))"),
        (LOOP, LOOP.replace("10", "11")),
        ("print(max(3, 5))", "print(max(5, 3))"),
        ("import math\nprint(math.pi - math.e)", "import math\nprint(math.e - math.pi)"),
        ("print(True)", "print(1)"),
    ],
)
def test_programs_that_compute_otherwise_are_two(one: str, other: str) -> None:
    assert canonical_form(one) != canonical_form(other)


@pytest.mark.parametrize(
    "hostile",
    [
        "print(9**9**9**9)",
        "print(10**400 * 10**400)",
        "print(1 / 0, 1e308 * 10, int(1e999))",
        "x = 1\n" + "x = x + x\n" * 60 + "print(x)",
        "x = y\n" + "x = x + x\n" * 60 + "print(x)",
        "x" + " + x" * 5000,
        "\x00",
        "x = = 1",
        "print((-8) ** 0.5)",
        f"print(2 ** {LONG}, round({LONG}), float({LONG}), int({LONG}), -{LONG} + 1.5, {LONG} % 1e308)",
        "x = " + " + ".join("y" * 2000) + "\nz = " + " + ".join("x" * 20_000) + "\nprint(z)",
        "for i in range(3): pass\na0 = i\n" + "".join(f"a{n + 1} = a{n}\n" for n in range(5000)) + "print(i)",
    ],
)
def test_hostile_programs_have_a_form_soon(hostile: str) -> None:
    assert len(canonical_form(hostile)) == 64


@given(st.integers(-999, 999), st.integers(-999, 999), st.sampled_from("+-*"))
def test_arithmetic_on_constants_is_computed(a: int, b: int, sign: str) -> None:
    value = eval(f"({a}) {sign} ({b})")
    assert canonical_form(f"a = {a}\nprint(a {sign} {b})") == canonical_form(f"print({value})")


def test_forms_differ_in_what_is_computed_on_the_way() -> None:
    programs = [
        ["rolls = 9 * 6", "print(rolls - 17)"],
        ["print(6 * 9 - 17)"],
        ["print(-17 + 9 * 6)"],
        ["print(54 - 17)"],
        ["print(sum([6] * 9) - 17)"],
    ]
    assert count_forms(programs, compute=False) == 3
    assert count_forms(programs, compute=True) == 2
