"""Third stage: training data from the trees. It stays, also when the rest of the round fails.

Which problems are set aside comes first, then what is taken of the others: both run programs of many problems at once. At last
some problems are kept apart, whose solutions the policy's training is judged by and not trained on.
"""

import asyncio
import hashlib
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from uuid import NAMESPACE_URL, uuid5

import orjson

from ratchet.clients import SandboxFailedError
from ratchet.contracts.round_metrics import DatasetCard, RoundMetrics
from ratchet.contracts.rounds import Disagreement, RoundProgress, SelectBy
from ratchet.contracts.serving import PRM1
from ratchet.problems import problem_id
from ratchet.round_files import CARD_FILE, KEPT_APART_FILE, SFT_FILE, TREES_FILE, VALIDATION_FILE
from ratchet.solutions.counterfactual import Variant, make_variants, telling_variants
from ratchet.store.nodes import NodeRecord
from ratchet.store.quarantine import LABEL
from ratchet.store.rounds import RoundProblem
from services.trainer.files import run_folder, write_file_atomically
from services.trainer.kept_apart import AT_LEAST, held_out_problems
from services.trainer.quarantine import disagreement, suspects
from services.trainer.reexecution import Claim, reexecute
from services.trainer.selection import Card, Choice, Found, Trajectory, find, tree_line, verdict, weighted
from services.trainer.stages.context import Context, RoundFailedError, require_part

Line = dict[str, Any]
"""A line of a file of JSON Lines."""


@dataclass
class _Gathered:
    """What the searches of a round have found, by problem, and a line of each tree for the PRM's training."""

    found: dict[int, Found]
    lines: list[Line] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class _Data:
    """The lines of the round's files."""

    training: list[Line]
    validation: list[Line]
    kept_apart: list[str]
    trees: list[Line]
    trained_trees: int
    """Those of no problem that is set aside."""
    from_earlier_rounds: int


async def select(context: Context) -> RoundMetrics:
    """Write the round's data set and its card. Raises RoundFailedError when there is nothing to learn from."""
    problems = {each.place: each for each in await context.rounds.problems(context.claim.id, "train")}
    gathered = await _gather(context, problems)
    try:
        aside = await _set_aside(context, problems, gathered.found)
        rest = {place: found for place, found in gathered.found.items() if place not in aside}
        choices = await _choose(context, problems, rest)
    except SandboxFailedError as error:
        raise RoundFailedError(f"The sandbox runs no program, so none could be run again: {error}") from error
    card = Card()
    for place, problem in problems.items():
        card.count(problem, gathered.found[place], choices.get(place))
    lines = [
        line
        for place, choice in choices.items()
        for line in _sft_lines(problems[place], choice.taken, context.claim.number)
    ]
    data = await _split(context, problems, lines, gathered.lines)
    if not data.training:
        raise RoundFailedError(_why_nothing(card, data))
    return RoundMetrics(selection=await _write(context, card, data))


def _why_nothing(card: Card, data: _Data) -> str:
    """Why there is nothing to train on, and what to do."""
    if not card.solved:
        found = f"none of {card.problems} problems was solved ({card.trajectories_found} trajectories gave an answer)"
    else:
        left_out = "; ".join(f"{count} {why}" for why, count in sorted(card.dropped.items()))
        found = (
            f"of {card.problems} problems, {card.solved} solved, {len(data.validation)} solutions are of those that are kept "
            f"apart, and the others were left out ({left_out})"
        )
    return (
        f"Nothing to learn from: {found}. Give more rollouts, more or easier problems, or a stronger policy."
    )


async def _gather(context: Context, problems: Mapping[int, RoundProblem]) -> _Gathered:
    """Read the trees of all searches of the training problems."""
    trees: defaultdict[int, list[tuple[int, Sequence[NodeRecord]]]] = defaultdict(list)
    lines: list[Line] = []
    async for tree in context.searches.trees(context.claim.id, LABEL):
        problem = problems[tree.place]
        trees[tree.place].append((tree.attempt, tree.nodes))
        line = tree_line(problem_id(problem.text, problem.answer), problem, context.claim.number, tree.nodes)
        if line is not None:
            lines.append({**line, "search": str(tree.search_id)})
    found: dict[int, Found] = {}
    for place in problems:
        found[place] = find(trees.pop(place, ()))
        # Reading programs takes a moment; the lease has to be kept meanwhile.
        await asyncio.sleep(0)
    return _Gathered(found, lines)


