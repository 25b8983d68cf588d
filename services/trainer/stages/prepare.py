"""First stage: which problems, from which models. All that a round needs is checked before any work is put into it."""

import asyncio
from itertools import combinations
from pathlib import Path

import structlog

from ratchet.contracts.round_metrics import ProblemCounts, RoundMetrics, SplitCounts, StartModels
from ratchet.contracts.rounds import ProblemSource, RoundConfig
from ratchet.problems import Problem, ProblemFileError, confined, find_overlaps, load, sample
from ratchet.problems.contamination import SAME_PROBLEM
from services.trainer.holding import hold_pairs
from services.trainer.pairs import Pair
from services.trainer.stages.context import Context, RoundFailedError

log = structlog.get_logger()

SPLITS = ("train", "development", "held_out")


async def prepare(context: Context) -> RoundMetrics:
    """Load and store the problems, find the models to start from, and have the services hold these."""
    models = await incumbents(context)
    loaded = await asyncio.to_thread(load_problems, context.claim.config, context.settings.problems_dir)
    ledger = await context.rounds.quarantined(run=context.claim.run)
    aside = {each.problem for each in ledger if each.overruled_at is None}
    counts: dict[str, SplitCounts] = {}
    for split in SPLITS:
        problems, refused = loaded[split]
        kept = [problem for problem in problems if split != "train" or problem.text not in aside]
        await context.rounds.add_problems(context.claim, split, kept)
        counts[split] = SplitCounts(problems=len(kept), refused=refused, set_aside=len(problems) - len(kept))
    return RoundMetrics(models=models, problems=ProblemCounts(**counts))


def load_problems(config: RoundConfig, folder: Path | None) -> dict[str, tuple[list[Problem], int]]:
    """Problems by split, and how many were refused as not verifiable; files are those below `folder`.

    Raises RoundFailedError, whose message quotes nothing that a file holds.
    """
    found: dict[str, tuple[list[Problem], int]] = {}
    for split in SPLITS:
        source: ProblemSource = getattr(config, split)
        try:
            held = load(confined(source.spec, folder)).require_any()
        except ProblemFileError as error:
            raise RoundFailedError(f"The problems of {split} cannot be used. {error.told}") from error
        except OSError as error:
            raise RoundFailedError(
                f"The problems of {split} cannot be used. {error.strerror or error}"
            ) from error
        chosen = sample(held.problems, seed=config.seed, offset=source.offset, limit=source.count)
        if len(chosen) < source.count:
            raise RoundFailedError(
                f"{split} asks for {source.count} problems from {source.offset} on; {source.spec} has only "
                f"{len(held.problems)} that can be verified ({len(held.refused)} were refused)."
            )
        found[split] = chosen, len(held.refused)
    for one, other in combinations(SPLITS, 2):
        # What was chosen on development problems would be measured on the same ones.
        overlaps = find_overlaps(found[one][0], found[other][0], threshold=SAME_PROBLEM)
        if overlaps:
            worst = overlaps[0]
            raise RoundFailedError(
                f"{len(overlaps)} problems of {other} are also in {one}, {worst.share:.0%} of the first one's words: "
                f"{worst.evaluation.source} and {worst.train.source}. Use disjoint problems."
            )
    return found


async def incumbents(context: Context) -> StartModels:
    """Versions of the pair that serves, and of the base that training starts from. The services are made to hold them."""
    pair = await context.pairs.current()
    lineage = None if pair is None else await context.registry.lineage(pair.policy)
    if pair is None or lineage is None:
        raise RoundFailedError("No policy serves yet. Start the policy service, and look at GET /pairs.")
    policy, base = lineage.versions[0].model, lineage.versions[-1].model
    await hold_pairs(context.serving, [Pair(base.version, pair.prm), Pair(policy.version, pair.prm)])
    return StartModels(
        base=base.version, base_uri=base.uri, policy=policy.version, policy_uri=policy.uri, prm=pair.prm
    )
