"""Trees that searches have left in a data folder, as the vote sees them: read once, kept as JSON Lines, counted offline.

`python -m benchmarks.stored_trees FOLDER OUT.jsonl` reads the evaluation searches of the folder's rounds, with
`--results EVAL.jsonl` those of a `ratchet eval` or `ratchet calibrate` instead (they lie in the same folder). Only the folder's
Postgres is started. Reference answers come from the rounds or from the result file; ends are compared with them here.

With `--early-stop` the trees are those at which the searches would have ended, had they ended where their answer could hardly
be overtaken: each is grown again from its journal. Answer and level are still those of the whole search.

Limit: answers that are no numbers are equal only where they are written alike or mean the same expression.
"""

import argparse
import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from pathlib import Path
from typing import Any
from uuid import UUID

from pydantic import BaseModel, ConfigDict
from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncEngine

from ratchet.cli.outcomes import GradedProblem
from ratchet.contracts.search import StrategyName
from ratchet.notation.numbers import is_same_number
from ratchet.notation.reading import read_number
from ratchet.solutions.answers import answer_key
from ratchet.solutions.votes import End, TreeNode, find_ends
from ratchet.stack.config import StackConfig
from ratchet.stack.local import local_stack
from ratchet.store import tables as t
from ratchet.store.engine import make_engine, reading
from ratchet.store.nodes import read_trees
from ratchet.store.search_tasks import SearchJournal
from ratchet.store.searches import SearchStore
from services.search.early_stop import is_settled, next_look
from services.search.replay import grown

AT_ONCE = 100


class StoredEnd(BaseModel):
    """Where trajectories ended, and whether the answer is right."""

    model_config = ConfigDict(frozen=True)

    answer: str
    right: bool
    scores: tuple[float, ...]
    votes: int
    mass: float

    def end(self, number: int) -> End:
        """As the vote takes it."""
        return End(str(number), self.answer, self.scores, self.votes, self.mass)


class StoredTree(BaseModel):
    """One search that is over."""

    model_config = ConfigDict(frozen=True)

    search: UUID
    problem: str
    """Names the problem within its split."""
    split: str
    """`development`, `held_out`, or the source of a result file."""
    strategy: StrategyName
    policy: str
    prm: str
    token_budget: int
    answer: str | None
    """That the search gave."""
    level: str
    ends: tuple[StoredEnd, ...]


def is_right(answer: str, reference: str) -> bool:
    """Whether the answer equals the reference, as far as it can be told without a sandbox."""
    ours, theirs = read_number(answer), read_number(reference)
    if ours is not None and theirs is not None:
        return is_same_number(ours, theirs)
    return answer.strip() == reference.strip() or answer_key(answer) == answer_key(reference)


async def stored(
    engine: AsyncEngine, rows: Sequence[Mapping[str, Any]], *, early_stop: bool = False
) -> AsyncIterator[StoredTree]:
    """The trees of these searches; each row has the columns of `_COLUMNS`, and problem, split and reference."""
    for start in range(0, len(rows), AT_ONCE):
        some = rows[start : start + AT_ONCE]
        async with reading(engine) as connection:
            trees: Mapping[UUID, Sequence[TreeNode]] = await read_trees(
                connection, [row["id"] for row in some]
            )
        if early_stop:
            trees = {row["id"]: settled(await journal_of(engine, row["id"])) for row in some}
        for row in some:
            models: Mapping[str, str] = row["models"]
            yield StoredTree(
                search=row["id"],
                problem=str(row["problem"]),
                split=row["split"],
                strategy=row["strategy"],
                policy=models.get("policy", ""),
                prm=models.get("prm", ""),
                token_budget=row["budget"]["tokens"],
                answer=row["answer"],
                level=row["level"] or "none",
                ends=tuple(
                    StoredEnd(
                        answer=end.answer,
                        right=is_right(end.answer, row["reference"]),
                        scores=end.scores,
                        votes=end.votes,
                        mass=end.mass,
                    )
                    for end in find_ends(trees[row["id"]])
                ),
            )


async def journal_of(engine: AsyncEngine, search_id: UUID) -> SearchJournal:
    """What the search has written down; it is there."""
    journal = await SearchStore(engine).load_journal(search_id)
    assert journal is not None
    return journal


