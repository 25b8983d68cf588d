"""A problem set: what a spec names, with every problem that cannot be used set aside and its reason kept.

Specs: `nano:train?count=1500&seed=1`, `path/file.jsonl` (or JSON, CSV, Parquet), `hub:openai/gsm8k?config=main&split=train`
(shorthands `hub:gsm8k`, `hub:math`, `hub:math500`), `reasoning-gym:chain_sum?size=500&seed=1`. Files and the hub take the
options `problem`, `answer` and `records`, which say where their problems are. Whatever the source, the same three things
happen: answers that no machine can check are refused, later copies of a problem are dropped, and so is every copy of a problem
whose copies disagree about the answer.

Limits: a set is held in memory, and is checked whole before `limit` takes its sample.
"""

import hashlib
import random
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self
from urllib.parse import parse_qsl

from ratchet.notation.keys import key_of
from ratchet.notation.reading import read, read_number
from ratchet.problems.files import is_problem_file, read_file, split_options, unit_of
from ratchet.problems.hub import SHORTHANDS, HubSplit, read_hub
from ratchet.problems.nano import Split, generate
from ratchet.problems.problem import Problem, ProblemFileError, Refused, excerpt, normal_form
from ratchet.problems.reasoning import read_task
from ratchet.problems.records import Naming
from ratchet.problems.verifiable import refusals

DEFAULT_COUNT = 500
MAX_COUNT = 1_000_000
_SOURCES = ("nano", "reasoning-gym", "hub")
_WHERE: dict[str, str | None] = {"problem": None, "answer": None, "records": None}
"""Options that say where in records the problems are."""


@dataclass(frozen=True)
class Duplicate:
    """A problem that a set holds more than once."""

    source: str
    first_source: str
    conflicting: bool
    """The two give different answers. Neither is kept then; otherwise the later one is dropped."""


@dataclass(frozen=True)
class ProblemSet:
    """What a source holds."""

    spec: str
    problems: list[Problem]
    duplicates: list[Duplicate]
    refused: list[Refused]
    sha256: str
    """Of the texts and answers of `problems`, in their order."""

    @property
    def name(self) -> str:
        """The spec; of a file, its name alone."""
        path, _ = split_options(self.spec)
        return Path(path).name if names_file(self.spec) and is_problem_file(path) else self.spec

    def require_any(self) -> Self:
        """The set itself. Raises ProblemFileError if nothing in it can be used."""
        if self.problems:
            return self
        conflicting = sum(duplicate.conflicting for duplicate in self.duplicates)
        reasons = " ".join(f"{refused.source}: {refused.reason}" for refused in self.refused[:3])
        raise ProblemFileError(
            f"{self.spec}: no problem can be used: {len(self.refused)} refused, {conflicting} with a conflicting copy.",
            f"First reasons: {reasons}" if reasons else "",
        )


def load(
    spec: str,
    *,
    limit: int | None = None,
    seed: int = 0,
    cache_dir: Path | None = None,
    hub: str | None = None,
) -> ProblemSet:
    """The problem set that a spec names, in the order of its source; with `limit`, a sample of it by `seed`.

    `cache_dir` and `hub` are the hub library's cache and the hub's address; None takes the usual ones. Raises
    ProblemFileError: no such source, or a record that is no problem at all. An unusable answer is no error.
    """
    held = _ingest(spec, _entries(spec, cache_dir, hub))
    if limit is None:
        return held
    problems = sample(held.problems, seed=seed, limit=limit)
    return ProblemSet(spec, problems, held.duplicates, held.refused, _sha256(problems))


def read_problems(path: Path) -> ProblemSet:
    """A problem file, strictly: the first record that `load` would refuse is an error. Raises ProblemFileError."""
    held = load(str(path))
    for refused in held.refused:
        raise ProblemFileError(
            f"{path}, {unit_of(path)} {refused.source.rpartition(':')[2]}: {refused.reason}"
        )
    return held


def sample(
    problems: Sequence[Problem], *, seed: int, offset: int = 0, limit: int | None = None
) -> list[Problem]:
    """Shuffle the whole list with `random.Random(seed)`, then take `limit` problems from `offset` on.

    The order depends only on the list and the seed, so disjoint offsets give disjoint samples.
    """
    shuffled = list(problems)
    random.Random(seed).shuffle(shuffled)  # noqa: S311 - a sample, not a secret
    return shuffled[offset : None if limit is None else offset + limit]


def split(problems: Sequence[Problem], *sizes: int, seed: int = 0) -> list[list[Problem]]:
    """Disjoint samples of these sizes, in the order of the sizes. Raises ProblemFileError if there are too few."""
    if sum(sizes) > len(problems):
        asked = " + ".join(map(str, sizes))
        raise ProblemFileError(f"{asked} problems are asked for, and there are only {len(problems)}.")
    ends = [sum(sizes[: part + 1]) for part in range(len(sizes))]
    return [
        sample(problems, seed=seed, offset=end - size, limit=size)
        for size, end in zip(sizes, ends, strict=True)
    ]


def names_file(spec: str) -> bool:
    """Whether the spec names a file, and not one of the other sources."""
    source, colon, _ = spec.partition(":")
    return not colon or source not in _SOURCES


