"""Routes of rounds and models, which the trainer has: these, and no others, are passed on to it. For the scope admin.

What they mean is said by the trainer's own document; parameters are checked here by the same types.
"""

from typing import Annotated, Any
from uuid import UUID

from fastapi import APIRouter, Path, Query, Request
from fastapi.responses import Response

from ratchet.contracts.calibration import CalibrationList
from ratchet.contracts.evaluations import CompareEvaluations, EvaluationComparison
from ratchet.contracts.rounds import (
    Overrule,
    ProblemId,
    Quarantined,
    QuarantineList,
    RoundList,
    RoundRetry,
    RoundView,
    RunName,
)
from ratchet.contracts.serving import MODEL_VERSION
from ratchet.contracts.strategies import StrategyChoices
from ratchet.contracts.trainer import (
    Lineage,
    ModelKind,
    ModelList,
    ModelView,
    PairList,
    Rollback,
    ServingPair,
)
from ratchet.states import ModelState
from ratchet.web.unavailable import problems
from services.search.trainer import ToTrainer

_AWAY: dict[int | str, dict[str, Any]] = problems(
    _422="The request is not valid; `errors` names the fields.",
    _502="The trainer failed, or does not know the caller.",
    _503="The trainer or the database is away; `Retry-After` says when to come back.",
)
_ROUND = problems(
    _404="There is no such round.", _409="The round's state, or its version, does not allow it."
)
_MODEL = problems(_404="There is no such version.")
_CHANGE = problems(_409="What serves now does not allow it.")

router = APIRouter(tags=["rounds and models"], responses=_AWAY)

AS_IT_WAS = RoundRetry()
WITHOUT_REASON = Overrule()
RoundId = Annotated[UUID, Path(description="Id of the round.")]
Version = Annotated[str, Path(pattern=MODEL_VERSION, description="Version; it may contain slashes.")]
Limit = Annotated[int, Query(ge=1, le=1000)]


@router.get("/rounds", summary="Self-evolution rounds", response_model=RoundList)
async def rounds(
    request: Request,
    to: ToTrainer,
    run: Annotated[RunName | None, Query(description="Only those of this run.")] = None,
    limit: Limit = 100,
) -> Response:
    """The newest first, with what they measured."""
    return await to.pass_on(request, RoundList)


@router.get("/rounds/{round_id}", summary="One round", response_model=RoundView, responses=_ROUND)
async def one_round(round_id: RoundId, request: Request, to: ToTrainer) -> Response:
    """Its state, configuration, progress, and what it measured."""
    return await to.pass_on(request, RoundView)


@router.get(
    "/rounds/{round_id}/quarantine",
    summary="Problems that a round has set aside",
    response_model=QuarantineList,
    responses=_ROUND,
)
async def quarantine(round_id: RoundId, request: Request, to: ToTrainer) -> Response:
    """With what speaks against their reference answers, and the searches that found it."""
    return await to.pass_on(request, QuarantineList)


@router.get(
    "/runs/{run}/quarantine",
    summary="Problems that a run has set aside",
    response_model=QuarantineList,
    responses=problems(_404="There is no such run."),
)
async def quarantine_of_run(run: RunName, request: Request, to: ToTrainer) -> Response:
    """No training of the run reads them, except those that were overruled."""
    return await to.pass_on(request, QuarantineList)


@router.post(
    "/runs/{run}/quarantine/{problem}/overrule",
    summary="Trust the reference answer of a problem that was set aside",
    response_model=Quarantined,
    responses=problems(_404="The run has set no such problem aside."),
)
async def overrule(
    run: RunName, problem: ProblemId, request: Request, to: ToTrainer, body: Overrule = WITHOUT_REASON
) -> Response:
    """The run trains on it again from its next training on."""
    return await to.pass_on(request, Quarantined, body)


@router.post("/rounds/{round_id}/pause", summary="Pause a round", response_model=RoundView, responses=_ROUND)
async def pause(round_id: RoundId, request: Request, to: ToTrainer) -> Response:
    """Its stage stops within a second or so."""
    return await to.pass_on(request, RoundView)


