"""What an export is asked for, where its rows go, and what it counts on the way."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from ratchet.exports.kinds import Kind, Split, Style
from ratchet.exports.shapes import Row, solution_rows, tree_rows
from ratchet.exports.withheld import Withheld
from ratchet.exports.writers import Writers
from ratchet.problems.problem import normal_form
from ratchet.solutions.preferences import Tree, preferences

EVALUATION_STAYS = (
    "Development and held-out problems of any round, and those that share 90 % of their words with one, "
    "are left out."
)


class ExportError(Exception):
    """The export cannot be made; the message says why, and what to do."""


@dataclass(frozen=True, slots=True)
class Asked:
    """What is to be exported."""

    kinds: frozenset[Kind]
    style: Style
    excluded: Sequence[str] = ()
    """Problems that must not leave, besides those that never do."""


@dataclass(frozen=True, slots=True)
class Model:
    """A model that the data comes from, or that was trained on it."""

    role: str
    version: str
    sha256: str | None
    """None: it has no weights of its own, or is not in the registry."""


@dataclass(frozen=True, slots=True)
class Source:
    """Where the problems come from, and the licence that the source declares."""

    spec: str
    problems: int
    licence: str | None


@dataclass
class About:
    """What the data card says beside the files."""

    title: str
    origin: list[str]
    """Sentences: which rounds, or which searches."""
    models: list[Model] = field(default_factory=list)
    sources: list[Source] = field(default_factory=list)
    filters: list[str] = field(default_factory=list)
    inputs: list[tuple[str, str]] = field(default_factory=list)
    """Files that were read, each with its SHA-256."""


@dataclass
class Gathering:
    """Takes what was found, and writes the rows of what may leave."""

    asked: Asked
    writers: Writers
    withheld: Mapping[str, Withheld]
    """By the normal forms of the problems."""
    kept_apart: frozenset[str] = frozenset()
    """Ids of problems that go into the split `validation`."""
    left_out: Counter[Withheld] = field(default_factory=Counter)
    """Solutions, trees and answers."""
    problems: set[str] = field(default_factory=set)
    """Normal forms of those that left."""

    def solution(self, line: Row) -> None:
        """A verified solution, as a round's file has it."""
        if self._may_leave(line["problem"]):
            self._write(solution_rows(line, self.asked.style), line["id"])

    def tree(self, tree: Tree, *, margin: float, edit_distance: int) -> None:
        """A search tree whose ends were compared with a reference answer."""
        if self._may_leave(tree.problem):
            found = preferences(tree, margin=margin, edit_distance=edit_distance)
            self._write(tree_rows(tree, found, self.asked.style), tree.problem_id)

    def answer(self, row: Row) -> bool:
        """A verified answer; whether it leaves."""
        leaves = self._may_leave(row["problem"])
        if leaves:
            self._write([(Kind.VERIFIED, row)], row["problem_id"])
        return leaves

    def _may_leave(self, problem: str) -> bool:
        form = normal_form(problem)
        if why := self.withheld.get(form):
            self.left_out[why] += 1
            return False
        self.problems.add(form)
        return True

    def _write(self, rows: Iterable[tuple[Kind, Row]], problem: str) -> None:
        split = Split.VALIDATION if problem in self.kept_apart else Split.TRAIN
        for kind, row in rows:
            if kind in self.asked.kinds:
                self.writers.write(kind, split, row)
