"""Routes of the rounds: begin one, look at it, and steer it. The round machine does the work."""

import asyncio
from http import HTTPStatus
from pathlib import Path as FilePath
from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Body, Depends, Path, Query, Request
from fastapi.responses import Response

from ratchet.contracts.base import FieldError
from ratchet.contracts.rounds import (
    Overrule,
    ProblemId,
    ProblemSource,
    Quarantined,
    QuarantineList,
    RoundConfig,
    RoundList,
    RoundRequest,
    RoundRetry,
    RoundView,
    RunName,
)
from ratchet.problems import ProblemFileError, confined
from ratchet.store.rounds import ConfigInUseError, RoundConflictError, RoundStore
from ratchet.web.app import ProblemError, invalid
from ratchet.web.problems import problem_response
from ratchet.web.unavailable import UNAVAILABLE, problems
from services.trainer.stages.prepare import SPLITS

ROUND_EXAMPLES = {
    "nano": {
        "summary": "A small round on nano's own problems",
        "value": {
            "run": "first",
            "config": {
                "train": {"spec": "nano:train", "count": 300},
                "development": {"spec": "nano:development", "count": 100},
                "held_out": {"spec": "nano:held_out", "count": 200},
                "policy": {"epochs": 3, "lr": 5e-4, "batch_tokens": 2048},
                "prm": {"epochs": 2, "lr": 7e-4, "value_weight": 1.0, "edit_distance": 1},
            },
        },
    }
}

AS_IT_WAS = RoundRetry()
WITHOUT_REASON = Overrule()
_INVALID = problems(_422="The request is not valid; `errors` names the fields.")
_UNKNOWN = problems(_404="There is no such round.", _409="This version cannot read the round.")
_OVER = problems(_404="There is no such round.", _409="The round is over.")

router = APIRouter(tags=["rounds"])


async def round_store(request: Request) -> RoundStore:
    """The app's store of rounds."""
    rounds: RoundStore = request.app.state.rounds
    return rounds


async def problems_folder(request: Request) -> FilePath | None:
    """Where the problem files lie that a round may name."""
    folder: FilePath | None = request.app.state.settings.problems_dir
    return folder


Rounds = Annotated[RoundStore, Depends(round_store)]
ProblemsFolder = Annotated[FilePath | None, Depends(problems_folder)]


@router.post(
    "/rounds",
    summary="Begin the next round of a run",
    status_code=201,
    response_description="Stored; the trainer takes it up.",
    responses={**problems(_409="The run's last round is not over."), **_INVALID, **UNAVAILABLE},
)
async def create(
    body: Annotated[RoundRequest, Body(openapi_examples=ROUND_EXAMPLES)],
    rounds: Rounds,
    folder: ProblemsFolder,
) -> RoundView:
    """Search, select, train a policy and a PRM, evaluate, promote or reject. Follow it at `GET /rounds/{id}`."""
    await _require_files(body.config, folder)
    try:
        return await rounds.create(body)
    except RoundConflictError as error:
        raise ProblemError(HTTPStatus.CONFLICT, str(error)) from error


@router.get("/rounds", summary="Self-evolution rounds", responses={**_INVALID, **UNAVAILABLE})
async def all_rounds(
    rounds: Rounds,
    run: Annotated[RunName | None, Query(description="Only those of this run.")] = None,
    limit: Annotated[int, Query(ge=1, le=1000)] = 100,
) -> RoundList:
    """The newest first."""
    return RoundList(rounds=await rounds.rounds(run, limit))


@router.get(
    "/rounds/{round_id}",
    summary="One round",
    responses={**_UNKNOWN, **_INVALID, **UNAVAILABLE},
)
async def one_round(round_id: UUID, rounds: Rounds) -> RoundView:
    """Its state, configuration, progress, and what it measured."""
    return _or_not_found(await rounds.get(round_id), round_id)


@router.get(
    "/rounds/{round_id}/quarantine",
    summary="Problems that a round has set aside",
    responses={**_UNKNOWN, **_INVALID, **UNAVAILABLE},
)
async def quarantine(round_id: UUID, rounds: Rounds) -> QuarantineList:
    """Their reference answers lost against programs that were found independently and agree on another one."""
    _or_not_found(await rounds.get(round_id), round_id)
    return QuarantineList(problems=await rounds.quarantined(round_id=round_id))


