"""The probability of answers: what is behind an answer, the model that is fitted to it, and how well it keeps its word."""

import math
import random
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ratchet.contracts.calibration import AnswerCalibration, Feature
from ratchet.contracts.serving import PRM1
from ratchet.models.mirror import MIRRORS
from ratchet.models.sources import resolve
from ratchet.solutions.aggregator import FEATURES, features, probabilities, softmax_with_none
from ratchet.solutions.calibration import (
    PRECISION,
    CalibrationError,
    LabelledVote,
    calibrate,
    least_confidence,
    reliability,
)
from ratchet.solutions.votes import End, by_prm, count_votes
from ratchet.store.calibrations import packaged

POLICY, PRM = "small@1", "prm1-likelihood@small@1"


def vote(rng: random.Random) -> LabelledVote:
    """A search by a policy that knows some problems and not others, with a PRM that sees a little of it."""
    knows = rng.random()
    ends: list[End] = []
    right: dict[str, bool] = {}
    for number in range(rng.randint(1, 12)):
        correct = rng.random() < knows
        answer = "42" if correct else str(rng.randint(1, 5))
        right[answer] = correct
        score = min(0.99, max(0.01, rng.gauss(0.6 if correct else 0.4, 0.2)))
        ends.append(End(str(number), answer, (rng.random(), score), 1, 1 / 12))
    groups = count_votes(ends, by_prm)
    return LabelledVote(groups, [right[group.ends[0].answer] for group in groups])


def votes(n: int, seed: int) -> list[LabelledVote]:
    rng = random.Random(seed)
    return [vote(rng) for _ in range(n)]


@pytest.fixture(scope="module")
def fitted() -> AnswerCalibration:
    return calibrate(POLICY, PRM, votes(300, 1), "a world of its own")


def test_features_say_what_is_behind_an_answer() -> None:
    ends = [
        End("a", "7", (0.5, 0.8), 3, 0.5),
        End("b", "7.0", (0.9, 0.5), 1, 0.25),
        End("c", "8", (), 1, 0.25),
    ]
    seven, eight = features(count_votes(ends, by_prm))
    named = dict(zip(FEATURES, seven, strict=True))
    assert named == pytest.approx(
        {
            "log_share": math.log(4 / 5),
            "log_votes": math.log(4),
            "log_prm_share": math.log((0.5 * 0.4 + 0.25 * 0.45) / (0.5 * 0.4 + 0.25 * 0.45 + 0.25 * 0.5)),
            "best_score": math.log(0.8 / 0.2),
            "best_path": math.log(0.45),
        }
    )
    assert eight[FEATURES.index("best_score")] == 0, (
        "what the PRM has not seen speaks neither for nor against"
    )


@given(scores=st.lists(st.floats(-800, 800), max_size=6))
def test_the_probabilities_of_all_answers_and_of_none_are_one(scores: list[float]) -> None:
    found = softmax_with_none(scores)
    assert all(0 <= probability <= 1 for probability in found)
    assert sum(found) <= 1 + 1e-9
    if all(score < 100 for score in scores):
        assert found == pytest.approx(
            [math.exp(score) / (1 + sum(map(math.exp, scores))) for score in scores]
        )


def test_a_fit_keeps_its_word_on_problems_that_it_has_not_seen(fitted: AnswerCalibration) -> None:
    unseen = votes(2000, 2)
    stated = [(probabilities(each.groups, fitted) or [0.0])[0] for each in unseen]
    right = [each.right[0] for each in unseen]
    found = reliability(stated, right)
    assert found.ece < 0.05
    share = found.right / found.n
    assert found.brier < 0.9 * share * (1 - share), "it knows more than how often answers are right"
    solved = [
        truth
        for probability, truth in zip(stated, right, strict=True)
        if probability >= fitted.min_confidence
    ]
    assert len(solved) > 200
    assert sum(solved) / len(solved) > PRECISION - 0.04


