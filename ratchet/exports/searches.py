"""The data of finished searches that no round began: verified answers, and the trees of those with a reference answer.

Searches of `ratchet eval` and of the evaluators are left out: they measure models.

Limit: without a reference answer nobody knows which ends of a tree are right, so such a search gives its verified solution
alone, and no pair, label or wrong solution.
"""

import asyncio
from pathlib import Path

import orjson

from ratchet.contracts.search import VerificationLevel
from ratchet.contracts.training import PrmTraining
from ratchet.exports.answers import answer_row
from ratchet.exports.gathering import EVALUATION_STAYS, About, Asked, Gathering, Model, Source
from ratchet.exports.kinds import Kind
from ratchet.exports.rounds import Stores, sha256_of
from ratchet.exports.withheld import withheld
from ratchet.exports.writers import Writers
from ratchet.problems import problem_id
from ratchet.solutions.preferences import Tree
from ratchet.store.exported import VerifiedAnswer
from ratchet.store.labelled_trees import labelled_nodes

_STRONGEST_FIRST = tuple(VerificationLevel)


async def export_searches(
    stores: Stores,
    asked: Asked,
    writers: Writers,
    proofs: Path | None,
    *,
    level: VerificationLevel,
    min_confidence: float | None,
) -> tuple[About, Gathering]:
    """Write the rows of the searches whose answers are verified at `level` or better. Raises StoreUnavailableError."""
    gathering = Gathering(
        asked,
        writers,
        withheld(
            await stores.exported.lone_problems(),
            ledger=await stores.exported.ledger(),
            evaluation=await stores.exported.measured_on(),
            excluded=asked.excluded,
        ),
    )
    models: dict[tuple[str, str], None] = {}
    async for page in stores.exported.lone_searches():
        for answer in page:
            if not _is_good_enough(answer, level, min_confidence):
                continue
            row = answer_row(answer)
            if not gathering.answer(row):
                continue
            models |= dict.fromkeys(answer.models.items())
            gathering.solution({"id": row["problem_id"], "problem": answer.problem, "steps": answer.steps})
            if proofs is not None and answer.proof is not None:
                (proofs / f"{answer.search}.json").write_bytes(orjson.dumps(answer.proof))
        await asyncio.sleep(0)
    if asked.kinds & {Kind.PREFERENCE, Kind.STEPWISE, Kind.KTO}:
        await _trees(stores, gathering)
    about = About(
        title="Ratchet searches",
        origin=["What finished searches found that no round and no evaluation began."],
        models=[
            Model(f"searched with: {part}", version, await sha256_of(stores.registry, version))
            for part, version in sorted(models)
        ],
        sources=[Source("the requests of those who searched", len(gathering.problems), None)],
        filters=[
            f"Solutions and answers: verified, at the level `{level}` or a stronger one"
            + ("." if min_confidence is None else f", with a probability of at least {min_confidence:g}."),
            "Pairs, steps and wrong solutions: of searches with a reference answer alone.",
            "Searches that measured a model (`ratchet eval`, the evaluators) are left out.",
            EVALUATION_STAYS,
            "Problems that any run has set aside are left out.",
        ],
    )
    return about, gathering


def _is_good_enough(answer: VerifiedAnswer, level: VerificationLevel, min_confidence: float | None) -> bool:
    strong = _STRONGEST_FIRST.index(answer.level) <= _STRONGEST_FIRST.index(level)
    return strong and (min_confidence is None or (answer.probability or 0.0) >= min_confidence)


async def _trees(stores: Stores, gathering: Gathering) -> None:
    rules = PrmTraining()
    async for _, problem, reference, nodes in stores.exported.graded_trees():
        tree = Tree.model_validate(
            {
                "problem_id": problem_id(problem, reference),
                "problem": problem,
                "round": 0,
                "nodes": labelled_nodes(nodes),
            }
        )
        gathering.tree(tree, margin=rules.margin, edit_distance=rules.edit_distance)
        # A tree takes a moment, and a person may want to interrupt.
        await asyncio.sleep(0)
