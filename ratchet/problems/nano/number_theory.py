"""Number theory in plain words: divisors, remainders, digits, sequences and primes. One function a family."""

import math
import random

from ratchet.problems.nano.instance import NAMES, THINGS, Draw, solution


def remainder(r: random.Random) -> Draw:
    """What is left over by a division."""
    n, k = r.randint(50, 500), r.randint(4, 19)
    name, thing = r.choice(NAMES), r.choice(THINGS)
    text = r.choice(
        [
            f"{name} puts {n} {thing} into bags of {k}. How many {thing} are left over?",
            f"What is the remainder when {n} is divided by {k}?",
            f"{n} {thing} are packed in full boxes of {k}. How many {thing} do not fit in a full box?",
        ]
    )
    return text, solution(("rest", f"{n} % {k}")), n % k, (n, k)


def common_divisor(r: random.Random) -> Draw:
    """The greatest common divisor."""
    g, x, y = r.randint(2, 15), r.randint(2, 12), r.randint(2, 12)
    n, k = g * x, g * (y if y != x else y + 1)
    one, two = r.sample(THINGS, 2)
    text = r.choice(
        [
            f"What is the greatest common divisor of {n} and {k}?",
            f"{n} {one} and {k} {two} are shared out equally with none left. What is the largest number of bags?",
        ]
    )
    steps = solution(
        ("divisors of both", f"[d for d in range(1, {n} + 1) if {n} % d == 0 and {k} % d == 0]"),
        ("largest", "max(a)"),
    )
    return text, steps, math.gcd(n, k), (n, k)


def meet_again(r: random.Random) -> Draw:
    """The least common multiple."""
    n, k = r.sample(range(4, 61), 2)
    text = r.choice(
        [
            f"What is the least common multiple of {n} and {k}?",
            f"One bell rings every {n} minutes and another every {k} minutes. After how many minutes do both ring together?",
        ]
    )
    steps = solution(
        ("common multiples", f"[m for m in range(1, {n} * {k} + 1) if m % {n} == 0 and m % {k} == 0]"),
        ("smallest", "min(a)"),
    )
    return text, steps, math.lcm(n, k), (n, k)


def digit_sum(r: random.Random) -> Draw:
    """The sum of digits, times a number."""
    n, k = r.randint(100, 9999), r.randint(2, 30)
    text = r.choice(
        [
            f"What is the sum of the digits of {n}, times {k}?",
            f"Add up the digits of {n} and multiply by {k}. What is the result?",
        ]
    )
    total = sum(map(int, str(n)))
    steps = solution(("sum of digits", f"sum(int(d) for d in str({n}))"), ("result", f"a * {k}"))
    return text, steps, total * k, (n, k)


def sequence(r: random.Random) -> Draw:
    """A term of an arithmetic sequence."""
    first, step, n = r.randint(2, 50), r.randint(2, 20), r.randint(5, 60)
    text = r.choice(
        [
            f"A sequence starts with {first} and each term is {step} more than the last. What is term number {n}?",
            f"Row 1 has {first} seats. Each row has {step} seats more than the one before. How many seats has row {n}?",
        ]
    )
    steps = solution(
        ("how often it grows", f"{n} - 1"), ("growth", f"a * {step}"), ("last one", f"{first} + b")
    )
    return text, steps, first + (n - 1) * step, (first, step, n)


def count(r: random.Random) -> Draw:
    """Multiples of one number that are not multiples of another."""
    n = r.randint(40, 400)
    k, m = r.sample(range(2, 12), 2)
    text = r.choice(
        [
            f"How many numbers from 1 to {n} are divisible by {k} but not by {m}?",
            f"Count the multiples of {k} up to {n} that are not multiples of {m}.",
        ]
    )
    steps = solution(
        (f"multiples of {k}", f"[x for x in range(1, {n} + 1) if x % {k} == 0]"),
        (f"without multiples of {m}", f"[x for x in a if x % {m} != 0]"),
        ("how many", "len(b)"),
    )
    return text, steps, sum(x % k == 0 and x % m != 0 for x in range(1, n + 1)), (n, k, m)


def divisors(r: random.Random) -> Draw:
    """How many divisors are above a bound."""
    n, k = r.randint(20, 300), r.randint(2, 9)
    text = r.choice(
        [
            f"How many divisors of {n} are larger than {k}?",
            f"Count the numbers above {k} that divide {n}.",
        ]
    )
    steps = solution(
        ("divisors", f"[d for d in range(1, {n} + 1) if {n} % d == 0]"),
        (f"above {k}", f"[d for d in a if d > {k}]"),
        ("how many", "len(b)"),
    )
    return text, steps, sum(n % d == 0 and d > k for d in range(1, n + 1)), (n, k)


def last_digit(r: random.Random) -> Draw:
    """The remainder of a power."""
    base, power, k = r.randint(2, 30), r.randint(3, 40), r.randint(3, 12)
    text = r.choice(
        [
            f"What is the remainder of {base} to the power {power} divided by {k}?",
            f"Raise {base} to the power {power} and divide by {k}. What remains?",
        ]
    )
    return (
        text,
        solution(("power", f"{base} ** {power}"), ("rest", f"a % {k}")),
        base**power % k,
        (base, power, k),
    )


def primes(r: random.Random) -> Draw:
    """How many primes are in a range."""
    low = r.randint(2, 80)
    high = low + r.randint(10, 60)
    text = r.choice(
        [
            f"How many prime numbers are there from {low} to {high}?",
            f"Count the primes between {low} and {high}, both included.",
        ]
    )
    steps = solution(
        ("primes", f"[p for p in range({low}, {high} + 1) if all(p % d != 0 for d in range(2, p))]"),
        ("how many", "len(a)"),
    )
    answer = sum(p > 1 and all(p % d for d in range(2, p)) for p in range(low, high + 1))
    return text, steps, answer, (low, high)
