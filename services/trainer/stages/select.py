"""Third stage: training data from the trees. Nothing that was gathered is lost when the rest of the round fails."""

import asyncio
import hashlib
from collections import defaultdict
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any
from uuid import NAMESPACE_URL, uuid5

import orjson

from ratchet.contracts.rounds import RoundProgress
from ratchet.contracts.serving import PRM1
from ratchet.problems import problem_id
from services.trainer.files import CARD_FILE, SFT_FILE, TREES_FILE, run_folder, write_file_atomically
from services.trainer.selection import Card, choose, tree_line
from services.trainer.stages.context import Context, RoundFailedError
from services.trainer.stages.planned_searches import LABEL


async def select(context: Context) -> dict[str, Any]:
    """Write the round's data set and its card. Raises RoundFailedError when there is nothing to learn from."""
    config = context.claim.config
    problems = {each.place: each for each in await context.rounds.problems(context.claim.id, "train")}
    by_place: defaultdict[int, list[Any]] = defaultdict(list)
    trees: list[dict[str, Any]] = []
    async for tree in context.searches.trees(context.claim.id, LABEL):
        problem = problems[tree.place]
        by_place[tree.place].append(tree.nodes)
        line = tree_line(problem_id(problem.text, problem.answer), problem, context.claim.number, tree.nodes)
        if line is not None:
            trees.append({**line, "search": str(tree.search_id)})
    card = Card()
    lines: list[dict[str, Any]] = []
    aside: dict[int, dict[str, Any]] = {}
    trained_prm = context.metric("models")["prm"] != PRM1
    for place, problem in problems.items():
        chosen = choose(
            problem,
            by_place[place],
            config.selection,
            card,
            trained_prm=trained_prm,
            seed=config.seed + place,
        )
        if chosen.quarantine is not None:
            aside[place] = chosen.quarantine
        lines.extend(
            {
                "id": problem_id(problem.text, problem.answer),
                "problem": problem.text,
                "steps": list(each.steps),
                "family": problem.family,
                "difficulty": problem.difficulty,
                "round": context.claim.number,
                "mean_q": round(each.mean_q, 4),
                "mean_prm": round(each.mean_prm, 4),
            }
            for each in chosen.trajectories
        )
        if place % 100 == 0:
            await context.report(RoundProgress(stage="selecting", done=place, total=len(problems)))
            await asyncio.sleep(0)
    await context.rounds.quarantine(context.claim, "train", aside)
    set_aside = {problem_id(problems[place].text, problems[place].answer) for place in aside}
    kept = [line for line in trees if line["problem_id"] not in set_aside]
    earlier = await asyncio.to_thread(
        _earlier_lines,
        run_folder(context.settings, context.claim.run),
        context.claim.number,
        lines,
        set_aside,
    )
    facts = card.as_json() | {"from_earlier_rounds": len(earlier), "trees": len(kept)}
    if not lines and not earlier:
        raise RoundFailedError(
            f"Nothing to learn from: none of {len(problems)} problems was solved ({card.trajectories_found} trajectories "
            "gave an answer). Give more rollouts, easier problems or a stronger policy."
        )
    context.folder.mkdir(parents=True, exist_ok=True)
    sft = await asyncio.to_thread(_write_lines, context.folder / SFT_FILE, [*lines, *earlier])
    await asyncio.to_thread(_write_lines, context.folder / TREES_FILE, kept)
    dataset = uuid5(NAMESPACE_URL, f"ratchet-dataset/{context.claim.id}/{sft}")
    await context.rounds.add_dataset(
        context.claim,
        dataset,
        f"{context.claim.run}-r{context.claim.number}",
        str(context.folder / SFT_FILE),
        sft,
        len(lines) + len(earlier),
    )
    facts |= {"dataset": str(dataset), "sha256": sft, "rows": len(lines) + len(earlier)}
    write_file_atomically(
        context.folder / CARD_FILE, orjson.dumps(facts, option=orjson.OPT_INDENT_2).decode() + "\n"
    )
    return {"selection": facts}


def _earlier_lines(
    run: Path, number: int, lines: Iterable[Mapping[str, Any]], set_aside: set[str]
) -> list[dict[str, Any]]:
    """Of problems that this round has no solution for, those that earlier rounds of the run have selected, the last first."""
    known = {line["id"] for line in lines} | set_aside
    found: list[dict[str, Any]] = []
    for earlier in range(number - 1, 0, -1):
        file = run / f"round-{earlier}" / SFT_FILE
        if not file.is_file():
            continue
        here = [line for line in map(orjson.loads, file.read_bytes().splitlines()) if line["id"] not in known]
        found += here
        known |= {line["id"] for line in here}
    return found


def _write_lines(file: Path, lines: Iterable[Mapping[str, Any]]) -> str:
    """Write JSON Lines atomically; their SHA-256."""
    content = b"".join(orjson.dumps(line) + b"\n" for line in lines)
    write_file_atomically(file, content.decode())
    return hashlib.sha256(content).hexdigest()
