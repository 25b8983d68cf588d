"""The words that mean something in an answer: functions, letters, units, currencies."""

FUNCTIONS = frozenset(
    """
    sqrt cbrt root exp log ln lg sin cos tan cot sec csc asin acos atan acot asec acsc arcsin arccos arctan arccot
    arcsec arccsc sinh cosh tanh coth asinh acosh atanh arcsinh arccosh arctanh abs Abs factorial binomial floor
    ceiling ceil Min Max min max gcd lcm Mod re im conjugate sign
    """.split()  # noqa: SIM905 - a list of words reads better as words
)
PREFIX_FUNCTIONS = FUNCTIONS - frozenset(
    """
    root abs Abs factorial binomial floor ceiling ceil Min Max min max gcd lcm Mod re im conjugate sign
    """.split()  # noqa: SIM905
)
"""Those that need no brackets: `ln 2`. Of the others some are units without them, as `5 min`."""
SAME_FUNCTION = {
    **{
        f"arc{name}": f"a{name}"
        for name in ("sin", "cos", "tan", "cot", "sec", "csc", "sinh", "cosh", "tanh")
    },
    **{"ln": "log", "abs": "Abs", "ceil": "ceiling", "min": "Min", "max": "Max"},
}
INVERSES = {name: f"a{name}" for name in ("sin", "cos", "tan", "cot", "sec", "csc", "sinh", "cosh", "tanh")}
"""What sin^{-1} means."""
CONSTANTS = {"pi": "pi", "Pi": "pi", "e": "e", "E": "e", "i": "i", "I": "i"} | dict.fromkeys(
    ("oo", "inf", "infty", "infinity", "Infinity"), "oo"
)
GREEK = frozenset(
    """
    alpha beta gamma delta epsilon varepsilon zeta eta theta vartheta iota kappa lambda lamda mu nu xi rho sigma tau
    upsilon phi varphi chi psi omega Gamma Delta Theta Lambda Xi Sigma Phi Psi Omega ell
    """.split()  # noqa: SIM905
)
WRAPPERS = frozenset(
    """
    Fraction Rational Integer Float Decimal mpf intp longdouble Poly
    """.split()  # noqa: SIM905
)
"""Calls that stand for their first argument; those of two numbers are a quotient."""
QUOTIENTS = frozenset(["Fraction", "Rational"])
CONTAINERS = {
    **dict.fromkeys(("FiniteSet", "set", "frozenset"), "set"),
    **dict.fromkeys(("array", "list", "deque", "dict_values", "dict_keys"), "list"),
    **dict.fromkeys(("Tuple", "tuple"), "tuple"),
    **dict.fromkeys(
        ("Matrix", "ImmutableMatrix", "MutableDenseMatrix", "ImmutableDenseMatrix", "matrix"), "matrix"
    ),
}
INTERVALS = {"Interval": "[]", "Intervalopen": "()", "IntervalLopen": "(]", "IntervalRopen": "[)"}
SET_OPERATIONS = {
    **{"Union": "union", "Or": "union", "Intersection": "intersection", "And": "intersection"},
    **{"Complement": "difference"},
}
RELATIONS = {
    **{"Eq": "=", "Equality": "=", "Ne": "!=", "Unequality": "!=", "Lt": "<", "StrictLessThan": "<"},
    **{"Le": "<=", "LessThan": "<=", "Gt": ">", "StrictGreaterThan": ">", "Ge": ">=", "GreaterThan": ">="},
}
CALLABLE = (
    FUNCTIONS | WRAPPERS | CONTAINERS.keys() | INTERVALS.keys() | SET_OPERATIONS.keys() | RELATIONS.keys()
)
EMPTY_SETS = frozenset(["EmptySet", "emptyset", "varnothing", "emptySet"])
REALS = frozenset(["Reals", "R"])

SCALES = {"hundred": 10**2, "thousand": 10**3, "million": 10**6, "billion": 10**9, "trillion": 10**12}
CURRENCIES = {"$": "dollar", "€": "euro", "£": "pound", "¥": "yen", "₹": "rupee"}
CURRENCY_CODES = {"USD": "dollar", "EUR": "euro", "GBP": "pound", "JPY": "yen", "INR": "rupee"}
# One spelling for units that have several. Others are compared by their words, without a plural s.
UNITS = {
    **dict.fromkeys(("deg", "degree", "°"), "degree"),
    **dict.fromkeys(("rad", "radian"), "radian"),
    **{"mm": "millimeter", "cm": "centimeter", "m": "meter", "km": "kilometer", "dm": "decimeter"},
    **{"millimetre": "millimeter", "centimetre": "centimeter", "metre": "meter", "kilometre": "kilometer"},
    **dict.fromkeys(("in", "inche", "inches"), "inch"),
    **dict.fromkeys(("ft", "foot", "feet"), "feet"),
    **{"yd": "yard", "mi": "mile", "mg": "milligram", "g": "gram", "kg": "kilogram", "oz": "ounce"},
    **dict.fromkeys(("lb", "lbs", "pounds", "pound"), "pound"),
    **{"ml": "milliliter", "mL": "milliliter", "l": "liter", "L": "liter", "litre": "liter"},
    **dict.fromkeys(("s", "sec", "second"), "second"),
    **dict.fromkeys(("min", "mins", "minute"), "minute"),
    **dict.fromkeys(("h", "hr", "hrs", "hour"), "hour"),
    **dict.fromkeys(("kph", "kmh"), "kilometer per hour"),
    **{"mph": "mile per hour", "wk": "week", "yr": "year", "yrs": "year", "sq": "square", "cu": "cubic"},
    **{"¢": "cent", "ct": "cent", "rupees": "rupee", "bucks": "dollar", "buck": "dollar"},
    **{code.lower(): name for code, name in CURRENCY_CODES.items()},
}
LETTER_UNITS = frozenset("mgshlL")
"""After a number and a blank these are units; `2 x` and `3 i` are products."""
# Two letters may be a product, `ab`, but not these.
TWO_LETTER_WORDS = frozenset(
    "or is to of at by no so if in on an as am pm cm mm km kg mg ml mL ft lb oz hr yd mi sq cu we he it".split()  # noqa: SIM905
)
# Words after a number that make it something else than that many of a thing.
NOT_UNITS = frozenset(
    """
    and or to of over times plus minus root squared cubed half halves third thirds quarter quarters
    fourth fourths fifth fifths sixth sixths seventh sevenths eighth eighths ninth ninths tenth tenths hundredth
    hundredths dozen dozens nan mod choose if when for is not less more than at most none no
    """.split()  # noqa: SIM905
)


def unit_of(words: str) -> str:
    """A unit in one spelling: `sq. cm`, `cm^2` and `square centimeters` are one."""
    spelt: list[str] = []
    for word in words.replace("/", " per ").split():
        name, _, exponent = word.partition("^")
        power = {"2": ["square"], "3": ["cubic"]}.get(exponent, [exponent] if exponent else [])
        spelt += [*power, _singular(name)]
    return " ".join(spelt)


def _singular(word: str) -> str:
    plain = word.rstrip(".")
    if plain in UNITS:
        return UNITS[plain]
    lower = plain.lower()
    if lower in UNITS:
        return UNITS[lower]
    single = lower.removesuffix("s") if len(lower) > 3 else lower
    return UNITS.get(single, single)
