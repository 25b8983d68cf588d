"""The families of nano's problems: school word problems and number theory, made procedurally, with worked solutions.

A family draws numbers and a phrasing and returns the text, the steps that solve it, and the answer. Steps are one comment
and one line of Python each; the last one prints. Numbers are drawn so that answers are natural numbers.

Limits: plain English of a few phrasings a family; a model trained on these knows these and nothing else.
"""

import math
import random
from collections.abc import Callable
from dataclasses import dataclass

NAMES = (
    *("Anna", "Ben", "Carla", "David", "Emma", "Finn", "Grace", "Hugo", "Ivy", "Jack"),
    *("Kate", "Leo", "Mia", "Noah", "Olga", "Paul", "Rosa", "Sam", "Tina", "Victor"),
)
THINGS = (
    *("apples", "books", "cards", "coins", "cups", "eggs"),
    *("marbles", "pens", "shells", "stamps", "stickers", "toys"),
)
PLACES = ("shop", "school", "farm", "library", "market", "museum")


@dataclass(frozen=True, slots=True)
class Step:
    """A step of a worked solution: what is found, and the Python expression that finds it."""

    note: str
    expression: str
    variable: str | None
    """The variable that it is bound to; None: it is printed, and ends the solution."""

    @property
    def text(self) -> str:
        """The step as a policy writes it."""
        code = (
            f"print({self.expression})" if self.variable is None else f"{self.variable} = {self.expression}"
        )
        return f"# {self.note}\n{code}"


@dataclass(frozen=True, slots=True)
class Instance:
    """A problem of a family with its worked solution."""

    family: str
    text: str
    steps: tuple[Step, ...]
    answer: int
    numbers: tuple[int, ...]
    """The numbers that were drawn, which tell it from other problems of the family."""


Draw = tuple[str, tuple[Step, ...], int, tuple[int, ...]]


def _solution(*steps: tuple[str, str]) -> tuple[Step, ...]:
    """Steps from (note, expression) pairs; the results of all but the last are a, b, c, ..."""
    last = len(steps) - 1
    return tuple(
        Step(note, expression, None if place == last else "abcdefg"[place])
        for place, (note, expression) in enumerate(steps)
    )


def _packs(r: random.Random) -> Draw:
    n, k = r.randint(3, 40), r.randint(3, 60)
    name, thing = r.choice(NAMES), r.choice(THINGS)
    text = r.choice(
        [
            f"{name} buys {n} packs of {thing}. Each pack holds {k} {thing}. How many {thing} does {name} have?",
            f"There are {k} {thing} in a box. How many {thing} are in {n} boxes?",
            f"A shelf has {n} rows with {k} {thing} in each row. How many {thing} are on the shelf?",
        ]
    )
    return text, _solution(("all " + thing, f"{n} * {k}")), n * k, (n, k)


def _change(r: random.Random) -> Draw:
    n, price = r.randint(2, 12), r.randint(3, 30)
    paid = n * price + r.randint(1, 60)
    name, thing = r.choice(NAMES), r.choice(THINGS)
    text = r.choice(
        [
            f"{name} buys {n} {thing} for {price} dollars each and pays with {paid} dollars. How much change is given?",
            f"{name} has {paid} dollars and buys {n} {thing} at {price} dollars each. How many dollars are left?",
        ]
    )
    return (
        text,
        _solution(("cost", f"{n} * {price}"), ("money left", f"{paid} - a")),
        paid - n * price,
        (n, price, paid),
    )


def _discount(r: random.Random) -> Draw:
    n, price, off = r.randint(2, 12), 20 * r.randint(1, 8), 5 * r.randint(1, 10)
    name, thing = r.choice(NAMES), r.choice(THINGS)
    text = r.choice(
        [
            f"{name} buys {n} {thing} at {price} dollars each. There is a discount of {off} percent. What does {name} pay?",
            f"A shop takes {off} percent off. What do {n} {thing} cost that were {price} dollars each?",
        ]
    )
    total = n * price
    steps = _solution(
        ("full price", f"{n} * {price}"), ("discount", f"a * {off} // 100"), ("price to pay", "a - b")
    )
    return text, steps, total - total * off // 100, (n, price, off)


