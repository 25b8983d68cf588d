"""From a grown tree to one answer and what stands behind it.

The programs of the leading answers are re-executed from nothing in a clean jail; what they print there is what counts. A
program stands for its answer only if the answer depends on what the problem states (`grounding.py`). With a reference answer
the verifier alone compares with it. Without one, an answer is `agreement` when programs of one behaviour were found
independently often enough, at least half of all votes are for it, and no other answer has more PRM score behind it; one
grounded program is `execution`. Where the problem states no quantity, groundedness cannot be told, and is not asked for.

An answer is solved when it has the level that was asked for, and where policy and PRM are calibrated the probability too. Where
none was asked for, the leading answer is given as it is.

Which answer is chosen does not depend on groundedness: a vote of grounded programs alone was measured to be no better.
"""

import asyncio
from collections.abc import Sequence
from datetime import UTC, datetime

from ratchet import __version__
from ratchet.clients import SandboxClient
from ratchet.contracts.search import Proof, ProofBeginning, StepView, Verification, VerificationLevel
from ratchet.solutions.answers import same_answer
from ratchet.solutions.counterfactual import Variant, make_variants
from ratchet.solutions.independence import free_draws
from ratchet.solutions.programs import program_of
from ratchet.solutions.proof import proof_program, proof_quantities, proof_variants, sealed
from ratchet.states import NodeState, SearchState
from ratchet.store.search_results import SearchOutcome
from services.search.grounding import Evidence, gather_evidence
from services.search.search import Search, is_sampled
from services.search.votes import Group, has_half, tally

MAX_GROUPS = 4
"""Answers that are tried, the leading one first, until a program gives one again."""

_STRENGTH = [
    VerificationLevel.NONE,
    VerificationLevel.EXECUTION,
    VerificationLevel.AGREEMENT,
    VerificationLevel.REFERENCE,
]


async def conclude(
    search: Search, sandbox: SandboxClient, search_id: str, created_at: datetime, reason: str
) -> tuple[SearchState, SearchOutcome]:
    """Choose and verify the answer of a search that has stopped growing for `reason`; its end state and outcome."""
    await search.learn_calibration()
    groups = tally(search.tree, search.request.strategy, search.calibration)
    if search.reference is not None:
        groups = await _with_reference_first(groups, sandbox, search.reference)
    needed = VerificationLevel.REFERENCE if search.reference is not None else search.request.require
    if needed is VerificationLevel.NONE:
        chosen, evidence = (groups[0] if groups else None), Evidence()
    else:
        variants = make_variants(search.request.problem)
        chosen, evidence = await _first_confirmed(search, groups, variants, sandbox)
    cancelled = search.stop.is_set()
    if chosen is None:
        state = SearchState.CANCELLED if cancelled else SearchState.BUDGET_EXHAUSTED
        return state, SearchOutcome(usage=search.usage, models=search.models, reason=reason)
    verification = await _verification(search, sandbox, groups, chosen, evidence)
    best = evidence.programs[0].best if evidence.programs else chosen.trajectories[0]
    missing = _missing_confidence(verification)
    if verification.level is not VerificationLevel.NONE and (
        _STRENGTH.index(verification.level) >= _STRENGTH.index(needed)
    ):
        found = SearchState.ANSWERED_UNVERIFIED if missing else SearchState.SOLVED_VERIFIED
        reason += missing
    else:
        found = SearchState.ANSWERED_UNVERIFIED
    state = SearchState.CANCELLED if cancelled else found
    proof = None
    if verification.level is not VerificationLevel.NONE:
        versions = await sandbox.versions()
        proof = _proof(search, search_id, created_at, chosen.answer, verification, evidence, versions)
    return state, SearchOutcome(
        answer=chosen.answer,
        program=program_of(best.texts),
        steps=[StepView(text=node.text, stdout=node.stdout, prm_score=node.prm_score) for node in best.steps],
        verification=verification,
        usage=search.usage,
        models=search.models,
        reason=reason,
        proof=proof.model_dump(mode="json") if proof else None,
    )


def _missing_confidence(verification: Verification) -> str:
    """What the probability lacks of what was asked for, in words that follow the reason of the end; empty: nothing."""
    asked, stated = verification.min_confidence, verification.confidence
    if asked is None or (stated is not None and stated >= asked):
        return ""
    if stated is None:
        return f"; a probability of at least {asked:g} was asked for, and these models are not calibrated"
    # Rounded down, so that what is written is never what was asked for.
    return (
        f"; its probability of being right is {int(stated * 1000) / 1000:g}, and {asked:g} counts as solved"
    )


