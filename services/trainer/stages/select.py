"""Third stage: training data from the trees. It stays, also when the rest of the round fails."""

import asyncio
import hashlib
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from uuid import NAMESPACE_URL, uuid5

import orjson

from ratchet.contracts.round_metrics import DatasetCard, RoundMetrics
from ratchet.contracts.rounds import RoundProgress
from ratchet.contracts.serving import PRM1
from ratchet.problems import problem_id
from ratchet.store.nodes import NodeRecord
from ratchet.store.rounds import RoundProblem
from services.trainer.files import CARD_FILE, SFT_FILE, TREES_FILE, run_folder, write_file_atomically
from services.trainer.selection import Card, Chosen, choose, tree_line
from services.trainer.stages.context import Context, RoundFailedError, require_part
from services.trainer.stages.planned_searches import LABEL

Line = dict[str, Any]
"""A line of a file of JSON Lines."""


@dataclass
class _Gathered:
    """The trees of a round: nodes by problem, for the selection, and a line of each for the PRM's training."""

    by_place: defaultdict[int, list[list[NodeRecord]]] = field(default_factory=lambda: defaultdict(list))
    lines: list[Line] = field(default_factory=list)


async def select(context: Context) -> RoundMetrics:
    """Write the round's data set and its card. Raises RoundFailedError when there is nothing to learn from."""
    problems = {each.place: each for each in await context.rounds.problems(context.claim.id, "train")}
    gathered = await _gather(context, problems)
    card = Card()
    chosen = await _choose_all(context, problems, gathered, card)
    aside = {place: each.quarantine for place, each in chosen.items() if each.quarantine is not None}
    await context.rounds.quarantine(context.claim, "train", aside)
    set_aside = {problem_id(problems[place].text, problems[place].answer) for place in aside}
    trees = [line for line in gathered.lines if line["problem_id"] not in set_aside]
    lines = [line for each in chosen.values() for line in _sft_lines(each, context.claim.number)]
    run, number = run_folder(context.settings, context.claim.run), context.claim.number
    earlier = await asyncio.to_thread(_earlier_lines, run, number, lines, set_aside)
    if not lines and not earlier:
        raise RoundFailedError(
            f"Nothing to learn from: none of {len(problems)} problems was solved ({card.trajectories_found} trajectories "
            "gave an answer). Give more rollouts, easier problems or a stronger policy."
        )
    return RoundMetrics(selection=await _write(context, card, lines, earlier, trees))


async def _gather(context: Context, problems: Mapping[int, RoundProblem]) -> _Gathered:
    """Read the trees of all searches of the training problems."""
    gathered = _Gathered()
    async for tree in context.searches.trees(context.claim.id, LABEL):
        problem = problems[tree.place]
        gathered.by_place[tree.place].append(tree.nodes)
        line = tree_line(problem_id(problem.text, problem.answer), problem, context.claim.number, tree.nodes)
        if line is not None:
            gathered.lines.append({**line, "search": str(tree.search_id)})
    return gathered


async def _choose_all(
    context: Context, problems: Mapping[int, RoundProblem], gathered: _Gathered, card: Card
) -> dict[int, Chosen]:
    """What is taken of each problem, by place; it is counted in the card."""
    config = context.claim.config
    trained_prm = require_part(context.claim.metrics.models).prm != PRM1
    chosen: dict[int, Chosen] = {}
    for place, problem in problems.items():
        chosen[place] = choose(
            problem,
            gathered.by_place[place],
            config.selection,
            card,
            trained_prm=trained_prm,
            seed=config.seed + place,
        )
        if place % 100 == 0:
            await context.report(RoundProgress(stage="selecting", done=place, total=len(problems)))
            await asyncio.sleep(0)
    return chosen


def _sft_lines(chosen: Chosen, number: int) -> list[Line]:
    problem = chosen.problem
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
        for each in chosen.trajectories
    ]


def _earlier_lines(run: Path, number: int, lines: Iterable[Line], set_aside: set[str]) -> list[Line]:
    """Of problems that this round has no solution for, those that earlier rounds of the run have selected, the last first."""
    known = {line["id"] for line in lines} | set_aside
    found: list[Line] = []
    for earlier in range(number - 1, 0, -1):
        file = run / f"round-{earlier}" / SFT_FILE
        if not file.is_file():
            continue
        here = [line for line in map(orjson.loads, file.read_bytes().splitlines()) if line["id"] not in known]
        found += here
        known |= {line["id"] for line in here}
    return found


async def _write(
    context: Context, card: Card, lines: list[Line], earlier: list[Line], trees: list[Line]
) -> DatasetCard:
    """Write the files, and make the data set known under an id that the same content has again."""
    folder, claim = context.folder, context.claim
    folder.mkdir(parents=True, exist_ok=True)
    rows = [*lines, *earlier]
    sha256 = await asyncio.to_thread(_write_lines, folder / SFT_FILE, rows)
    await asyncio.to_thread(_write_lines, folder / TREES_FILE, trees)
    dataset = uuid5(NAMESPACE_URL, f"ratchet-dataset/{claim.id}/{sha256}")
    await context.registry.add_dataset(
        claim, dataset, f"{claim.run}-r{claim.number}", str(folder / SFT_FILE), sha256, len(rows)
    )
    written = card.close(
        from_earlier_rounds=len(earlier),
        trees=len(trees),
        dataset=dataset,
        sha256=sha256,
        rows=len(rows),
    )
    write_file_atomically(folder / CARD_FILE, written.model_dump_json(indent=2) + "\n")
    return written


def _write_lines(file: Path, lines: Iterable[Line]) -> str:
    """Write JSON Lines atomically; their SHA-256."""
    content = b"".join(orjson.dumps(line) + b"\n" for line in lines)
    write_file_atomically(file, content.decode())
    return hashlib.sha256(content).hexdigest()