async def _set_aside(
    context: Context, problems: Mapping[int, RoundProblem], found: Mapping[int, Found]
) -> dict[int, Disagreement]:
    """Enter the problems into the ledger whose reference answers are not trusted; why, by place."""
    claim, rules = context.claim, context.claim.config.selection
    aside: dict[int, Disagreement] = {}
    if require_part(claim.metrics.models).prm != PRM1:
        ledger = await context.rounds.quarantined(run=claim.run)
        overruled = {each.problem for each in ledger if each.overruled_at is not None}
        asked = [
            (place, each)
            for place, problem in problems.items()
            if problem.text not in overruled
            for each in suspects(found[place], rules)
        ]
        variants = await _variants(problems, {place for place, _ in asked})
        await context.report(RoundProgress(stage="selecting", note=f"{len(asked)} programs under suspicion"))
        behaviours = await reexecute(
            [Claim(each.steps, each.answer, variants[place]) for place, each in asked], context.sandbox
        )
        of_problem: defaultdict[int, dict[str, Any]] = defaultdict(dict)
        for (place, each), behaviour in zip(asked, behaviours, strict=True):
            of_problem[place][each.fingerprint] = behaviour
        for place, known in of_problem.items():
            why = disagreement(found[place], rules, known)
            if why is not None:
                aside[place] = why
    await context.rounds.quarantine(claim, aside)
    return aside


async def _choose(
    context: Context, problems: Mapping[int, RoundProblem], found: Mapping[int, Found]
) -> dict[int, Choice]:
    """What is taken of each problem, by place. The next best of all problems are run again at once, until enough stand."""
    config = context.claim.config
    trained_prm = require_part(context.claim.metrics.models).prm != PRM1
    choices = {
        place: Choice(each, config.selection, trained_prm=trained_prm, seed=config.seed + place)
        for place, each in found.items()
    }
    verified = config.selection.how is not SelectBy.UNVERIFIED
    variants = await _variants(
        problems, {place for place, each in found.items() if verified and each.correct}
    )
    left = dict(choices)
    while left:
        done = len(choices) - len(left)
        await context.report(RoundProgress(stage="selecting", done=done, total=len(choices)))
        asked: list[tuple[int, Trajectory]] = []
        for place, choice in list(left.items()):
            tried = choice.ask()
            asked += [(place, each) for each in tried]
            if not tried:
                del left[place]
            await asyncio.sleep(0)
        if not verified:
            for place, each in asked:
                choices[place].tell(each, None)
            continue
        claims = [
            Claim(each.steps, problems[place].answer, telling_variants(variants[place]))
            for place, each in asked
        ]
        behaviours = await reexecute(claims, context.sandbox)
        for (place, each), behaviour in zip(asked, behaviours, strict=True):
            choices[place].tell(each, verdict(behaviour))
    return choices


async def _variants(
    problems: Mapping[int, RoundProblem], places: Iterable[int]
) -> dict[int, Sequence[Variant]]:
    """The variants of problems, by place."""
    found: dict[int, Sequence[Variant]] = {}
    for place in places:
        found[place] = make_variants(problems[place].text)
        await asyncio.sleep(0)
    return found


def _sft_lines(problem: RoundProblem, taken: Iterable[Trajectory], number: int) -> list[Line]:
    return [
        {
            "id": problem_id(problem.text, problem.answer),
            "problem": problem.text,
            "steps": list(each.steps),
            "family": problem.family,
            "difficulty": problem.difficulty,
            "round": number,
            "mean_q": round(each.mean_q, 4),
            "mean_prm": round(each.mean_prm, 4),
        }
        for each in taken
    ]


