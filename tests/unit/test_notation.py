"""What is read as which answer: numbers with their units, and the forms in which programs and people write the rest."""

import time
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ratchet.notation.nodes import Node, from_json, to_json
from ratchet.notation.reading import parse, read, read_number
from ratchet.notation.tokens import NotationError


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("72", 72),
        ("72.", 72),
        (" -3.50 ", Fraction(-7, 2)),
        ("−3", -3),
        ("+4", 4),
        (".5", Fraction(1, 2)),
        ("007", 7),
        ("1e-7", Fraction(1, 10**7)),
        ("2E3", 2000),
        ("6.02 \\times 10^{23}", 602 * 10**21),
        ("1,234,567.5", Fraction(2469135, 2)),
        ("4,\\!096", 4096),
        ("4{,}096", 4096),
        ("12,\\! 345,\\! 678", 12345678),
        ("$1,200", 1200),
        ("-$5", -5),
        ("$-5", -5),
        ("-\\$5", -5),
        ("\\$18", 18),
        ("$18$", 18),
        ("$\\$18$", 18),
        ("\\(18\\)", 18),
        ("**18**", 18),
        ("\\boxed{18}", 18),
        ("\\fbox{\\$18}", 18),
        ("€5.50", Fraction(11, 2)),
        ("5.50 €", Fraction(11, 2)),
        ("3 / 4", Fraction(3, 4)),
        ("3/-4", Fraction(-3, 4)),
        ("1 1/2", Fraction(3, 2)),
        ("-1 1/2", Fraction(-3, 2)),
        ("2\\frac{1}{3}", Fraction(7, 3)),
        ("2½", Fraction(5, 2)),
        ("\\frac{1}{2}", Fraction(1, 2)),
        ("\\frac12", Fraction(1, 2)),
        ("\\frac1{20}", Fraction(1, 20)),
        ("\\dfrac{30}7", Fraction(30, 7)),
        ("-\\tfrac{3}{4}", Fraction(-3, 4)),
        ("0.\\overline{3}", Fraction(1, 3)),
        ("0.1\\overline{6}", Fraction(1, 6)),
        ("12 apples.", 12),
        ("12\\text{ cm}", 12),
        ("12\\text{ cm}^2", 12),
        ("12 m/s", 12),
        ("12 miles per hour", 12),
        ("\\text{12}", 12),
        ("2 million", 2_000_000),
        ("$2.5 million", 2_500_000),
        ("3.5/7", Fraction(1, 2)),
        ("1/0.25", 4),
        ("-5%", -5),
        ("-45°", -45),
        ("50 percent", 50),
        ("50\\%", 50),
        ("45^\\circ", 45),
        ("45°", 45),
        ("45 degrees", 45),
        ("np.float64(3.5)", Fraction(7, 2)),
        ("np.int64(3)", 3),
        ("Fraction(1, 3)", Fraction(1, 3)),
        ("Fraction(-7, 1)", -7),
        ("Rational(2, 6)", Fraction(1, 3)),
        ("Decimal('0.1')", Fraction(1, 10)),
        ("mpf('2.5')", Fraction(5, 2)),
        ("Float('2.5', precision=53)", Fraction(5, 2)),
    ],
)
def test_a_number_is_read_as_written(text: str, value: Fraction) -> None:
    found = read_number(text)
    assert found is not None
    assert found.value == value


@pytest.mark.parametrize(
    "text",
    [
        *(
            "",
            "x",
            "2x",
            "2 x",
            "3 i",
            "1,2",
            "12,34",
            "1,3",
            "0,123",
            "1,0000",
            "1234,567",
            "1,000,50",
            "5 or 6",
        ),
        *(
            "1/0",
            "0/0",
            "2 times 3",
            "3 pi",
            "1e9999",
            "--3",
            "$-$5",
            "2 dozen",
            "1 2",
            "0x10",
            "0b11",
            "1_000",
        ),
        *("9" * 500, "1.2.3", "12:30", "52_8", "\\pm 5", "nan", "inf", "(1,000)", "[100,200]", "٣", "²"),
    ],
)
def test_what_is_not_one_number_is_not_read_as_one(text: str) -> None:
    assert read_number(text) is None


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        *(("1,3", "bare"), ("3, 5 and 7", "bare"), ("1 \\pm \\sqrt{2}", "bare"), ("$2$, $3$", "bare")),
        *(("(1, 2)", "tuple"), ("\\left( 3, \\frac{\\pi}{2} \\right)", "tuple"), ("(5,)", "tuple")),
        *(
            ("[1, 2]", "list"),
            ("[1 2 3]", "list"),
            ("[ 1. -2.5]", "list"),
            ("array([1, 2], dtype=int64)", "list"),
        ),
        *(
            ("{1, 2}", "set"),
            ("\\{1, 2\\}", "set"),
            ("FiniteSet(1, 2)", "set"),
            ("{1}", "number"),
            ("set()", "empty"),
        ),
        *(("[1, 2)", "interval"), ("(1, oo)", "interval"), ("Interval.open(0, 1)", "interval")),
        *(("Union(Interval(0, 1), Interval(2, 3))", "union"), ("(-oo, 0) \\cup (1, oo)", "union")),
        *(("x < 1 or x > 2", "union"), ("(x < 1) | (x > 2)", "union"), ("x > 1 and x < 2", "intersection")),
        *(("x = 3", "relation"), ("Eq(x, 3)", "relation"), ("x \\geq 2", "relation"), ("0 < x < 1", "and")),
        *(("x \\in [0, 1]", "member"), ("\\mathbb{R}", "reals"), ("\\emptyset", "empty")),
        *(("Matrix([[1, 2], [3, 4]])", "matrix"), ("\\begin{bmatrix}1&2\\\\3&4\\\\\\end{bmatrix}", "matrix")),
        *(
            ("2:3", "ratio"),
            ("1011_2", "based"),
            ("0b1011", "based"),
            ("\\text{Sunday}", "words"),
            ("True", "words"),
        ),
        *(
            ("|x - 1|", "call"),
            ("\\left|x\\right|", "call"),
            ("3 + 4*I", "add"),
            ("x_1", "symbol"),
            ("\\alpha", "symbol"),
        ),
        *(
            ("(C)", "symbol"),
            ("\\text{(C)}", "symbol"),
            ("5 cm", "quantity"),
            ("2\\pi\\text{ m}", "quantity"),
        ),
    ],
)
def test_forms_of_answers_are_told_apart(text: str, kind: str) -> None:
    assert parse(text).kind == kind


