"""What a problem of nano is made of: the text, the steps that solve it, the answer, and the numbers that were drawn.

Steps are one comment and one line of Python each; the last one prints.
"""

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
"""Text, steps, answer and numbers, as a family draws them."""


def solution(*steps: tuple[str, str]) -> tuple[Step, ...]:
    """Steps from (note, expression) pairs; the results of all but the last are a, b, c, ..."""
    last = len(steps) - 1
    return tuple(
        Step(note, expression, None if place == last else "abcdefg"[place])
        for place, (note, expression) in enumerate(steps)
    )
