"""School word problems: things, money, ways, times and people in a few sentences. One function a family."""

import random

from ratchet.problems.nano.instance import NAMES, PLACES, THINGS, Draw, solution


def packs(r: random.Random) -> Draw:
    """Equal groups: one product."""
    n, k = r.randint(3, 40), r.randint(3, 60)
    name, thing = r.choice(NAMES), r.choice(THINGS)
    text = r.choice(
        [
            f"{name} buys {n} packs of {thing}. Each pack holds {k} {thing}. How many {thing} does {name} have?",
            f"There are {k} {thing} in a box. How many {thing} are in {n} boxes?",
            f"A shelf has {n} rows with {k} {thing} in each row. How many {thing} are on the shelf?",
        ]
    )
    return text, solution(("all " + thing, f"{n} * {k}")), n * k, (n, k)


def change(r: random.Random) -> Draw:
    """A purchase and the money that is left."""
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
        solution(("cost", f"{n} * {price}"), ("money left", f"{paid} - a")),
        paid - n * price,
        (n, price, paid),
    )


def discount(r: random.Random) -> Draw:
    """A purchase at so many percent less."""
    n, price, off = r.randint(2, 12), 20 * r.randint(1, 8), 5 * r.randint(1, 10)
    name, thing = r.choice(NAMES), r.choice(THINGS)
    text = r.choice(
        [
            f"{name} buys {n} {thing} at {price} dollars each. There is a discount of {off} percent. What does {name} pay?",
            f"A shop takes {off} percent off. What do {n} {thing} cost that were {price} dollars each?",
        ]
    )
    total = n * price
    steps = solution(
        ("full price", f"{n} * {price}"), ("discount", f"a * {off} // 100"), ("price to pay", "a - b")
    )
    return text, steps, total - total * off // 100, (n, price, off)


def travel(r: random.Random) -> Draw:
    """Two stretches at two speeds."""
    h, v, k, w = r.randint(2, 9), r.randint(30, 99), r.randint(2, 9), r.randint(30, 99)
    name = r.choice(NAMES)
    text = r.choice(
        [
            f"{name} drives {h} hours at {v} km per hour and then {k} hours at {w} km per hour. How far is that?",
            f"A train goes {v} km per hour for {h} hours, then {w} km per hour for {k} hours. How many km does it go?",
        ]
    )
    steps = solution(("first part", f"{h} * {v}"), ("second part", f"{k} * {w}"), ("whole way", "a + b"))
    return text, steps, h * v + k * w, (h, v, k, w)


def ages(r: random.Random) -> Draw:
    """The sum of two ages in some years."""
    age, times, years = r.randint(3, 15), r.randint(2, 6), r.randint(2, 20)
    one, two = r.sample(NAMES, 2)
    text = r.choice(
        [
            f"{one} is {age} years old. {two} is {times} times as old. How old are they together in {years} years?",
            f"{two} is {times} times as old as {one}, who is {age}. What is the sum of their ages in {years} years?",
        ]
    )
    steps = solution(
        (f"age of {two}", f"{age} * {times}"), ("sum today", f"{age} + a"), ("sum later", f"b + 2 * {years}")
    )
    return text, steps, age + age * times + 2 * years, (age, times, years)


def average(r: random.Random) -> Draw:
    """The mean of three numbers."""
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
    return text, solution(("sum", f"{x} + {y} + {z}"), ("mean", "a // 3")), (x + y + z) // 3, (x, y, z)


def minutes(r: random.Random) -> Draw:
    """Hours and minutes, several times."""
    h, m, n = r.randint(2, 9), r.randint(1, 59), r.randint(2, 9)
    name, place = r.choice(NAMES), r.choice(PLACES)
    text = r.choice(
        [
            f"{name} works {h} hours and {m} minutes a day at the {place}. How many minutes is that in {n} days?",
            f"A film takes {h} hours and {m} minutes. How many minutes do {n} such films take?",
        ]
    )
    steps = solution(("hours in minutes", f"{h} * 60"), ("one", f"a + {m}"), ("all", f"b * {n}"))
    return text, steps, (h * 60 + m) * n, (h, m, n)


def savings(r: random.Random) -> Draw:
    """So much a week, then a purchase."""
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
    steps = solution(("saved", f"{a_week} * {weeks}"), ("all money", f"{had} + a"), ("left", f"b - {spent}"))
    return text, steps, had + a_week * weeks - spent, (had, a_week, weeks, spent)


def garden(r: random.Random) -> Draw:
    """A fence around a rectangle, and its price."""
    long, wide, price = r.randint(5, 60), r.randint(4, 40), r.randint(2, 15)
    name = r.choice(NAMES)
    text = r.choice(
        [
            f"A garden is {long} m long and {wide} m wide. A fence costs {price} dollars per m. What does it cost?",
            f"{name} puts a fence around a field of {long} m by {wide} m at {price} dollars a m. How many dollars is that?",
        ]
    )
    steps = solution(("two sides", f"{long} + {wide}"), ("whole fence", "2 * a"), ("cost", f"b * {price}"))
    return text, steps, 2 * (long + wide) * price, (long, wide, price)


def factory(r: random.Random) -> Draw:
    """What machines make, without the broken ones, in full boxes."""
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
    steps = solution(
        ("in one hour", f"{machines} * {each}"),
        ("in all", f"a * {hours}"),
        ("good ones", f"b - {broken}"),
        ("boxes", f"c // {box}"),
    )
    return text, steps, (made - broken) // box, (machines, each, hours, broken, box)


def bus(r: random.Random) -> Draw:
    """People get on and off, half of them leave."""
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
    steps = solution(
        ("after some leave", f"{start} - {off}"),
        ("after some come", f"a + {on}"),
        ("half stays", "b // 2"),
        ("at the end", f"c + {more}"),
    )
    return text, steps, half // 2 + more, (start, off, on, more)


def chain(r: random.Random) -> Draw:
    """Five operations one after the other."""
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
    steps = solution(
        ("add", f"{start} + {add}"),
        ("multiply", f"a * {times}"),
        ("take away", f"b - {less}"),
        ("divide", f"c // {part}"),
        ("add again", f"d + {more}"),
    )
    return text, steps, (value - less) // part + more, (start, add, times, less, part, more)


def party(r: random.Random) -> Draw:
    """Tickets and food for adults and children, less a voucher."""
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
    steps = solution(
        ("adults", f"{adults} * {ticket}"),
        ("children", f"{kids} * {child}"),
        ("people", f"{adults} + {kids}"),
        ("food", f"c * {food}"),
        ("all costs", "a + b + d"),
        ("to pay", f"e - {help_}"),
    )
    answer = adults * ticket + kids * child + (adults + kids) * food - help_
    return text, steps, answer, (adults, kids, ticket, child, food, help_)


def ratio(r: random.Random) -> Draw:
    """A share by a ratio."""
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
    steps = solution(("parts", f"{x} + {y}"), ("one part", f"{total} // a"), (f"share of {two}", f"b * {y}"))
    return text, steps, unit * y, (total, x, y)
