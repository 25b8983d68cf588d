"""Keeps a search within its budget of tokens, however many tasks are under way.

What a task takes is known when it has ended. Those that end first are the short ones: their mean, taken for all, has a wide
search begin too many, which took nearly twice its budget. So the tasks under way count as well, as far as they have
come at least: further than every task that began no earlier and has ended. Of lengths that are cut off like this, and taken as
exponential, the mean of greatest likelihood is all the tokens that were seen, by the tasks that have ended; and a task that
goes on takes one mean more, however far it has come.

The last task is begun where half of a mean one still fits, so that the budget holds on average where tasks are alike. Where
some are much longer, it is overspent by part of one (545 and 570 tokens for 500 with `small`).

Limit: shared draws that are known come at once, and what is under way beside them is thought to be further than it is; the
search then waits for it where it need not.

Pure; tokens are generated ones.
"""

from collections.abc import Hashable
from dataclasses import dataclass, field

FIRST_GUESS_TOKENS = 120
"""Of a task; one that has ended outweighs it as much as it is outweighed."""


@dataclass(slots=True)
class _UnderWay:
    began: int
    """How many tasks had ended by then."""
    at_least: int = 0
    """Tokens that it must have taken by now: sequences of a model grow at one pace."""


@dataclass(slots=True)
class Reserve:
    """What the tasks under way will take."""

    _ended: int = 0
    _tokens: int = 0
    _under_way: dict[Hashable, _UnderWay] = field(default_factory=dict)

    def begin(self, task: Hashable) -> None:
        """The task is under way from now on."""
        self._under_way[task] = _UnderWay(self._ended)

    def end(self, task: Hashable, tokens: int) -> None:
        """The task has ended, and has taken so many tokens. Raises KeyError for one that was not under way."""
        began = self._under_way.pop(task).began
        self._ended += 1
        self._tokens += tokens
        for other in self._under_way.values():
            if other.began <= began:
                other.at_least = max(other.at_least, tokens)

    def has_room(self, left: int) -> bool:
        """Whether another task should begin where so many tokens are left, those of the tasks under way not taken off."""
        if left <= 0:
            return False
        if not self._ended and not self._under_way:
            return True
        seen = sum(each.at_least for each in self._under_way.values())
        mean = (FIRST_GUESS_TOKENS + self._tokens + seen) / (1 + self._ended)
        return seen + (len(self._under_way) + 0.5) * mean < left