def _entries(spec: str, cache_dir: Path | None, hub: str | None) -> Iterator[Problem | Refused]:
    source, colon, rest = spec.partition(":")
    name, _, query = rest.partition("?")
    match source if colon else "":
        case "nano":
            options = _options(spec, query, {"count": str(DEFAULT_COUNT), "seed": "0"})
            if name not in set(Split):
                raise ProblemFileError(f"{spec}: nano has the splits {', '.join(Split)}.")
            count, seed = _whole_number(spec, options, "count"), _whole_number(spec, options, "seed")
            yield from generate(Split(name), count, seed)
        case "reasoning-gym":
            options = _options(spec, query, {"size": str(DEFAULT_COUNT), "seed": "0"})
            yield from read_task(
                name, _whole_number(spec, options, "size"), _whole_number(spec, options, "seed")
            )
        case "hub":
            dataset, config = SHORTHANDS.get(name, (name, None))
            usual = {"split": "test" if name == "math500" else "train", "config": config, "revision": None}
            options = _options(spec, query, usual | _WHERE)
            if not re.fullmatch(r"[\w.-]+/[\w.-]+", dataset):
                raise ProblemFileError(
                    f"{spec}: give a data set id like hub:org/name, or one of {', '.join(SHORTHANDS)}."
                )
            split = options["split"] or "train"
            wanted = HubSplit(dataset, split, options["config"], options["revision"])
            yield from read_hub(wanted, cache_dir, hub, _naming(query, options), options["records"])
        case _:
            file, query = split_options(spec)
            path, options = Path(file), _options(spec, query, _WHERE)
            if not is_problem_file(file) and not _is_there(path):
                raise ProblemFileError(
                    f"There is no problem source {spec!r}: give a problem file (*.jsonl, *.json, *.csv, *.parquet), "
                    "nano:train, hub:org/name, or reasoning-gym:task."
                )
            yield from read_file(path, None, _naming(query, options), options["records"])


def _naming(query: str, options: Mapping[str, str | None]) -> Naming:
    problem = (value for name, value in parse_qsl(query) if name == "problem")
    return Naming(tuple(problem), options["answer"])


def _is_there(path: Path) -> bool:
    try:
        return path.exists()
    except (OSError, ValueError):
        return False


def _options(spec: str, query: str, usual: Mapping[str, str | None]) -> dict[str, str | None]:
    given = parse_qsl(query, keep_blank_values=True)
    for name, value in given:
        if name not in usual or not value:
            wrong = f"there is no option {name!r}" if name not in usual else f"the option {name} has no value"
            raise ProblemFileError(f"{spec}: {wrong}; the options are {', '.join(usual)}.")
    return {**usual, **dict(given)}


def _whole_number(spec: str, options: dict[str, str | None], name: str) -> int:
    text = options[name] or ""
    least = 0 if name == "seed" else 1
    if not re.fullmatch(r"\d{1,18}", text, re.ASCII) or not least <= int(text):
        raise ProblemFileError(f"{spec}: {name} must be a whole number from {least} on.")
    if name != "seed" and int(text) > MAX_COUNT:
        raise ProblemFileError(f"{spec}: {name} may be {MAX_COUNT} at most.")
    return int(text)


def _ingest(spec: str, entries: Iterable[Problem | Refused]) -> ProblemSet:
    found = list(entries)
    if not found:
        raise ProblemFileError(f"{spec}: holds no problem. Expected one JSON object a line.")
    reasons = refusals(entry.answer for entry in found if isinstance(entry, Problem))
    problems: list[Problem] = []
    refused: list[Refused] = []
    for entry in found:
        if isinstance(entry, Refused):
            refused.append(entry)
        elif reason := reasons.get(entry.answer):
            said = f"{reason} It is {excerpt(entry.answer)!r}." if entry.answer else reason
            refused.append(Refused(entry.source, said, excerpt(entry.text)))
        else:
            problems.append(entry)
    problems, duplicates = _without_duplicates(problems)
    return ProblemSet(spec, problems, duplicates, refused, _sha256(problems))


def _without_duplicates(problems: Sequence[Problem]) -> tuple[list[Problem], list[Duplicate]]:
    duplicates: list[Duplicate] = []
    first: dict[str, Problem] = {}
    conflicting: set[str] = set()
    for problem in problems:
        key = normal_form(problem.text)
        other = first.setdefault(key, problem)
        if other is not problem:
            conflict = not _same_answer(other.answer, problem.answer)
            duplicates.append(Duplicate(problem.source, other.source, conflict))
            if conflict:
                conflicting.add(key)
    return [problem for key, problem in first.items() if key not in conflicting], duplicates


def _same_answer(answer: str, other: str) -> bool:
    ours, theirs = read_number(answer), read_number(other)
    if ours is not None and theirs is not None:
        return ours.value == theirs.value
    return key_of(read(answer)) == key_of(read(other))


def _sha256(problems: Iterable[Problem]) -> str:
    digest = hashlib.sha256()
    for problem in problems:
        digest.update(f"{problem.text}\0{problem.answer}\0".encode())
    return digest.hexdigest()
