"""Routes of evaluations: two of them, of rounds or of the files of `ratchet eval`, and the paired test between them."""

import asyncio
from http import HTTPStatus
from typing import Annotated

from fastapi import APIRouter, Depends, Request

from ratchet.contracts.evaluations import (
    CompareEvaluations,
    EvaluationComparison,
    EvaluationNamed,
    EvaluationOfRound,
)
from ratchet.contracts.round_metrics import Measured, MeasuredPair
from ratchet.contracts.rounds import RoundView
from ratchet.problems import problem_id
from ratchet.store.round_searches import RoundSearchStore
from ratchet.store.rounds import RoundProblem, RoundStore
from ratchet.web.app import ProblemError, invalid
from ratchet.web.unavailable import UNAVAILABLE, problems
from services.trainer.compared import Evaluated, TooLongTestError, compare, outcomes_of
from services.trainer.round_routes import Rounds

router = APIRouter(tags=["rounds"])


async def round_searches(request: Request) -> RoundSearchStore:
    """The app's store of the searches of rounds."""
    store: RoundSearchStore = request.app.state.round_searches
    return store


Searches = Annotated[RoundSearchStore, Depends(round_searches)]


@router.post(
    "/evaluations/compare",
    summary="Compare two evaluations problem by problem",
    responses={
        **problems(
            _404="There is no such round, or it has not measured this.",
            _409="This version cannot read the round.",
            _422="The request is not valid, or the two share no problem; `errors` names the fields.",
        ),
        **UNAVAILABLE,
    },
)
async def compare_evaluations(
    body: CompareEvaluations, rounds: Rounds, searches: Searches
) -> EvaluationComparison:
    """The difference of the accuracies with its interval, the exact paired test, and the problems on which they differ.

    Problems are paired by their ids, so evaluations of rounds and of files can be compared with one another.
    """
    first, second = [
        await _evaluated(each, rounds, searches, field)
        for field, each in (("first", body.first), ("second", body.second))
    ]
    try:
        # Some hundred problems take no time, thousands with several tries some seconds.
        found = await asyncio.to_thread(compare, first, second)
    except TooLongTestError as error:
        raise invalid("second", str(error)) from error
    if found is None:
        raise invalid("second", f"{first.name} and {second.name} have no problem in common.")
    return found


async def _evaluated(
    named: EvaluationNamed, rounds: RoundStore, searches: RoundSearchStore, field: str
) -> Evaluated:
    if named.file is not None:
        file = named.file
        return Evaluated(file.name, file.tries, {each.id: each.right for each in file.problems})
    assert named.round is not None
    return await _of_round(named.round, rounds, searches, field)


async def _of_round(
    named: EvaluationOfRound, rounds: RoundStore, searches: RoundSearchStore, field: str
) -> Evaluated:
    view = await rounds.get(named.round)
    if view is None:
        raise ProblemError(HTTPStatus.NOT_FOUND, f"There is no round {named.round} ({field}.round.round).")
    measured = _measured(view, named)
    if measured is None:
        raise ProblemError(
            HTTPStatus.NOT_FOUND,
            f"Round {view.number} of {view.run} has no {named.measured} of its {named.pair} ({field}.round.measured).",
        )
    split = named.measured.partition(".")[0]
    found = await rounds.problems(named.round, split)
    if split == "development":
        found = tested_problems(found, measured, view)
    tried = found[: len(measured.outcomes)]
    ids = [problem_id(each.text, each.answer) for each in tried]
    planned = await searches.planned(named.round, f"{named.pair}.{_searched_as(named.measured)}")
    by_place = {place: search_id for place, _, search_id in planned}
    return Evaluated(
        name=f"{view.run} round {view.number}, {named.pair}, {named.measured}",
        tries=measured.samples,
        right=outcomes_of(measured.outcomes, ids),
        problems=dict(zip(ids, tried, strict=True)),
        searches={
            each: by_place[problem.place]
            for each, problem in zip(ids, tried, strict=True)
            if problem.place in by_place
        },
    )


def tested_problems(
    development: list[RoundProblem], measured: Measured, view: RoundView
) -> list[RoundProblem]:
    """The development problems on which pairs are tested: the first ones chose the pair, unless all were measured."""
    choosing = view.config.gate.selection
    return development[choosing:] if choosing + len(measured.outcomes) <= len(development) else development


def _searched_as(measured: str) -> str:
    """What the searches were planned as: the majority is counted over the trees of best-of-N."""
    return measured.replace(".majority", ".best_of_n")


def _measured(view: RoundView, named: EvaluationOfRound) -> Measured | None:
    evaluation = view.metrics.evaluation
    pair: MeasuredPair | None = None if evaluation is None else getattr(evaluation, named.pair)
    return None if pair is None else pair.measured.get(named.measured)