async def _with_reference_first(groups: list[Group], sandbox: SandboxClient, reference: str) -> list[Group]:
    """Answers that equal the reference first: where the right answer is known, it is the one to be verified."""
    equal = await asyncio.gather(*(same_answer(sandbox, group.answer, reference) for group in groups))
    return [group for group, same in zip(groups, equal, strict=True) if same] + [
        group for group, same in zip(groups, equal, strict=True) if not same
    ]


async def _first_confirmed(
    search: Search, groups: Sequence[Group], variants: Sequence[Variant], sandbox: SandboxClient
) -> tuple[Group | None, Evidence]:
    """The first answer that a program gives again, and the evidence for it; where there is none, the leading answer."""
    draws = free_draws(search.tree.nodes.values(), sampled=is_sampled(search.request))
    if search.tree.top.state is NodeState.TERMINAL:
        # All of the solution was given: nobody has found it.
        draws = dict.fromkeys(draws, 0)
    for group in groups[:MAX_GROUPS]:
        # For an agreement all programs that may agree are tried.
        one_is_enough = search.request.require is VerificationLevel.EXECUTION or await _equals_reference(
            search, group, sandbox
        )
        evidence = await gather_evidence(group, variants, sandbox, draws, one_is_enough=one_is_enough)
        if evidence.programs:
            return group, evidence
    return (groups[0] if groups else None), Evidence()


async def _equals_reference(search: Search, group: Group, sandbox: SandboxClient) -> bool:
    return search.reference is not None and await same_answer(sandbox, group.answer, search.reference)


async def _verification(
    search: Search,
    sandbox: SandboxClient,
    groups: Sequence[Group],
    chosen: Group,
    evidence: Evidence,
) -> Verification:
    level = await _level(search, sandbox, groups, chosen, evidence)
    return Verification(
        level=level,
        votes=chosen.votes,
        total_votes=sum(group.votes for group in groups),
        independent_programs=evidence.independent_programs,
        forms=evidence.forms,
        grounded=evidence.grounded,
        prm_share=min(1.0, chosen.prm_share),
        confidence=1.0 if level is VerificationLevel.REFERENCE else chosen.probability,
        min_confidence=search.min_confidence,
    )


async def _level(
    search: Search, sandbox: SandboxClient, groups: Sequence[Group], chosen: Group, evidence: Evidence
) -> VerificationLevel:
    if not evidence.programs:
        return VerificationLevel.NONE
    # What is known to be right needs no other sign; whether it was computed is told beside it.
    if await _equals_reference(search, chosen, sandbox):
        return VerificationLevel.REFERENCE
    if evidence.grounded is False:
        return VerificationLevel.NONE
    prm_stands_behind = all(chosen.prm_share >= group.prm_share for group in groups)
    agreed = evidence.independent_programs >= search.request.parameters.min_agreement
    if agreed and prm_stands_behind and has_half(groups, chosen):
        return VerificationLevel.AGREEMENT
    return VerificationLevel.EXECUTION


def _given(search: Search) -> ProofBeginning | None:
    """What a person had to do with it."""
    given = search.beginning
    if given is None or not given.alters:
        return None
    return ProofBeginning(
        search=given.parent.search, steps=given.steps, edited=given.edited, forbidden=given.forbidden
    )


def _proof(
    search: Search,
    search_id: str,
    created_at: datetime,
    answer: str,
    verification: Verification,
    evidence: Evidence,
    versions: dict[str, str],
) -> Proof:
    return sealed(
        Proof(
            search=search_id,
            problem=search.request.problem,
            answer=answer,
            verification=verification,
            quantities=proof_quantities(search.request.problem),
            variants=proof_variants(evidence.variants),
            programs=[
                proof_program(each.best.texts, each.stdout, found, each.behaviour.answers)
                for each, found in zip(evidence.programs, evidence.found, strict=True)
            ],
            seed=search.request.seed,
            strategy=search.request.strategy,
            parameters=search.request.parameters,
            models=search.models,
            beginning=_given(search),
            versions={"ratchet": __version__, **versions},
            usage=search.usage,
            created_at=created_at if created_at.tzinfo else datetime.now(UTC),
            sha256="",
        )
    )