def _travel(r: random.Random) -> Draw:
    h, v, k, w = r.randint(2, 9), r.randint(30, 99), r.randint(2, 9), r.randint(30, 99)
    name = r.choice(NAMES)
    text = r.choice(
        [
            f"{name} drives {h} hours at {v} km per hour and then {k} hours at {w} km per hour. How far is that?",
            f"A train goes {v} km per hour for {h} hours, then {w} km per hour for {k} hours. How many km does it go?",
        ]
    )
    steps = _solution(("first part", f"{h} * {v}"), ("second part", f"{k} * {w}"), ("whole way", "a + b"))
    return text, steps, h * v + k * w, (h, v, k, w)


def _ages(r: random.Random) -> Draw:
    age, times, years = r.randint(3, 15), r.randint(2, 6), r.randint(2, 20)
    one, two = r.sample(NAMES, 2)
    text = r.choice(
        [
            f"{one} is {age} years old. {two} is {times} times as old. How old are they together in {years} years?",
            f"{two} is {times} times as old as {one}, who is {age}. What is the sum of their ages in {years} years?",
        ]
    )
    steps = _solution(
        (f"age of {two}", f"{age} * {times}"), ("sum today", f"{age} + a"), ("sum later", f"b + 2 * {years}")
    )
    return text, steps, age + age * times + 2 * years, (age, times, years)


def _remainder(r: random.Random) -> Draw:
    n, k = r.randint(50, 500), r.randint(4, 19)
    name, thing = r.choice(NAMES), r.choice(THINGS)
    text = r.choice(
        [
            f"{name} puts {n} {thing} into bags of {k}. How many {thing} are left over?",
            f"What is the remainder when {n} is divided by {k}?",
            f"{n} {thing} are packed in full boxes of {k}. How many {thing} do not fit in a full box?",
        ]
    )
    return text, _solution(("rest", f"{n} % {k}")), n % k, (n, k)


def _common_divisor(r: random.Random) -> Draw:
    g, x, y = r.randint(2, 15), r.randint(2, 12), r.randint(2, 12)
    n, k = g * x, g * (y if y != x else y + 1)
    one, two = r.sample(THINGS, 2)
    text = r.choice(
        [
            f"What is the greatest common divisor of {n} and {k}?",
            f"{n} {one} and {k} {two} are shared out equally with none left. What is the largest number of bags?",
        ]
    )
    steps = _solution(
        ("divisors of both", f"[d for d in range(1, {n} + 1) if {n} % d == 0 and {k} % d == 0]"),
        ("largest", "max(a)"),
    )
    return text, steps, math.gcd(n, k), (n, k)


def _meet_again(r: random.Random) -> Draw:
    n, k = r.sample(range(4, 61), 2)
    text = r.choice(
        [
            f"What is the least common multiple of {n} and {k}?",
            f"One bell rings every {n} minutes and another every {k} minutes. After how many minutes do both ring together?",
        ]
    )
    steps = _solution(
        ("common multiples", f"[m for m in range(1, {n} * {k} + 1) if m % {n} == 0 and m % {k} == 0]"),
        ("smallest", "min(a)"),
    )
    return text, steps, math.lcm(n, k), (n, k)


def _digit_sum(r: random.Random) -> Draw:
    n, k = r.randint(100, 9999), r.randint(2, 30)
    text = r.choice(
        [
            f"What is the sum of the digits of {n}, times {k}?",
            f"Add up the digits of {n} and multiply by {k}. What is the result?",
        ]
    )
    total = sum(map(int, str(n)))
    steps = _solution(("sum of digits", f"sum(int(d) for d in str({n}))"), ("result", f"a * {k}"))
    return text, steps, total * k, (n, k)