@pytest.mark.parametrize(
    "text",
    [
        *("", "((((", "1/0", "a.b", "x +", ", ", "print(1)", "the answer is 5", "x.y(1)", "f'(x)", "2 dozen"),
        *(
            "__import__('os').system('id')",
            "().__class__",
            "(lambda: 120)()",
            "(y:=120)",
            "[k for k in (1,)]",
        ),
        *(
            "eval('60*2')",
            "sympify('60*2')",
            "int(f'{60*2}')",
            "9!!!!",
            "x\x00",
            "\ud800",
            "٣",
            "(" * 990,
            "-" * 1900,
        ),
        *(
            "\\input{/etc/passwd}",
            "\\def\\x{120}\\x\\x",
            "\\frac{1}{" * 180 + "x" + "}" * 180,
            "x" * 3000,
            "1.5_8",
        ),
    ],
)
def test_code_prose_and_what_is_broken_do_not_parse(text: str) -> None:
    with pytest.raises(NotationError):
        parse(text)


def test_prose_is_its_words_and_anything_else_is_itself() -> None:
    assert read("Yes.") == read("\\text{yes}")
    assert read("3:30 p.m.") == read("\\text{3:30 pm}")
    assert read("Yes") != read("No")
    # Nothing is taken away from what cannot be read: different texts stay different.
    assert len({read(text) for text in ("@@@", "###", "2^{3", "2 3", "x^^2", "\x00", "\ud800", "")}) == 8


def test_a_long_text_of_the_worst_kind_is_read_in_bounded_time() -> None:
    began = time.monotonic()
    for unit in (
        "[1",
        "1",
        "{",
        "8²",
        "e9 ;",
        "and5",
        "$1",
        "'",
        "\\text{",
        "1,000",
        "\\left ",
        "+-",
        "=6",
        "²<-",
        "1 ",
        "x!",
    ):
        read((unit * 2000)[:2000])
        read("[" + (unit * 2000)[:1999])
    # Quadratic work in one of the patterns would take a second and more for each.
    assert time.monotonic() - began < 15


@pytest.mark.parametrize(
    "text",
    [
        "5_8 \\frac12",
        "0::",
        "1:",
        ":1",
        "2_",
        "x_",
        "x_{",
        "\\frac",
        "\\sqrt[",
        "\\begin{",
        "[1",
        "{1:",
        "1 \\pm",
    ],
)
def test_what_breaks_off_is_refused(text: str) -> None:
    with pytest.raises(NotationError):
        parse(text)


def test_units_have_one_spelling() -> None:
    def unit(text: str) -> str | None:
        found = read_number(text)
        return found.unit if found else None

    assert unit("3 cm^2") == unit("3\\text{ square centimeters}") == unit("3 sq. cm") == unit("3 cm²")
    assert unit("3 m/s") == unit("3 meters per second")
    assert unit("9.8 m/s^2") == unit("9.8 meters per square second")
    assert unit("70 mph") == unit("70 miles per hour")
    assert unit("$3") == unit("3 dollars") == unit("3 USD") == unit("USD 3")
    assert unit("3 cm") != unit("3 m")
    assert unit("3 apples") == unit("3 Apple")


answers = st.recursive(
    st.sampled_from(["1", "-2.5", "x", "pi", "1/3", "sqrt(2)", "2*I", "10!", "e"]),
    lambda inner: st.one_of(
        st.tuples(inner, inner).map(lambda pair: f"({pair[0]}, {pair[1]})"),
        st.lists(inner, min_size=1, max_size=3).map(lambda parts: f"[{', '.join(parts)}]"),
        st.lists(inner, min_size=2, max_size=3).map(lambda parts: f"\\{{{', '.join(parts)}\\}}"),
    ),
    max_leaves=6,
)


@given(answers)
def test_a_tree_survives_its_journey_as_json(text: str) -> None:
    node = parse(text)
    assert from_json(to_json(node)) == node


@given(st.text(max_size=80) | st.text("0123456789()[]{}\\^_,.:;+-*/!|$% xeiIEfracsqrtpm=<>", max_size=120))
def test_any_text_is_read_or_refused(text: str) -> None:
    assert isinstance(read(text), Node)
    found = read_number(text)
    assert found is None or isinstance(found.value, Fraction)
