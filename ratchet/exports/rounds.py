"""The data of a run of rounds: its selected solutions, its trees, and the verified answers of its searches.

The files of the last round that has a data set are taken, as its trainings read them: its solutions with those of earlier
rounds, and the trees of all rounds up to it. What was judged by and not learnt from is the split `validation`.
"""

import asyncio
import hashlib
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import UUID

import orjson
from pydantic import ValidationError

from ratchet.contracts.rounds import RoundView
from ratchet.contracts.serving import PRM1
from ratchet.contracts.training import PrmTraining
from ratchet.exports.answers import answer_row
from ratchet.exports.gathering import EVALUATION_STAYS, About, Asked, ExportError, Gathering, Model, Source
from ratchet.exports.kinds import Kind
from ratchet.exports.licences import declared_licence
from ratchet.exports.withheld import withheld
from ratchet.exports.writers import Writers
from ratchet.problems import problem_id
from ratchet.round_files import KEPT_APART_FILE, SFT_FILE, TREES_FILE, VALIDATION_FILE
from ratchet.solutions.preferences import Tree
from ratchet.states import ROUND_ENDS
from ratchet.store.exported import ExportedStore
from ratchet.store.registry import Registry
from ratchet.store.rounds import RoundStore

LABEL = "label"
"""The purpose of a round's searches of its training problems."""
MOST_ROUNDS = 100_000


@dataclass(frozen=True)
class Stores:
    """What is read."""

    rounds: RoundStore
    registry: Registry
    exported: ExportedStore


@dataclass(frozen=True)
class Run:
    """Rounds of a run, the last of which has a data set, and where they keep their files."""

    name: str
    rounds: Sequence[RoundView]
    """The oldest first."""
    folder: Path

    @property
    def last(self) -> RoundView:
        return self.rounds[-1]

    def file(self, name: str, number: int | None = None) -> Path:
        """A file of a round, of the last one unless a number is given."""
        return self.folder / f"round-{self.last.number if number is None else number}" / name


async def find_run(stores: Stores, name: str | None, number: int | None, rounds_dir: Path) -> Run:
    """The run with this name, or the only one; up to round `number`, or the last that has data. Raises ExportError."""
    if name is None:
        known = sorted(await stores.exported.runs())
        if len(known) != 1:
            there = f"there are {', '.join(known)}: name one with --run" if known else "there is none"
            raise ExportError(f"Which run? {there[0].upper()}{there[1:]}.")
        [name] = known
    views = sorted(await stores.rounds.rounds(name, MOST_ROUNDS), key=lambda each: each.number)
    if not views:
        raise ExportError(f"There is no run {name!r}; `ratchet rounds list` shows the runs.")
    having = [
        each
        for each in views
        if each.state in ROUND_ENDS and each.metrics.selection is not None and number in (None, each.number)
    ]
    if not having:
        which = "no round" if number is None else f"no round {number}"
        raise ExportError(f"The run {name!r} has {which} that is over and has made a data set.")
    last = having[-1]
    return Run(name, [each for each in views if each.number <= last.number], rounds_dir / name)


async def export_run(
    stores: Stores,
    run: Run,
    asked: Asked,
    writers: Writers,
    proofs: Path | None,
    problems_dir: Path | None = None,
) -> tuple[About, Gathering]:
    """Write the rows of the run. `proofs` is a folder for the proof bundles, `problems_dir` that of the problem files.

    Raises ExportError, StoreUnavailableError.
    """
    problems = [
        problem for each in run.rounds for problem in await stores.rounds.problems(UUID(each.id), "train")
    ]
    gathering = Gathering(
        asked,
        writers,
        withheld(
            {each.text for each in problems},
            ledger=await stores.exported.ledger(),
            evaluation=await stores.exported.measured_on(),
            excluded=asked.excluded,
            run=run.name,
        ),
        frozenset(await asyncio.to_thread(_kept_apart, run)),
    )
    about = await _about(stores, run, problems_dir)
    await asyncio.to_thread(_write_files, run, gathering, about)
    if Kind.VERIFIED in asked.kinds:
        ids = {each.text: problem_id(each.text, each.answer) for each in problems}
        numbers = {UUID(each.id): each.number for each in run.rounds}
        for round_id, number in numbers.items():
            async for answer in stores.exported.round_answers([round_id], LABEL):
                row = answer_row(answer, ids.get(answer.problem), number)
                if gathering.answer(row) and proofs is not None and answer.proof is not None:
                    (proofs / f"{answer.search}.json").write_bytes(orjson.dumps(answer.proof))
    return about, gathering


def _kept_apart(run: Run) -> list[str]:
    file = run.file(KEPT_APART_FILE)
    # Rounds of the first versions kept none apart.
    return list(orjson.loads(file.read_bytes())) if file.is_file() else []