def _sequence(r: random.Random) -> Draw:
    first, step, n = r.randint(2, 50), r.randint(2, 20), r.randint(5, 60)
    text = r.choice(
        [
            f"A sequence starts with {first} and each term is {step} more than the last. What is term number {n}?",
            f"Row 1 has {first} seats. Each row has {step} seats more than the one before. How many seats has row {n}?",
        ]
    )
    steps = _solution(
        ("how often it grows", f"{n} - 1"), ("growth", f"a * {step}"), ("last one", f"{first} + b")
    )
    return text, steps, first + (n - 1) * step, (first, step, n)


def _count(r: random.Random) -> Draw:
    n = r.randint(40, 400)
    k, m = r.sample(range(2, 12), 2)
    text = r.choice(
        [
            f"How many numbers from 1 to {n} are divisible by {k} but not by {m}?",
            f"Count the multiples of {k} up to {n} that are not multiples of {m}.",
        ]
    )
    steps = _solution(
        (f"multiples of {k}", f"[x for x in range(1, {n} + 1) if x % {k} == 0]"),
        (f"without multiples of {m}", f"[x for x in a if x % {m} != 0]"),
        ("how many", "len(b)"),
    )
    return text, steps, sum(x % k == 0 and x % m != 0 for x in range(1, n + 1)), (n, k, m)


def _average(r: random.Random) -> Draw:
    x, y = r.randint(10, 99), r.randint(10, 99)
    z = r.randint(10, 97)
    z += -(x + y + z) % 3
    name = r.choice(NAMES)
    text = r.choice(
        [
            f"{name} scores {x}, {y} and {z} points in three games. What is the average?",
            f"Three boxes weigh {x} kg, {y} kg and {z} kg. What is their mean weight in kg?",
        ]
    )
    return text, _solution(("sum", f"{x} + {y} + {z}"), ("mean", "a // 3")), (x + y + z) // 3, (x, y, z)


def _minutes(r: random.Random) -> Draw:
    h, m, n = r.randint(2, 9), r.randint(1, 59), r.randint(2, 9)
    name, place = r.choice(NAMES), r.choice(PLACES)
    text = r.choice(
        [
            f"{name} works {h} hours and {m} minutes a day at the {place}. How many minutes is that in {n} days?",
            f"A film takes {h} hours and {m} minutes. How many minutes do {n} such films take?",
        ]
    )
    steps = _solution(("hours in minutes", f"{h} * 60"), ("one", f"a + {m}"), ("all", f"b * {n}"))
    return text, steps, (h * 60 + m) * n, (h, m, n)


def _savings(r: random.Random) -> Draw:
    had, a_week, weeks = r.randint(5, 90), r.randint(5, 40), r.randint(3, 30)
    spent = r.randint(2, had + a_week * weeks - 1)
    name, thing = r.choice(NAMES), r.choice(THINGS)
    text = r.choice(
        [
            f"{name} has {had} dollars and saves {a_week} dollars a week for {weeks} weeks. Then {name} spends {spent} "
            f"dollars on {thing}. How many dollars are left?",
            f"{name} gets {a_week} dollars each week. After {weeks} weeks {name} buys {thing} for {spent} dollars. "
            f"At first there were {had} dollars. How many are there now?",
        ]
    )
    steps = _solution(("saved", f"{a_week} * {weeks}"), ("all money", f"{had} + a"), ("left", f"b - {spent}"))
    return text, steps, had + a_week * weeks - spent, (had, a_week, weeks, spent)


def _garden(r: random.Random) -> Draw:
    long, wide, price = r.randint(5, 60), r.randint(4, 40), r.randint(2, 15)
    name = r.choice(NAMES)
    text = r.choice(
        [
            f"A garden is {long} m long and {wide} m wide. A fence costs {price} dollars per m. What does it cost?",
            f"{name} puts a fence around a field of {long} m by {wide} m at {price} dollars a m. How many dollars is that?",
        ]
    )
    steps = _solution(("two sides", f"{long} + {wide}"), ("whole fence", "2 * a"), ("cost", f"b * {price}"))
    return text, steps, 2 * (long + wide) * price, (long, wide, price)