@router.get(
    "/runs/{run}/quarantine",
    summary="Problems that a run has set aside",
    responses={**problems(_404="There is no such run."), **_INVALID, **UNAVAILABLE},
)
async def quarantine_of_run(run: RunName, rounds: Rounds) -> QuarantineList:
    """No training of the run reads them, except those that were overruled."""
    if not await rounds.rounds(run, 1):
        raise ProblemError(HTTPStatus.NOT_FOUND, f"There is no run {run}.")
    return QuarantineList(problems=await rounds.quarantined(run=run))


@router.post(
    "/runs/{run}/quarantine/{problem}/overrule",
    summary="Trust the reference answer of a problem that was set aside",
    responses={**problems(_404="The run has set no such problem aside."), **_INVALID, **UNAVAILABLE},
)
async def overrule(
    run: RunName,
    problem: Annotated[ProblemId, Path(description="The `id` of a problem that the run has set aside.")],
    rounds: Rounds,
    body: Overrule = WITHOUT_REASON,
) -> Quarantined:
    """The run trains on it again from its next training on, and never sets it aside again. Overruling twice changes
    nothing."""
    found = await rounds.overrule(run, problem, body.reason)
    if found is None:
        raise ProblemError(
            HTTPStatus.NOT_FOUND,
            f"The run {run} has set no problem {problem} aside; GET /runs/{run}/quarantine lists those that it has.",
        )
    return found


@router.post(
    "/rounds/{round_id}/pause", summary="Pause a round", responses={**_OVER, **_INVALID, **UNAVAILABLE}
)
async def pause(round_id: UUID, rounds: Rounds) -> RoundView:
    """Its stage stops within a second or so; searches that are under way end by themselves."""
    return await _ask(rounds, round_id, paused=True)


@router.post(
    "/rounds/{round_id}/resume", summary="Resume a round", responses={**_OVER, **_INVALID, **UNAVAILABLE}
)
async def resume(round_id: UUID, rounds: Rounds) -> RoundView:
    """Go on with the stage in which it was paused."""
    return await _ask(rounds, round_id, paused=False)


@router.post(
    "/rounds/{round_id}/cancel", summary="Cancel a round", responses={**_OVER, **_INVALID, **UNAVAILABLE}
)
async def cancel(round_id: UUID, rounds: Rounds) -> RoundView:
    """End it as failed. What it has gathered stays; what is served does not change."""
    return await _ask(rounds, round_id, cancel=True)


@router.post(
    "/rounds/{round_id}/retry",
    summary="Retry a failed round",
    responses={
        **problems(_404="There is no such round.", _409="The round has not failed, or its run has gone on."),
        **_INVALID,
        **UNAVAILABLE,
    },
)
async def retry(
    round_id: UUID,
    rounds: Rounds,
    folder: ProblemsFolder,
    body: RoundRetry = AS_IT_WAS,
) -> RoundView:
    """Go on with the stage that failed, or was cancelled, with all that was gathered before it. The configuration
    may be changed in what no finished stage has worked with."""
    if body.config is not None:
        await _require_files(body.config, folder)
    try:
        return _or_not_found(await rounds.retry(round_id, body.config), round_id)
    except RoundConflictError as error:
        raise ProblemError(HTTPStatus.CONFLICT, str(error)) from error
    except ConfigInUseError as error:
        raise ProblemError(
            HTTPStatus.UNPROCESSABLE_ENTITY,
            str(error),
            errors=[
                FieldError(field=f"config.{part}", message="used by a finished stage") for part in error.parts
            ],
        ) from error


async def _require_files(config: RoundConfig, folder: FilePath | None) -> None:
    """Raise a problem (422) that names the split whose file may not be read."""
    for split in SPLITS:
        source: ProblemSource = getattr(config, split)
        try:
            await asyncio.to_thread(confined, source.spec, folder)
        except ProblemFileError as error:
            raise invalid(f"config.{split}.spec", error.told) from error


async def on_unreadable(request: Request, error: Exception) -> Response:
    """The answer about a round that another version has written, or that is damaged."""
    return problem_response(HTTPStatus.CONFLICT, str(error), request.url.path)


async def _ask(
    rounds: RoundStore, round_id: UUID, *, paused: bool | None = None, cancel: bool = False
) -> RoundView:
    try:
        return _or_not_found(await rounds.ask(round_id, paused=paused, cancel=cancel), round_id)
    except RoundConflictError as error:
        raise ProblemError(HTTPStatus.CONFLICT, str(error)) from error


def _or_not_found(found: RoundView | None, round_id: UUID) -> RoundView:
    if found is None:
        raise ProblemError(HTTPStatus.NOT_FOUND, f"There is no round {round_id}.")
    return found