def settled(journal: SearchJournal) -> list[TreeNode]:
    """The nodes at which the search would have ended early; all of them where it would not."""
    tree, due = None, next_look(0)
    for tree in grown(journal.request, journal.nodes, journal.tasks):
        rollouts = tree.root.visits
        if rollouts < due:
            continue
        due = next_look(rollouts + 1)
        if is_settled(tree, journal.request):
            break
    return [] if tree is None else list(tree.nodes.values())


_COLUMNS = (
    t.searches.c.id,
    t.searches.c.strategy,
    t.searches.c.models,
    t.searches.c.budget,
    t.solutions.c.answer,
    t.verifications.c.level,
)
_WITH_RESULTS = t.searches.outerjoin(t.solutions, t.solutions.c.search_id == t.searches.c.id).outerjoin(
    t.verifications, t.verifications.c.search_id == t.searches.c.id
)


async def rows_of_rounds(engine: AsyncEngine) -> list[Mapping[str, Any]]:
    """The evaluation searches of all rounds: those whose purpose is `who.split.strategy`."""
    split = t.round_problems.c.split
    query = (
        select(
            *_COLUMNS,
            t.round_searches.c.place.label("problem"),
            split.label("split"),
            t.round_problems.c.answer.label("reference"),
        )
        .select_from(
            _WITH_RESULTS.join(t.round_searches, t.round_searches.c.search_id == t.searches.c.id).join(
                t.round_problems,
                (t.round_problems.c.round_id == t.round_searches.c.round_id)
                & (t.round_problems.c.place == t.round_searches.c.place),
            )
        )
        .where(t.round_searches.c.purpose.contains("." + split + "."), t.searches.c.ended_at.is_not(None))
        .order_by(t.searches.c.id)
    )
    async with reading(engine) as connection:
        return [dict(row) for row in (await connection.execute(query)).mappings()]


async def rows_of_results(
    engine: AsyncEngine, graded: Sequence[GradedProblem], source: str
) -> list[Mapping[str, Any]]:
    """The searches of graded problems."""
    by_id = {UUID(each.search): each for each in graded if each.search is not None}
    query = select(*_COLUMNS).select_from(_WITH_RESULTS).where(t.searches.c.id.in_(by_id))
    async with reading(engine) as connection:
        rows = list((await connection.execute(query)).mappings())
    return [
        {
            **row,
            "problem": by_id[row["id"]].id,
            "split": source,
            "reference": by_id[row["id"]].reference,
        }
        for row in rows
    ]


async def dump(folder: Path, out: Path, results: Path | None, *, early_stop: bool = False) -> int:
    """Write the trees of a data folder; how many there were."""
    graded = None if results is None else read_graded(results)
    count = 0
    async with local_stack(StackConfig(data=folder, services=())) as urls:
        engine = make_engine(urls.database)
        try:
            rows = await (rows_of_rounds(engine) if graded is None else rows_of_results(engine, *graded))
            with out.open("w") as file:
                async for tree in stored(engine, rows, early_stop=early_stop):
                    file.write(tree.model_dump_json() + "\n")
                    count += 1
        finally:
            await engine.dispose()
    return count


def read_graded(results: Path) -> tuple[list[GradedProblem], str]:
    """The lines of a result file, and its name."""
    return [
        GradedProblem.model_validate_json(line) for line in results.read_bytes().splitlines()
    ], results.stem


def load_trees(files: Sequence[Path]) -> list[StoredTree]:
    """What `dump` has written."""
    return [StoredTree.model_validate_json(line) for file in files for line in file.read_bytes().splitlines()]


def main() -> None:
    """Write the file, and say how many trees are in it."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path, help="data folder of a local stack that is not running")
    parser.add_argument("out", type=Path)
    parser.add_argument("--results", type=Path, help="a result file of searches in that folder")
    parser.add_argument(
        "--early-stop", action="store_true", help="the trees as they were when they might have ended"
    )
    options = parser.parse_args()
    count = asyncio.run(dump(options.folder, options.out, options.results, early_stop=options.early_stop))
    print(f"{count} trees in {options.out}")


if __name__ == "__main__":
    main()