def _factory(r: random.Random) -> Draw:
    machines, each, hours, box = r.randint(2, 9), r.randint(5, 40), r.randint(3, 12), r.randint(4, 12)
    made = machines * each * hours
    broken = made % box + box * r.randint(0, max(0, (made // box - 1) // 3))
    broken = broken or box
    thing = r.choice(THINGS)
    text = r.choice(
        [
            f"{machines} machines make {each} {thing} an hour each and run {hours} hours. {broken} {thing} are broken. "
            f"The others go into boxes of {box}. How many boxes are filled?",
            f"A factory has {machines} machines. Each makes {each} {thing} per hour for {hours} hours. {broken} are thrown "
            f"away and the rest is packed in boxes of {box}. How many boxes are there?",
        ]
    )
    steps = _solution(
        ("in one hour", f"{machines} * {each}"),
        ("in all", f"a * {hours}"),
        ("good ones", f"b - {broken}"),
        ("boxes", f"c // {box}"),
    )
    return text, steps, (made - broken) // box, (machines, each, hours, broken, box)


def _divisors(r: random.Random) -> Draw:
    n, k = r.randint(20, 300), r.randint(2, 9)
    text = r.choice(
        [
            f"How many divisors of {n} are larger than {k}?",
            f"Count the numbers above {k} that divide {n}.",
        ]
    )
    steps = _solution(
        ("divisors", f"[d for d in range(1, {n} + 1) if {n} % d == 0]"),
        (f"above {k}", f"[d for d in a if d > {k}]"),
        ("how many", "len(b)"),
    )
    return text, steps, sum(n % d == 0 and d > k for d in range(1, n + 1)), (n, k)


def _bus(r: random.Random) -> Draw:
    start, on, more = r.randint(10, 60), r.randint(2, 30), r.randint(2, 30)
    off = r.randint(1, start - 1)
    half = start - off + on
    if half % 2:
        on += 1
        half += 1
    text = r.choice(
        [
            f"A bus starts with {start} people. {off} get off and {on} get on. Then half of them get off and {more} get on. "
            "How many people are on the bus?",
            f"There are {start} birds on a tree. {off} fly away, {on} come. Later half of them leave and {more} more come. "
            "How many birds are there?",
        ]
    )
    steps = _solution(
        ("after some leave", f"{start} - {off}"),
        ("after some come", f"a + {on}"),
        ("half stays", "b // 2"),
        ("at the end", f"c + {more}"),
    )
    return text, steps, half // 2 + more, (start, off, on, more)


def _chain(r: random.Random) -> Draw:
    start, add, times, less, part, more = (
        r.randint(3, 40),
        r.randint(2, 40),
        r.randint(2, 9),
        r.randint(1, 9),
        r.randint(2, 6),
        r.randint(2, 60),
    )
    value = (start + add) * times
    less += (value - less) % part
    name = r.choice(NAMES)
    text = r.choice(
        [
            f"{name} thinks of {start}, adds {add}, multiplies by {times}, takes away {less}, divides by {part} and adds "
            f"{more}. What is the result?",
            f"Take {start}. Add {add}. Multiply by {times}. Subtract {less}. Divide by {part}. Add {more}. What do you get?",
        ]
    )
    steps = _solution(
        ("add", f"{start} + {add}"),
        ("multiply", f"a * {times}"),
        ("take away", f"b - {less}"),
        ("divide", f"c // {part}"),
        ("add again", f"d + {more}"),
    )
    return text, steps, (value - less) // part + more, (start, add, times, less, part, more)


def _party(r: random.Random) -> Draw:
    adults, kids, ticket, child, food, help_ = (
        r.randint(2, 20),
        r.randint(2, 20),
        r.randint(8, 30),
        r.randint(2, 7),
        r.randint(2, 9),
        r.randint(2, 25),
    )
    place = r.choice(PLACES)
    text = r.choice(
        [
            f"{adults} adults and {kids} children visit a {place}. An adult pays {ticket} dollars, a child {child} dollars. "
            f"Everybody eats for {food} dollars. A gift card pays {help_} dollars. How many dollars remain to be paid?",
            f"A {place} asks {ticket} dollars from adults and {child} dollars from children. {adults} adults and {kids} "
            f"children come and each eats for {food} dollars. They have a coupon of {help_} dollars. What do they pay?",
        ]
    )
    steps = _solution(
        ("adults", f"{adults} * {ticket}"),
        ("children", f"{kids} * {child}"),
        ("people", f"{adults} + {kids}"),
        ("food", f"c * {food}"),
        ("all costs", "a + b + d"),
        ("to pay", f"e - {help_}"),
    )
    answer = adults * ticket + kids * child + (adults + kids) * food - help_
    return text, steps, answer, (adults, kids, ticket, child, food, help_)


def _ratio(r: random.Random) -> Draw:
    x, y = r.sample(range(2, 12), 2)
    unit = r.randint(2, 30)
    one, two = r.sample(NAMES, 2)
    thing = r.choice(THINGS)
    total = (x + y) * unit
    text = r.choice(
        [
            f"{one} and {two} share {total} {thing} in the ratio {x} to {y}. How many does {two} get?",
            f"{total} {thing} are split {x} to {y} between {one} and {two}. How many {thing} has {two}?",
        ]
    )
    steps = _solution(("parts", f"{x} + {y}"), ("one part", f"{total} // a"), (f"share of {two}", f"b * {y}"))
    return text, steps, unit * y, (total, x, y)


def _last_digit(r: random.Random) -> Draw:
    base, power, k = r.randint(2, 30), r.randint(3, 40), r.randint(3, 12)
    text = r.choice(
        [
            f"What is the remainder of {base} to the power {power} divided by {k}?",
            f"Raise {base} to the power {power} and divide by {k}. What remains?",
        ]
    )
    return (
        text,
        _solution(("power", f"{base} ** {power}"), ("rest", f"a % {k}")),
        base**power % k,
        (base, power, k),
    )


def _primes(r: random.Random) -> Draw:
    low = r.randint(2, 80)
    high = low + r.randint(10, 60)
    text = r.choice(
        [
            f"How many prime numbers are there from {low} to {high}?",
            f"Count the primes between {low} and {high}, both included.",
        ]
    )
    steps = _solution(
        ("primes", f"[p for p in range({low}, {high} + 1) if all(p % d != 0 for d in range(2, p))]"),
        ("how many", "len(a)"),
    )
    answer = sum(p > 1 and all(p % d for d in range(2, p)) for p in range(low, high + 1))
    return text, steps, answer, (low, high)


FAMILIES: dict[str, Callable[[random.Random], Draw]] = {
    "packs": _packs,
    "change": _change,
    "discount": _discount,
    "travel": _travel,
    "ages": _ages,
    "remainder": _remainder,
    "common_divisor": _common_divisor,
    "meet_again": _meet_again,
    "digit_sum": _digit_sum,
    "sequence": _sequence,
    "count": _count,
    "average": _average,
    "minutes": _minutes,
    "savings": _savings,
    "garden": _garden,
    "factory": _factory,
    "divisors": _divisors,
    "bus": _bus,
    "chain": _chain,
    "party": _party,
    "ratio": _ratio,
    "last_digit": _last_digit,
    "primes": _primes,
}


def draw(family: str, rng: random.Random) -> Instance:
    """A problem of the family. Raises KeyError for one that does not exist."""
    text, steps, answer, numbers = FAMILIES[family](rng)
    return Instance(family, text, steps, answer, numbers)
