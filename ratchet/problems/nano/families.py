"""The families of nano's problems, made procedurally, with worked solutions.

A family draws numbers and a phrasing. Numbers are drawn so that answers are natural numbers. The order of the families is
part of the data: problems are drawn from them in turn.

Limits: plain English of a few phrasings a family; a model trained on these knows these and nothing else.
"""

import random
from collections.abc import Callable

from ratchet.problems.nano import number_theory, word_problems
from ratchet.problems.nano.instance import Draw, Instance

FAMILIES: dict[str, Callable[[random.Random], Draw]] = {
    "packs": word_problems.packs,
    "change": word_problems.change,
    "discount": word_problems.discount,
    "travel": word_problems.travel,
    "ages": word_problems.ages,
    "remainder": number_theory.remainder,
    "common_divisor": number_theory.common_divisor,
    "meet_again": number_theory.meet_again,
    "digit_sum": number_theory.digit_sum,
    "sequence": number_theory.sequence,
    "count": number_theory.count,
    "average": word_problems.average,
    "minutes": word_problems.minutes,
    "savings": word_problems.savings,
    "garden": word_problems.garden,
    "factory": word_problems.factory,
    "divisors": number_theory.divisors,
    "bus": word_problems.bus,
    "chain": word_problems.chain,
    "party": word_problems.party,
    "ratio": word_problems.ratio,
    "last_digit": number_theory.last_digit,
    "primes": number_theory.primes,
}


def draw(family: str, rng: random.Random) -> Instance:
    """A problem of the family. Raises KeyError for one that does not exist."""
    text, steps, answer, numbers = FAMILIES[family](rng)
    return Instance(family, text, steps, answer, numbers)
