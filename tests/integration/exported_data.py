"""Rounds and searches for tests of exports: what they leave in a real Postgres, and in the files of a round."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import uuid4

import orjson
from sqlalchemy.ext.asyncio import AsyncEngine

from ratchet.contracts.round_metrics import DatasetCard, RoundMetrics
from ratchet.contracts.rounds import Disagreement
from ratchet.contracts.search import SearchRequest, StepView, Usage, Verification, VerificationLevel
from ratchet.problems import problem_id
from ratchet.states import NodeState, RoundState, SearchState
from ratchet.store.nodes import NodeRecord
from ratchet.store.round_searches import RoundSearchStore
from ratchet.store.rounds import RoundStore
from ratchet.store.search_results import SearchOutcome
from ratchet.store.searches import SearchStore
from services.trainer.selection import tree_line
from tests.integration.round_claims import begin, claim_round, problems, requests

WHY = Disagreement(answer="41", programs=3, prm_score=0.9)
RIGHT, WRONG = ["a = 40", "print(a + 2)"], ["a = 40", "# one of them is overlooked\nprint(a + 1)"]


def a_tree() -> list[NodeRecord]:
    """Two solutions with the same first step: one of two rollouts ended right."""

    def node(name: str, parent: str | None, ordinal: int, depth: int, **fields: Any) -> NodeRecord:
        state = NodeState.TERMINAL if fields.get("answer") else NodeState.OPEN
        return NodeRecord(name, parent, ordinal, depth, state, f"t{ordinal}", **fields)

    return [
        node("n", None, 0, 0, visits=2),
        node("n.0", "n", 1, 1, text=RIGHT[0], visits=2, value_sum=0.0),
        node("n.0.0", "n.0", 2, 2, text=RIGHT[1], visits=1, value_sum=1.0, answer="42"),
        node("n.0.1", "n.0", 3, 2, text=WRONG[1], visits=1, value_sum=-1.0, answer="41"),
    ]


def verified(
    level: VerificationLevel = VerificationLevel.REFERENCE, probability: float = 1.0
) -> SearchOutcome:
    return SearchOutcome(
        answer="42",
        program="\n".join(RIGHT),
        steps=[StepView(text=step, stdout="", prm_score=0.5) for step in RIGHT],
        verification=Verification(
            level=level,
            votes=1,
            total_votes=2,
            independent_programs=2,
            forms=1,
            grounded=True,
            prm_share=0.5,
            confidence=probability,
            min_confidence=None,
        ),
        models={"policy": "p@1", "prm": "prm1-likelihood"},
        proof={"format": "ratchet-proof/2", "sha256": "5" * 64},
    )


async def a_search(
    engine: AsyncEngine,
    problem: str,
    *,
    reference: str | None = None,
    key: str | None = None,
    outcome: SearchOutcome | None = None,
) -> str:
    """A search that ended verified; its id."""
    store = SearchStore(engine)
    request = SearchRequest(problem=problem, reference_answer=reference)
    search, _ = await store.create(request, key)
    claim = await store.claim(search, "w", 30.0, 5)
    assert claim is not None
    await store.journal(claim, a_tree(), Usage())
    await store.finish(claim, SearchState.SOLVED_VERIFIED, outcome or verified())
    return str(search)


@dataclass(frozen=True)
class Split:
    """Problems of a round, by their text; all have the answer 42."""

    train: Sequence[str]
    development: Sequence[str] = ()
    held_out: Sequence[str] = ()
    aside: Sequence[str] = ()
    kept_apart: Sequence[str] = ()


async def a_round(
    engine: AsyncEngine, rounds_dir: Path, run: str, split: Split, state: RoundState = RoundState.FAILED
) -> None:
    """A round that was over after its selection, with a verified search of each training problem, and its files."""
    rounds, searches, store = RoundStore(engine), RoundSearchStore(engine), SearchStore(engine)
    await begin(rounds, run)
    claim = await claim_round(rounds)
    for name in ("train", "development", "held_out"):
        await rounds.add_problems(claim, name, problems(*getattr(split, name)))
    await rounds.quarantine(claim, {split.train.index(text): WHY for text in split.aside})
    for planned in await searches.plan(claim, "label", 0, requests(list(split.train))):
        held = await store.claim(planned.id, "w", 30.0, 5)
        assert held is not None
        await store.journal(held, a_tree(), Usage())
        await store.finish(held, SearchState.SOLVED_VERIFIED, verified())
    digest, rows = await _write_files(
        rounds, rounds_dir / run / f"round-{claim.number}", split, claim.id, claim.number
    )
    selection = DatasetCard(
        problems=len(split.train),
        solved=len(split.train),
        selected_problems=rows,
        trajectories_found=rows,
        trajectories_selected=rows,
        quarantined=len(split.aside),
        dropped={},
        coverage={},
        from_earlier_rounds=0,
        trees=len(split.train),
        dataset=uuid4(),
        sha256=digest,
        rows=rows,
    )
    await rounds.advance(claim, state, RoundMetrics(selection=selection), "over")


async def _write_files(
    rounds: RoundStore, folder: Path, split: Split, round_id: Any, number: int
) -> tuple[str, int]:
    """As the round writes them; the digest of its solutions, and how many there are."""
    folder.mkdir(parents=True)
    apart = {problem_id(text, "42") for text in split.kept_apart}
    # A round leaves out what it has set aside itself. What was set aside later is still in its file.
    lines = [
        {"id": problem_id(text, "42"), "problem": text, "steps": RIGHT, "round": number, "weight": 1.0}
        for text in split.train
    ]
    trained = b"".join(orjson.dumps(line) + b"\n" for line in lines if line["id"] not in apart)
    (folder / "sft.jsonl").write_bytes(trained)
    (folder / "validation.jsonl").write_bytes(
        b"".join(orjson.dumps(line) + b"\n" for line in lines if line["id"] in apart)
    )
    (folder / "kept_apart.json").write_bytes(orjson.dumps(sorted(apart)))
    trees = [
        tree_line(problem_id(each.text, "42"), each, number, a_tree())
        for each in await rounds.problems(round_id, "train")
    ]
    (folder / "trees.jsonl").write_bytes(b"".join(orjson.dumps(tree) + b"\n" for tree in trees))
    return hashlib.sha256(trained).hexdigest(), trained.count(b"\n")