def test_what_it_says_of_itself_is_out_of_fold(fitted: AnswerCalibration) -> None:
    assert (fitted.problems, fitted.reliability.n) == (300, 300)
    assert sum(each.n for each in fitted.reliability.bins) == 300
    assert sum(each.right for each in fitted.reliability.bins) == fitted.reliability.right
    for each in fitted.reliability.bins:
        assert each.ci95[0] <= each.share <= each.ci95[1]


def test_features_that_say_nothing_get_no_weight() -> None:
    """Any answer of three problems in ten is right, whatever is behind it: only that can be learnt."""
    rng = random.Random(3)
    blind: list[LabelledVote] = []
    for each in votes(400, 3):
        chosen = rng.randrange(len(each.groups)) if rng.random() < 0.3 else None
        blind.append(LabelledVote(each.groups, [place == chosen for place in range(len(each.groups))]))
    found = calibrate(POLICY, PRM, blind, "noise")
    stated = [(probabilities(each.groups, found) or [0.0])[0] for each in blind]
    assert np.mean(stated) == pytest.approx(np.mean([each.right[0] for each in blind]), abs=0.04)
    assert found.min_confidence == PRECISION, "none of them is sure enough"


@pytest.mark.parametrize("right", [True, False])
def test_too_few_problems_or_none_to_tell_apart_are_refused(right: bool) -> None:
    alike = [LabelledVote(each.groups, [right] * len(each.groups)) for each in votes(50, 4)]
    for some in (votes(20, 5), alike, []):
        with pytest.raises(CalibrationError, match="it takes 30"):
            calibrate(POLICY, PRM, some, "too little")


def test_a_problem_without_an_answer_teaches_nothing_and_breaks_nothing() -> None:
    some = votes(60, 6)
    empty = [LabelledVote([], [])] * 5
    with_empty = calibrate(POLICY, PRM, [*some, *empty], "s")
    assert (with_empty.problems, with_empty.reliability.n) == (65, 60)
    assert with_empty.intercept == calibrate(POLICY, PRM, some, "s").intercept


def test_other_features_than_ours_are_no_calibration(fitted: AnswerCalibration) -> None:
    other = fitted.model_copy(update={"features": [Feature(name="length", mean=0, scale=1, coefficient=1)]})
    assert probabilities(votes(1, 7)[0].groups, other) is None


def test_the_threshold_is_the_lowest_with_enough_right_ones_above_it() -> None:
    stated = [0.99] * 30 + [0.95] * 10 + [0.6] * 20
    right = [True] * 38 + [False] * 2 + [False] * 20
    assert least_confidence(stated, right) == 0.95
    assert least_confidence(stated[:5], right[:5]) == PRECISION, "five right ones may be luck"
    assert least_confidence([], []) == PRECISION
    assert least_confidence([0.99] * 50 + [0.3], [True] * 51) == 0.5, "nothing that is more probably wrong"


@given(st.lists(st.tuples(st.floats(0, 1), st.booleans()), max_size=80))
@settings(deadline=None)
def test_a_threshold_other_than_the_aim_has_the_aimed_share_above_it(pairs: list[tuple[float, bool]]) -> None:
    stated, right = [p for p, _ in pairs], [truth for _, truth in pairs]
    threshold = least_confidence(stated, right)
    above = [truth for probability, truth in pairs if probability >= threshold]
    if threshold != PRECISION:
        assert sum(above) / len(above) >= PRECISION


def test_the_packaged_calibrations_are_of_the_packaged_models_and_of_these_features(tmp_path: Path) -> None:
    """Whoever makes nano anew calibrates it anew: docs/measurements/trust.md says how."""
    nano = resolve("nano", tmp_path).version
    pairs = {(each.policy, each.prm) for each in packaged()}
    assert len(pairs) == len(packaged())
    assert (nano, f"{PRM1}@{nano}") in pairs
    assert {policy.partition("@")[0] for policy, _ in pairs} == {"nano", *MIRRORS}
    for each in packaged():
        assert tuple(feature.name for feature in each.features) == FEATURES
        assert each.prm.startswith(PRM1)
        assert sum(bin_.n for bin_ in each.reliability.bins) == each.reliability.n
