"""Changed quantities: a function of the problem, of the same kind as before, and never outside of code."""

import ast
import re
from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ratchet.solutions.behaviour import FAILED, SILENT, answer_key_of, behaviour_of
from ratchet.solutions.counterfactual import MAX_VARIANTS, Variant, apply_variant, make_variants

PROBLEM = "4 boxes hold 12 cups each. 5 are lost. How many cups are left?"
PROBLEMS = st.lists(
    st.integers(2, 2000).map(str)
    | st.integers(1, 100).map("{}%".format)
    | st.decimals("0.01", 50, places=2).map(str)
    | st.sampled_from(["half", "a third", "3/4", "2 1/2", "twice", "a dozen", "two dozen", "twenty-five"]),
    max_size=14,
).map(", ".join)


def plain(variant: Variant) -> dict[str, str]:
    return {str(old): str(new) for old, new in variant.items()}


def test_all_quantities_are_changed_together_then_each_alone_and_then_to_neighbours() -> None:
    assert [plain(variant) for variant in make_variants(PROBLEM)] == [
        {"4": "8", "12": "36", "5": "10"},
        {"4": "8"},
        {"12": "24"},
        {"5": "10"},
        {"4": "2"},
        {"12": "36"},
        {"5": "15"},
        {"4": "3", "12": "13", "5": "6"},
    ]


def test_all_numbers_that_state_one_quantity_change_with_it() -> None:
    first, second, _ = make_variants("It costs 20% less.")
    assert plain(first) == {"20": "10", "1/5": "1/10", "6/5": "11/10", "4/5": "9/10", "5": "10"}
    assert second[Fraction(20)] == 100 * second[Fraction(1, 5)] == 4


def test_quantities_of_one_size_are_one() -> None:
    assert len(make_variants("2 boys have twice as many, and 2 girls half as many")) == 3


def test_a_number_is_the_quantity_that_is_stated_as_it_is() -> None:
    alone = make_variants("5 shirts at 20% off")[1:-1]
    assert {str(new[Fraction(5)]) for new in alone if Fraction(5) in new} == {"10", "15"}
    assert all(Fraction(5) not in new for new in alone if Fraction(20) in new)


@settings(deadline=None)
@given(PROBLEMS)
def test_changes_keep_the_kind_of_every_number_and_collide_with_none(problem: str) -> None:
    variants = make_variants(problem)
    assert variants == make_variants(problem)
    assert len(variants) <= MAX_VARIANTS
    stated = {old for variant in variants for old in variant}
    for variant in variants:
        for old, new in variant.items():
            assert new not in (0, 1, old)
            assert new > 0
            assert (old < 1) <= (new < 1)
            # In a text that is full of quantities, numbers that follow from per cent may be of another kind.
            assert "%" in problem or (old.denominator == 1) <= (new.denominator == 1)
            assert "%" in problem or new not in stated
    if stated and len(variants) < MAX_VARIANTS:
        for old in stated:
            assert len({variant[old] for variant in variants if old in variant}) >= 2, (problem, old)


def test_a_problem_without_quantities_has_no_variants() -> None:
    assert make_variants("What is the name of the only even prime, minus one?") == []


def changed(*steps: str) -> list[str]:
    return apply_variant(steps, make_variants(PROBLEM)[0])


def test_only_numbers_in_code_are_changed() -> None:
    assert changed(
        "# 4 boxes of 12, é\nn = 4*12  # 12 each",
        "'''Of 12, 5.'''\nprint(f'é 5 {n - 5:.2f}', \"12\")\r\nx = -5 + 5.0 * 0x0C\ny = x5 = 1_2",
    ) == [
        "# 4 boxes of 12, é\nn = 8*36  # 12 each",
        "'''Of 12, 5.'''\nprint(f'é 5 {n - 10:.2f}', \"12\")\r\nx = -10 + 10.0 * 36\ny = x5 = 36",
    ]


def test_a_number_that_was_rounded_is_recognized() -> None:
    variant = make_variants("A third of 90.")[1]
    assert apply_variant(["a = 0.33; b = 0.333; c = 0.3; d = 1 / 3"], variant) == [
        "a = 0.16666666666666666; b = 0.16666666666666666; c = 0.3; d = 1 / 6"
    ]


