"""The restricted form in which a parsed answer leaves its process."""

import pytest
import sympy

from services.sandbox.inside.symbolic import RestrictedFormError, equal, parsed, rebuild


@pytest.mark.parametrize(
    "text",
    [
        "sqrt(2)/2",
        "\\frac{\\pi}{3}",
        "x^2 - 1",
        "\\{1, 2\\}",
        "(1, 2)",
        "[0, oo)",
        "x > 3",
        "3 + 4i",
        "10!",
        "\\ln 2",
        "e^2",
    ],
)
def test_a_parsed_answer_survives_the_restricted_form(text: str) -> None:
    found = parsed(text)
    assert found is not None
    # Whatever rebuilds is the same expression once more.
    assert sympy.srepr(rebuild(sympy.srepr(rebuild(found["form"])))) == sympy.srepr(rebuild(found["form"]))


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
    assert parsed(text) is None


def test_a_tower_of_powers_is_not_computed_while_it_is_rebuilt() -> None:
    found = parsed("9**9**9**9")
    assert found is not None
    assert rebuild(found["form"]) is not None


def test_numbers_are_compared_with_the_graders_tolerance() -> None:
    assert equal(sympy.sqrt(8), 2 * sympy.sqrt(2))
    assert not equal(sympy.exp(-20), sympy.Integer(0))
    assert not equal(sympy.pi, sympy.Rational(22, 7))