def _write_files(run: Run, gathering: Gathering, about: About) -> None:
    kinds = gathering.asked.kinds
    if kinds & {Kind.MESSAGES, Kind.PROMPT_COMPLETION}:
        selection = run.last.metrics.selection
        assert selection is not None
        _note(run.file(SFT_FILE), about, expected=selection.sha256)
        for line in _lines(run.file(SFT_FILE)):
            gathering.solution(line)
        if run.file(VALIDATION_FILE).is_file():
            _note(run.file(VALIDATION_FILE), about)
            for line in _lines(run.file(VALIDATION_FILE)):
                gathering.solution(line)
    if kinds & {Kind.PREFERENCE, Kind.STEPWISE, Kind.KTO}:
        rules = run.last.config.prm or PrmTraining()
        for each in run.rounds:
            file = run.file(TREES_FILE, each.number)
            # A round that failed before its searches were over has none.
            if each.metrics.selection is None and not file.is_file():
                continue
            _note(file, about)
            for line in _lines(file):
                gathering.tree(_tree(line, file), margin=rules.margin, edit_distance=rules.edit_distance)


def _note(file: Path, about: About, expected: str | None = None) -> None:
    """Put the file's digest into the card. Raises ExportError where it is not there, or not what the round has written."""
    try:
        with file.open("rb") as opened:
            sha256 = hashlib.file_digest(opened, "sha256").hexdigest()
    except OSError as error:
        raise ExportError(
            f"The file {file} of the round cannot be read ({error.strerror}). Name the data folder that holds the run's files "
            "with --data."
        ) from error
    if expected is not None and sha256 != expected:
        raise ExportError(
            f"The file {file} is not the one that the round has written: its SHA-256 is {sha256}, and the registry has "
            f"{expected}. Restore it from a backup."
        )
    about.inputs.append((f"{file.parent.name}/{file.name}", sha256))


def _lines(file: Path) -> Iterator[dict[str, Any]]:
    with file.open("rb") as lines:
        for number, line in enumerate(lines, 1):
            try:
                yield orjson.loads(line)
            except orjson.JSONDecodeError as error:
                raise ExportError(
                    f"Line {number} of {file} is no JSON: {error}. Restore it from a backup."
                ) from error


def _tree(line: dict[str, Any], file: Path) -> Tree:
    try:
        return Tree.model_validate(line)
    except ValidationError as error:
        first = error.errors(include_input=False)[0]
        raise ExportError(
            f"{file} holds a tree that cannot be read ({'.'.join(map(str, first['loc']))}: {first['msg']})."
        ) from error


async def _about(stores: Stores, run: Run, problems_dir: Path | None) -> About:
    last = run.last
    selection = last.config.selection
    rules = last.config.prm or PrmTraining()
    ended = last.ended_at.date().isoformat() if last.ended_at is not None else "not over"
    about = About(
        title=f"Ratchet run {run.name}, rounds {run.rounds[0].number} to {last.number}",
        origin=[
            f"What the self-evolution rounds of the run `{run.name}` found on their training problems, up to round "
            f"{last.number} (`{last.id}`, {last.state}, {ended})."
        ],
        filters=[
            f"Solutions: {selection.how.value}, at most {selection.per_problem} a problem, mean Q at least "
            f"{selection.min_mean_q:g}; re-executed from nothing, their answers depending on the problem's quantities."
            if selection.how.value != "unverified"
            else "Solutions were selected without verification, for comparison: they may be wrong.",
            f"Pairs: mean results that differ by at least {rules.margin:g}, texts by {rules.edit_distance} characters or more.",
            EVALUATION_STAYS,
            "Problems that a run has set aside are left out, unless that was overruled in this run.",
        ],
    )
    about.models = await _models(stores, run)
    counts: Counter[str] = Counter()
    for each in run.rounds:
        if each.metrics.problems is not None:
            counts[each.config.train.spec] += each.metrics.problems.train.problems
    for spec, count in counts.items():
        licence = await asyncio.to_thread(declared_licence, spec, problems_dir)
        about.sources.append(Source(spec, count, licence))
    return about


async def _models(stores: Stores, run: Run) -> list[Model]:
    found: dict[tuple[str, str], None] = {}
    for each in run.rounds:
        metrics = each.metrics
        if metrics.models is not None:
            found["base", metrics.models.base] = None
            found[f"searched with in round {each.number}: policy", metrics.models.policy] = None
            found[f"searched with in round {each.number}: PRM", metrics.models.prm] = None
        for kind, made in (("policy", metrics.policy), ("PRM", metrics.prm)):
            if made is not None:
                found[f"trained in round {each.number}: {kind}", made.version] = None
    return [Model(role, version, await sha256_of(stores.registry, version)) for role, version in found]


async def sha256_of(registry: Registry, version: str) -> str | None:
    """The digest of a version's weights, as the registry has it; PRM1 has none of its own."""
    known = None if version == PRM1 else await registry.get(version)
    return None if known is None else known.sha256