@pytest.mark.parametrize(
    ("step", "after"),
    [
        ('Decimal("12") / decimal.Decimal("5.0")', 'Decimal("36") / decimal.Decimal("10.0")'),
        ("Fraction('5/12') + Rational('4', '12')", "Fraction('10/36') + Rational('8', '36')"),
        ('sp.solve("5*x**2 - 12.0*x4 - 4")', 'sp.solve("10*x**2 - 36.0*x4 - 8")'),
        ("int(r'''12''') * float('-5e0')", "int(r'''36''') * float('-10.0')"),
        ("f\"{Decimal('12')} 12\"", "f\"{Decimal('36')} 12\""),
        ("S('4 x') + 5", "S('8 x') + 10"),
    ],
)
def test_numbers_in_strings_are_changed_where_a_call_reads_numbers(step: str, after: str) -> None:
    assert changed(step) == [after]


@pytest.mark.parametrize(
    "step",
    [
        "print('12'); name('12'); d['12']",
        "Decimal('4' '5')",
        "Decimal('\\x312')",
        "Decimal('é 12')",
        "float(f'12')",
        "int(b'12')",
        "Decimal('x12 12a 1.12.5 .12. 1_2')",
        "symbols('x 12')",
        f"Decimal('{'12' * 5000}')",
    ],
)
def test_other_strings_and_what_is_no_number_in_them_stay(step: str) -> None:
    assert changed(step) == [step]


def test_what_is_no_python_stays_as_it_is() -> None:
    assert changed("4 = = 12", "4" * 5000) == ["4 = = 12", "4" * 5000]


@settings(deadline=None)
@given(st.text() | st.text(alphabet="45 12\n\r\t+-*/()='\"#{}fx.é"))
def test_layout_and_strings_never_change(step: str) -> None:
    [after] = changed(step)
    lines = re.split("\r\n|\r|\n", step)
    assert len(re.split("\r\n|\r|\n", after)) == len(lines)
    try:
        before = ast.parse(step)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        assert after == step
        return

    def dump(tree: ast.AST) -> str:
        return re.sub(r"Constant\(value=[-+\d.e]+\)", "Constant(number)", ast.dump(tree))

    assert dump(ast.parse(after)) == dump(before)


@pytest.mark.filterwarnings("ignore:invalid escape")
@settings(deadline=None)
@given(
    st.text() | st.text(alphabet="45 12.eE/_x\n\r\t+-*'\"\\{}é"), st.sampled_from(["'", '"', "'''", '"""'])
)
def test_in_a_string_that_a_call_reads_only_numbers_change(text: str, quote: str) -> None:
    step = f"y = 5\nDecimal({quote}{text}{quote}) + 5"
    [after] = changed(step)
    assert len(re.split("\r\n|\r|\n", after)) == len(re.split("\r\n|\r|\n", step))
    try:
        ast.parse(step)
    except (SyntaxError, ValueError):
        assert after == step
        return
    ast.parse(after)

    def bare(program: str) -> str:
        return re.sub(r"[\d.]+(?:[eE][-+]?\d+)?", "", program)

    assert bare(after) == bare(step)


def test_an_answer_that_responds_is_grounded_and_a_failing_run_is_no_response() -> None:
    def grounded(*answers: str | None) -> bool | None:
        return behaviour_of(["print(43)"], "43", [answer_key_of(each) for each in answers]).grounded

    assert grounded("43", "86")
    assert not grounded("43.0", None)
    assert not behaviour_of(["print(43)"], "43", [FAILED, SILENT, answer_key_of("43")]).grounded
    assert grounded() is None


def test_programs_that_answer_alike_have_one_signature() -> None:
    one, same, other = (
        behaviour_of([f"print({n})"], "4", keys) for n, keys in enumerate(["abx", "aby", "acx"])
    )
    assert one.signature == same.signature != other.signature, "neighbours are no part of it"


def test_a_common_divisor_responds_to_neighbours_where_multiples_leave_it() -> None:
    steps = ["print(max(d for d in range(1, 34) if 33 % d == 0 and 21 % d == 0))"]
    variants = make_variants("Share 33 shells and 21 books among as many as you can.")
    *multiples, neighbours = (answer_of(apply_variant(steps, variant)) for variant in variants)
    assert (set(multiples), neighbours) == ({"3"}, "2")


def answer_of(steps: list[str]) -> str:
    printed: list[str] = []
    exec("\n".join(steps), {"print": lambda value: printed.append(str(value))})
    return printed[-1]


def test_without_variants_the_canonical_form_is_the_signature() -> None:
    one, same, other = (
        behaviour_of(steps, "42", []).signature
        for steps in (["print(42)"], ["x = 40", "print(x + 2)"], ["print(sum([42]))"])
    )
    assert one == same != other


@pytest.mark.parametrize(("long", "short"), [("x" * 1000, "x" * 1001), ("9" * 5000, "9" * 5001)])
def test_keys_of_long_answers_are_short_and_differ(long: str, short: str) -> None:
    assert len(answer_key_of(long)) < 100
    assert answer_key_of(long) != answer_key_of(short)
