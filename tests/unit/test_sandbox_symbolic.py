"""The restricted form in which a parsed answer leaves its process."""

import pytest
import sympy

from services.sandbox.inside.symbolic import RestrictedFormError, equal, parse_answer, rebuild

X = sympy.Symbol("x", real=True)


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        ("sqrt(2)/2", 1 / sympy.sqrt(2)),
        ("\\frac{\\pi}{3}", sympy.pi / 3),
        ("x^2 - 1", X**2 - 1),
        ("0.5*x + 1e-7", X / 2 + sympy.Float("1e-7")),
        ("\\{1, 2\\}", sympy.FiniteSet(1, 2)),
        ("(1, 2)", sympy.Interval.open(1, 2)),
        ("[0, oo)", sympy.Interval(0, sympy.oo)),
        ("x > 3", X > 3),
        ("3 + 4i", 3 + 4 * sympy.I),
        ("10!", sympy.Integer(3_628_800)),
        ("\\ln 2", sympy.log(2)),
        ("e^2", sympy.exp(2)),
    ],
)
def test_a_parsed_answer_survives_the_restricted_form(text: str, meant: sympy.Basic) -> None:
    found = parse_answer(text)
    assert found is not None
    rebuilt = rebuild(found["form"])
    assert sympy.srepr(rebuilt) == found["form"]
    assert equal(rebuilt, meant)


@pytest.mark.parametrize(
    "form",
    [
        "__import__('os').system('id')",
        "open('/etc/passwd')",
        "Symbol.__subclasses__()",
        "[x for x in (1,)]",
        "(lambda: 1)()",
        "Function('f')",
        "S.__class__",
        "1 if True else 2",
        "Integer(1",
        "a" * 30_000,
        # A text that sympy is given as an argument, it evaluates.
        "Abs('__import__(\"os\").getpid()')",
        "factorial('3')",
        "Add('x', Integer(1))",
        "FiniteSet('x')",
        "Integer('5')",
        "Matrix([['1']])",
        "Float('1 + 1')",
        "Float(Symbol('x'))",
        "Symbol('x', real='yes')",
        "Integer(1, evaluate=False)",
        "['x']",
        "'x'",
    ],
)
def test_anything_but_an_expression_is_refused(form: str) -> None:
    with pytest.raises(RestrictedFormError):
        rebuild(form)


@pytest.mark.parametrize(
    "text",
    [
        "__import__('os').system('id')",
        "().__class__",
        "sqrt.__call__(4)",
        "print(1)",
        "5 or 6",
        "the answer is 5",
        "12 apples and 3 pears",
        "x.y(1)",
        "",
        "((((",
    ],
)
def test_words_and_code_do_not_parse(text: str) -> None:
    assert parse_answer(text) is None


def test_a_tower_of_powers_is_not_computed_while_it_is_rebuilt() -> None:
    found = parse_answer("9**9**9**9")
    assert found is not None
    assert str(rebuild(found["form"])) == "9**(9**(9**9))"


def test_numbers_are_compared_with_the_graders_tolerance() -> None:
    assert equal(sympy.sqrt(8), 2 * sympy.sqrt(2))
    assert not equal(sympy.exp(-20), sympy.Integer(0))
    assert not equal(sympy.pi, sympy.Rational(22, 7))