async def _split(
    context: Context, problems: Mapping[int, RoundProblem], lines: list[Line], trees: list[Line]
) -> _Data:
    """The solutions that are trained on, those of problems that are kept apart, and the trees; of no problem set aside.

    The problems are drawn from those of this round and of earlier rounds' trees.
    """
    claim = context.claim
    aside = {each.id for each in await context.rounds.quarantined(run=claim.run) if each.overruled_at is None}
    run = run_folder(context.settings, claim.run)
    earlier = await asyncio.to_thread(_earlier_lines, run, claim.number, {line["id"] for line in lines})
    known = await asyncio.to_thread(_ids_of_trees, run, claim.number)
    ids = {problem_id(each.text, each.answer) for each in problems.values()} | known
    apart = held_out_problems(
        ids - aside, fraction=claim.config.kept_apart, at_least=AT_LEAST, seed=claim.config.seed
    )
    rows = [line for line in [*lines, *earlier] if line["id"] not in aside]
    return _Data(
        training=weighted([line for line in rows if line["id"] not in apart]),
        validation=weighted([line for line in rows if line["id"] in apart]),
        kept_apart=sorted(apart),
        # Those that are set aside stay in the file: should a person overrule it, they are trained on.
        trees=trees,
        trained_trees=sum(line["problem_id"] not in aside for line in trees),
        from_earlier_rounds=sum(line["id"] not in aside for line in earlier),
    )


def _earlier_lines(run: Path, number: int, known: set[str]) -> list[Line]:
    """Of problems that this round has no solution for, those that earlier rounds of the run have selected, the last first."""
    found: list[Line] = []
    known = set(known)
    for earlier in range(number - 1, 0, -1):
        here = [
            line
            for name in (SFT_FILE, VALIDATION_FILE)
            for line in _read_lines(run / f"round-{earlier}" / name)
            if line["id"] not in known
        ]
        found += here
        known |= {line["id"] for line in here}
    return found


def _ids_of_trees(run: Path, number: int) -> set[str]:
    """The problems of which earlier rounds of the run have trees."""
    files = [run / f"round-{earlier}" / TREES_FILE for earlier in range(1, number)]
    return {line["problem_id"] for file in files for line in _read_lines(file)}


def _read_lines(file: Path) -> Iterable[Line]:
    """The lines of a file of JSON Lines; none where there is no file."""
    if file.is_file():
        with file.open("rb") as lines:
            yield from map(orjson.loads, lines)


async def _write(context: Context, card: Card, data: _Data) -> DatasetCard:
    """Write the files, and make the data set known under an id that the same content has again."""
    folder, claim = context.folder, context.claim
    folder.mkdir(parents=True, exist_ok=True)
    sha256 = await asyncio.to_thread(_write_lines, folder / SFT_FILE, data.training)
    await asyncio.to_thread(_write_lines, folder / VALIDATION_FILE, data.validation)
    await asyncio.to_thread(_write_lines, folder / TREES_FILE, data.trees)
    write_file_atomically(folder / KEPT_APART_FILE, orjson.dumps(data.kept_apart).decode() + "\n")
    dataset = uuid5(NAMESPACE_URL, f"ratchet-dataset/{claim.id}/{sha256}")
    await context.registry.add_dataset(
        claim,
        dataset,
        f"{claim.run}-r{claim.number}",
        str(folder / SFT_FILE),
        sha256,
        len(data.training),
    )
    written = card.close(
        from_earlier_rounds=data.from_earlier_rounds,
        trees=data.trained_trees,
        kept_apart=len(data.kept_apart),
        validation_rows=len(data.validation),
        dataset=dataset,
        sha256=sha256,
        rows=len(data.training),
    )
    write_file_atomically(folder / CARD_FILE, written.model_dump_json(indent=2) + "\n")
    return written


def _write_lines(file: Path, lines: Iterable[Line]) -> str:
    """Write JSON Lines atomically; their SHA-256."""
    content = b"".join(orjson.dumps(line) + b"\n" for line in lines)
    write_file_atomically(file, content.decode())
    return hashlib.sha256(content).hexdigest()