@router.post(
    "/rounds/{round_id}/resume", summary="Resume a round", response_model=RoundView, responses=_ROUND
)
async def resume(round_id: RoundId, request: Request, to: ToTrainer) -> Response:
    """Go on with the stage in which it was paused."""
    return await to.pass_on(request, RoundView)


@router.post(
    "/rounds/{round_id}/cancel", summary="Cancel a round", response_model=RoundView, responses=_ROUND
)
async def cancel(round_id: RoundId, request: Request, to: ToTrainer) -> Response:
    """End it as failed; what it has gathered stays."""
    return await to.pass_on(request, RoundView)


@router.post(
    "/rounds/{round_id}/retry", summary="Retry a failed round", response_model=RoundView, responses=_ROUND
)
async def retry(round_id: RoundId, request: Request, to: ToTrainer, body: RoundRetry = AS_IT_WAS) -> Response:
    """Go on with the stage that failed, or was cancelled."""
    return await to.pass_on(request, RoundView, body)


@router.post(
    "/evaluations/compare",
    summary="Compare two evaluations problem by problem",
    response_model=EvaluationComparison,
    responses=_ROUND,
)
async def compare_evaluations(body: CompareEvaluations, request: Request, to: ToTrainer) -> Response:
    """The paired test of two evaluations, of rounds or of the files of `ratchet eval`."""
    return await to.pass_on(request, EvaluationComparison, body)


@router.get("/pairs", summary="Pairs that were made to serve", response_model=PairList)
async def pairs(request: Request, to: ToTrainer, limit: Limit = 100) -> Response:
    """The newest first: that one serves."""
    return await to.pass_on(request, PairList)


@router.post(
    "/pairs/rollback",
    summary="Go back to the pair that served before",
    response_model=ServingPair,
    responses=_CHANGE,
)
async def rollback(body: Rollback, request: Request, to: ToTrainer) -> Response:
    """Serve the policy and the PRM again that served before the pair that is left."""
    return await to.pass_on(request, ServingPair, body)


@router.get("/models", summary="Model versions", response_model=ModelList)
async def models(
    request: Request,
    to: ToTrainer,
    kind: Annotated[ModelKind | None, Query(description="Only these.")] = None,
    state: Annotated[ModelState | None, Query(description="Only those in this state.")] = None,
    limit: Limit = 100,
) -> Response:
    """The newest first."""
    return await to.pass_on(request, ModelList)


# Before the version itself, which may have slashes in it.
@router.get(
    "/models/{version:path}/lineage",
    summary="Where a version comes from",
    response_model=Lineage,
    responses=_MODEL,
)
async def lineage(version: Version, request: Request, to: ToTrainer) -> Response:
    """The version, those that it was trained from down to the base, and the data sets of each."""
    return await to.pass_on(request, Lineage)


@router.get("/models/{version:path}", summary="One model version", response_model=ModelView, responses=_MODEL)
async def model(version: Version, request: Request, to: ToTrainer) -> Response:
    """What it is, where it is, what it came from, and how it measured."""
    return await to.pass_on(request, ModelView)


@router.post(
    "/models/{version:path}/serve",
    summary="Promote a version",
    response_model=ServingPair,
    responses={**_MODEL, **_CHANGE},
)
async def promote(version: Version, request: Request, to: ToTrainer) -> Response:
    """Serve it from now on; the answer names the pair."""
    return await to.pass_on(request, ServingPair)


@router.get(
    "/calibrations", summary="How probable answers are, by policy and PRM", response_model=CalibrationList
)
async def calibrations(request: Request, to: ToTrainer) -> Response:
    """Each with its reliability diagram."""
    return await to.pass_on(request, CalibrationList)


@router.get(
    "/strategies", summary="Which strategy measured best, by policy and PRM", response_model=StrategyChoices
)
async def strategies(request: Request, to: ToTrainer) -> Response:
    """The newest first."""
    return await to.pass_on(request, StrategyChoices)
