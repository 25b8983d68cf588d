"""Routes of calibrations: how probable the answers of a policy with its PRM are, and making one from searches that are over."""

import asyncio
from http import HTTPStatus
from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Body, Depends, Request

from ratchet.clients import SandboxClient, SandboxFailedError, ServiceError
from ratchet.contracts.calibration import AnswerCalibration, CalibrationList, CalibrationRequest
from ratchet.solutions.calibration import CalibrationError, calibrate
from ratchet.store.calibrations import CalibrationStore
from ratchet.web.app import ProblemError, invalid
from ratchet.web.unavailable import UNAVAILABLE, problems
from services.trainer.labelled_votes import UnfitSearchError, read_labelled

router = APIRouter(tags=["models"])

_EXAMPLES = {
    "two searches": {
        "summary": "Searches that are over, with the right answers of their problems",
        "value": {
            "searches": [
                {"search": "0198f1d2-7c1e-7b43-9d55-0d1a5b7f3c11", "reference_answer": "37"},
                {"search": "0198f1d2-7c1e-7b43-9d55-0d1a5b7f3c12", "reference_answer": "65"},
            ],
            "source": "gsm8k_train.jsonl, 200 problems",
        },
    }
}


async def calibration_store(request: Request) -> CalibrationStore:
    """The app's store of calibrations."""
    store: CalibrationStore = request.app.state.calibrations
    return store


async def grading_sandbox(request: Request) -> SandboxClient:
    """The sandbox that compares answers."""
    sandbox: SandboxClient = request.app.state.sandbox
    return sandbox


Calibrations = Annotated[CalibrationStore, Depends(calibration_store)]
Sandbox = Annotated[SandboxClient, Depends(grading_sandbox)]


@router.get("/calibrations", summary="How probable answers are, by policy and PRM", responses=UNAVAILABLE)
async def calibrations(store: Calibrations) -> CalibrationList:
    """Each with its reliability diagram. Those made here first, the newest first; then the packaged ones."""
    return CalibrationList(calibrations=await store.all())


@router.post(
    "/calibrations",
    summary="Calibrate a policy with its PRM",
    status_code=201,
    response_description="Fitted and stored; searches use it within a minute.",
    responses={
        **problems(
            _422="The request is not valid, a search is not over or knew its answer, there are several pairs of models among "
            "them, or too little to learn from; `errors` names the fields.",
        ),
        **UNAVAILABLE,
    },
)
async def create(
    body: Annotated[CalibrationRequest, Body(openapi_examples=_EXAMPLES)],
    store: Calibrations,
    sandbox: Sandbox,
) -> AnswerCalibration:
    """Fit the probability of answers to searches that are over; an earlier calibration of the pair is replaced.

    The answers of their trees are compared with the references here. No search may have known its reference answer.
    """
    references: dict[UUID, str] = {}
    for place, labelled in enumerate(body.searches):
        try:
            references[UUID(labelled.search)] = labelled.reference_answer
        except ValueError:
            raise invalid(f"searches.{place}.search", "This is no id of a search.") from None
    try:
        found = await read_labelled(store, sandbox, references)
        calibration = await asyncio.to_thread(
            calibrate, found.policy, found.prm, found.votes, body.source, early_stop=found.early_stop
        )
    except (UnfitSearchError, CalibrationError) as error:
        raise invalid("searches", str(error)) from error
    except (ServiceError, SandboxFailedError) as error:
        raise ProblemError(
            HTTPStatus.SERVICE_UNAVAILABLE, f"The sandbox cannot compare the answers: {error}"
        ) from error
    await store.put(calibration)
    return calibration
