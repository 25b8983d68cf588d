"""From a grown tree to one answer and what stands behind it.

The programs of the leading answers are re-executed from nothing in a clean jail; what they print there is what counts.
With a reference answer the verifier alone compares with it. Without one, an answer is `agreement` when enough programs that
differ in more than names give it again and no other answer has more PRM score behind it; one such program is `execution`.
"""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from ratchet import __version__
from ratchet.clients import SandboxClient
from ratchet.contracts.sandbox import RunStatus, RunStepsRequest, StepStatus
from ratchet.contracts.search import Proof, StepView, Verification, VerificationLevel
from ratchet.solutions.answers import same_answer
from ratchet.solutions.programs import fingerprint, program_of
from ratchet.solutions.proof import REEXECUTION_SEED, final_answer, proof_program, sealed
from ratchet.states import SearchState
from ratchet.store.search_results import SearchOutcome
from services.search.confidence import confidence
from services.search.interpreter import STEP_MEMORY_MB, STEP_SECONDS, SandboxFailedError
from services.search.run import Search
from services.search.votes import Group, Trajectory, tally

MAX_GROUPS = 4
"""Answers that are tried, the leading one first, until one stands."""
MAX_PROGRAMS = 8
"""Programs of one answer that are re-executed: enough for any agreement, and bounded."""

_STRENGTH = [
    VerificationLevel.NONE,
    VerificationLevel.EXECUTION,
    VerificationLevel.AGREEMENT,
    VerificationLevel.REFERENCE,
]


@dataclass(frozen=True, slots=True)
class _ConfirmedProgram:
    """A trajectory whose program gave its answer again, and what each step printed then."""

    trajectory: Trajectory
    stdout: tuple[str, ...]


async def conclude(
    search: Search, sandbox: SandboxClient, search_id: str, created_at: datetime, reason: str
) -> tuple[SearchState, SearchOutcome]:
    """Choose and verify the answer of a search that has stopped growing for `reason`; its end state and outcome."""
    groups = tally(search.tree, search.strategy())
    if search.reference is not None:
        groups = await _with_reference_first(groups, sandbox, search.reference)
    # One program is enough for what `execution` asks; for an agreement all that may agree are tried.
    most = 1 if search.request.require is VerificationLevel.EXECUTION else MAX_PROGRAMS
    chosen, confirmed = await _first_that_stands(groups, sandbox, most)
    cancelled = search.stop.is_set()
    if chosen is None:
        state = SearchState.CANCELLED if cancelled else SearchState.BUDGET_EXHAUSTED
        return state, SearchOutcome(usage=search.usage, models=search.models, reason=reason)
    verification = await _verification(search, sandbox, groups, chosen, confirmed)
    best = confirmed[0].trajectory if confirmed else chosen.trajectories[0]
    needed = VerificationLevel.REFERENCE if search.reference is not None else search.request.require
    solved = _STRENGTH.index(verification.level) >= _STRENGTH.index(needed)
    found = SearchState.SOLVED_VERIFIED if solved else SearchState.ANSWERED_UNVERIFIED
    state = SearchState.CANCELLED if cancelled else found
    proof = None
    if confirmed:
        versions = await sandbox.versions()
        proof = _proof(search, search_id, created_at, chosen.answer, verification, confirmed, versions)
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


async def _with_reference_first(groups: list[Group], sandbox: SandboxClient, reference: str) -> list[Group]:
    """Answers that equal the reference first: where the right answer is known, it is the one to be verified."""
    equal = await asyncio.gather(*(same_answer(sandbox, group.answer, reference) for group in groups))
    return [group for group, same in zip(groups, equal, strict=True) if same] + [
        group for group, same in zip(groups, equal, strict=True) if not same
    ]


async def _first_that_stands(
    groups: Sequence[Group], sandbox: SandboxClient, most: int
) -> tuple[Group | None, list[_ConfirmedProgram]]:
    """The first answer that at least one program gives again; where there is none, the leading answer, unconfirmed."""
    for group in groups[:MAX_GROUPS]:
        confirmed = await _confirm(group, sandbox, most)
        if confirmed:
            return group, confirmed
    return (groups[0] if groups else None), []


async def _confirm(group: Group, sandbox: SandboxClient, most: int) -> list[_ConfirmedProgram]:
    """Re-execute at most so many of the group's programs, one for each fingerprint, in a clean jail; those that stood."""
    distinct: dict[str, Trajectory] = {}
    for trajectory in group.trajectories:
        distinct.setdefault(fingerprint(program_of(trajectory.texts)), trajectory)
    chosen = list(distinct.values())[:most]
    outputs = await asyncio.gather(*(_reexecute(trajectory, sandbox) for trajectory in chosen))
    found: list[_ConfirmedProgram] = []
    for trajectory, stdout in zip(chosen, outputs, strict=True):
        answer = final_answer(stdout) if stdout is not None else None
        if stdout is not None and answer is not None and await same_answer(sandbox, answer, group.answer):
            found.append(_ConfirmedProgram(trajectory, stdout))
    return found


async def _reexecute(trajectory: Trajectory, sandbox: SandboxClient) -> tuple[str, ...] | None:
    """What each step prints when the program runs from nothing; None when a step does not run."""
    response = await sandbox.run_steps(
        RunStepsRequest(
            steps=trajectory.texts,
            run_timeout=STEP_SECONDS,
            memory_limit_MB=STEP_MEMORY_MB,
            seed=REEXECUTION_SEED,
        )
    )
    if response.status is RunStatus.SANDBOX_ERROR:
        raise SandboxFailedError(response.message)
    if any(step.status is not StepStatus.OK for step in response.steps):
        return None
    return tuple(step.stdout for step in response.steps)


async def _verification(
    search: Search,
    sandbox: SandboxClient,
    groups: Sequence[Group],
    chosen: Group,
    confirmed: Sequence[_ConfirmedProgram],
) -> Verification:
    prm_stands_behind = all(chosen.prm_share >= group.prm_share for group in groups)
    level = VerificationLevel.NONE
    if confirmed:
        level = VerificationLevel.EXECUTION
        if len(confirmed) >= search.request.parameters.min_agreement and prm_stands_behind:
            level = VerificationLevel.AGREEMENT
        if search.reference is not None and await same_answer(sandbox, chosen.answer, search.reference):
            level = VerificationLevel.REFERENCE
    return Verification(
        level=level,
        votes=chosen.votes,
        total_votes=sum(group.votes for group in groups),
        distinct_programs=len(confirmed),
        prm_share=min(1.0, chosen.prm_share),
        confidence=confidence(level, chosen, groups, len(confirmed)),
    )


def _proof(
    search: Search,
    search_id: str,
    created_at: datetime,
    answer: str,
    verification: Verification,
    confirmed: Sequence[_ConfirmedProgram],
    versions: dict[str, str],
) -> Proof:
    return sealed(
        Proof(
            search=search_id,
            problem=search.request.problem,
            answer=answer,
            verification=verification,
            programs=[proof_program(each.trajectory.texts, each.stdout) for each in confirmed],
            seed=search.request.seed,
            strategy=search.request.strategy,
            parameters=search.request.parameters,
            models=search.models,
            versions={"ratchet": __version__, **versions},
            usage=search.usage,
            created_at=created_at if created_at.tzinfo else datetime.now(UTC),
            sha256="",
        )
    )
