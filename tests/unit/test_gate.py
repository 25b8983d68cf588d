"""The gate: what it promotes and rejects, when it stops looking, and what the next pair is compared with."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ratchet.contracts.round_metrics import (
    Comparison,
    Decision,
    Measured,
    MeasuredPair,
    MeasuredPairs,
    RoundMetrics,
    Verdict,
)
from ratchet.contracts.rounds import Gate, RoundConfig, RoundView
from ratchet.states import RoundState
from services.trainer.gate import (
    POLICY,
    SYSTEM,
    compare,
    is_best,
    is_decided,
    is_promoted,
    looks,
    paired,
    preferred,
    why_rejected,
)
from services.trainer.pairs import Pair, best_so_far
from services.trainer.stages.evaluate import measured_before
from services.trainer.stages.measuring import figures, joined
from tests.rounds_seen import seen

DIFFERENCES = st.lists(st.sampled_from([-1.0, -0.5, 0.0, 0.5, 1.0]), min_size=1, max_size=200)


def said(*decisions: tuple[Decision, float]) -> dict[str, Comparison]:
    """A comparison for each decision, with its difference."""
    return {
        name: Comparison(n=100, difference=difference, ci95=(-0.1, 0.1), decision=decision)
        for name, (decision, difference) in zip((POLICY, SYSTEM), decisions, strict=False)
    }


def once(differences: list[float], rules: Gate | None = None) -> Decision:
    """What one look at all problems says."""
    return compare(differences, rules or Gate(), 1, (len(differences),), 0).decision


@pytest.mark.parametrize(
    ("better", "worse", "same", "decision"),
    [
        (10, 0, 190, Decision.NOT_WORSE),
        (0, 20, 180, Decision.WORSE),
        # As good, but 40 of 200 differ: two points worse is just as likely.
        (20, 20, 160, Decision.UNDECIDED),
        (20, 20, 3960, Decision.NOT_WORSE),
        # Worse by two points, beyond doubt.
        (0, 80, 3920, Decision.WORSE),
        (0, 0, 10, Decision.UNDECIDED),
    ],
)
def test_a_pair_is_not_worse_or_worse_only_where_the_problems_show_it(
    better: int, worse: int, same: int, decision: Decision
) -> None:
    assert once([1.0] * better + [-1.0] * worse + [0.0] * same) is decision


@given(DIFFERENCES)
def test_a_better_outcome_never_makes_the_decision_worse(differences: list[float]) -> None:
    order = [Decision.WORSE, Decision.UNDECIDED, Decision.NOT_WORSE]
    improved = [min(1.0, each + 0.5) for each in differences]
    if len({*improved}) > 1 or improved[0] > 0:
        assert order.index(once(improved)) >= order.index(once([each - 0.5 for each in improved]))
    assert not (once(differences) is Decision.WORSE and sum(differences) >= 0)


def test_many_looks_at_equal_pairs_do_not_add_up_to_more_errors() -> None:
    """With a test of fixed size at each of these looks, more than a tenth of equal pairs would be found worse."""
    rng, rules = random.Random(1), Gate()
    planned = looks(1000, 50)
    wrong = 0
    for _ in range(400):
        differences = [rng.choice([-1.0, 1.0]) if rng.random() < 0.2 else 0.0 for _ in range(1000)]
        for look, done in enumerate(planned):
            decision = compare(differences[:done], rules, 1, planned, look).decision
            if decision is not Decision.UNDECIDED:
                wrong += decision is Decision.WORSE
                break
    # 5 % of 400 are 20; more than 33 would be seen once in a thousand times.
    assert wrong <= 33


def test_looks_grow_and_end_with_all_problems() -> None:
    assert looks(200, 50) == (50, 100, 150, 200)
    assert looks(30, 50) == (30,)
    planned = looks(3000, 50)
    assert planned[-1] == 3000
    assert len(planned) < 13, "later looks are farther apart"


def test_outcomes_pair_by_problem_and_a_failed_search_pairs_out() -> None:
    assert paired("042-", "4-21", 4) == [1.0, 0.0]
    assert paired("11", "110", 1) == [0.0, 0.0], "one list may have got further"


def test_a_pair_is_promoted_when_every_comparison_shows_it_and_the_first_loss_decides() -> None:
    won, lost, open_ = (Decision.NOT_WORSE, 0.1), (Decision.WORSE, -0.1), (Decision.UNDECIDED, 0.0)
    assert is_promoted(said(won, won))
    assert is_decided(said(won, won))
    assert not is_decided(said(won, open_))
    assert not is_promoted(said(won, open_))
    assert is_decided(said(open_, lost))
    assert not is_promoted(said(won, lost))
    assert not is_promoted({}), "nothing was compared"


def test_the_reason_says_whether_it_is_worse_or_whether_nothing_was_shown() -> None:
    def verdict(*decisions: tuple[Decision, float]) -> Verdict:
        return Verdict(promoted=False, lost=[SYSTEM], comparisons=said(*decisions))

    assert (
        why_rejected(verdict((Decision.NOT_WORSE, 0.1), (Decision.WORSE, -0.1)))
        == f"worse than the best pair so far: {SYSTEM}"
    )
    open_ = why_rejected(verdict((Decision.NOT_WORSE, 0.1), (Decision.UNDECIDED, 0.0)))
    assert "not shown to be as good as the best pair so far after 100 development problems" in open_
    assert "development.count" in open_


def test_the_newest_pair_is_chosen_unless_another_is_clearly_better() -> None:
    same = "1" * 60 + "0" * 40
    assert preferred({"new new": same, "new old": same, "old new": same}) == "new new"
    # One of 100 problems is no difference; eight are.
    assert preferred({"new new": "0" + same[1:], "new old": same, "old new": same}) == "new new"
    assert preferred({"new new": "0" * 8 + same[8:], "new old": same, "old new": same}) == "new old"
    ruined = "0" * 90 + "1" * 10
    assert preferred({"new new": ruined, "new old": ruined, "old new": same}) == "old new", "a good PRM stays"
    assert preferred({"new new": "--11", "new old": "1100", "old new": "1111"}) == "new new", (
        "what failed pairs out"
    )


# --- the best pair so far --------------------------------------------------------------------------------------------


def ended(number: int, verdict: Verdict, *, served: str, measured: MeasuredPair | None = None) -> RoundView:
    """A round that is over."""
    pairs = MeasuredPairs(
        incumbent=MeasuredPair(pair=served, measured={}),
        candidate=measured or MeasuredPair(pair=verdict.candidate, measured={}),
    )
    state = RoundState.PROMOTED if verdict.promoted else RoundState.REJECTED
    return seen(number, state, RoundMetrics(evaluation=pairs, gate=verdict))


def judged(*, promoted: bool, candidate: str, best: str) -> Verdict:
    return Verdict(
        promoted=promoted, lost=[], comparisons={}, candidate=candidate, reference="p0 m0", best=best
    )


def test_a_promoted_pair_that_seems_a_little_worse_is_not_what_the_next_is_compared_with() -> None:
    assert is_best(said((Decision.NOT_WORSE, 0.01), (Decision.NOT_WORSE, 0.0)))
    assert not is_best(said((Decision.NOT_WORSE, 0.05), (Decision.NOT_WORSE, -0.01)))
    one = ended(1, judged(promoted=True, candidate="p1 m1", best="p0 m0"), served="p0 m0")
    assert best_so_far([one], Pair("p1", "m1")) == Pair("p0", "m0")
    two = ended(2, judged(promoted=False, candidate="p2 m2", best="p0 m0"), served="p1 m1")
    assert best_so_far([two, one], Pair("p1", "m1")) == Pair("p0", "m0"), "a rejected round changes nothing"


def test_where_a_person_has_chosen_another_pair_that_is_what_counts() -> None:
    one = ended(1, judged(promoted=True, candidate="p1 m1", best="p0 m0"), served="p0 m0")
    assert best_so_far([one], Pair("p9", "m9")) == Pair("p9", "m9")
    assert best_so_far([], Pair("p0", "m0")) == Pair("p0", "m0")


def test_what_a_pair_measured_is_used_again_where_it_was_measured_alike() -> None:
    def of(outcomes: str) -> dict[str, Measured]:
        return {SYSTEM: figures(outcomes=outcomes, samples=1, answered=1, tokens=9.0)}

    verdict = judged(promoted=True, candidate="p1 m1", best="p1 m1")
    short = ended(1, verdict, served="p0 m0", measured=MeasuredPair(pair="p1 m1", measured=of("10")))
    long = ended(2, verdict, served="p0 m0", measured=MeasuredPair(pair="p1 m1", measured=of("101")))
    found = measured_before([long, short], Pair("p1", "m1"), RoundConfig(seed=7))
    assert found[SYSTEM].outcomes == "101", "the one that got furthest"
    assert measured_before([long, short], Pair("p1", "m1"), RoundConfig(seed=8)) == {}, "other searches"
    assert measured_before([long, short], Pair("p2", "m1"), RoundConfig(seed=7)) == {}


# --- figures ---------------------------------------------------------------------------------------------------------


def test_figures_count_tries_and_leave_failed_searches_out() -> None:
    found = figures(outcomes="40-2", samples=4, answered=3, tokens=50.0)
    assert (found.n, found.right, found.samples, found.accuracy) == (3, 6, 4, 0.5)
    low, high = found.ci95
    assert 0 < low < 0.5 < high < 1
    more = joined(found, figures(outcomes="4", samples=4, answered=1, tokens=90.0))
    assert (more.n, more.right, more.outcomes, more.answered, more.tokens) == (4, 10, "40-24", 4, 60.0)


def test_a_verdict_of_an_older_rule_can_still_be_read() -> None:
    old = {"n": 10, "loses": True, "worse": 3, "better": 1, "p_worse": 0.3, "difference": -0.2}
    found = Comparison.model_validate(old, extra="ignore")
    assert (found.decision, found.n, found.difference, found.ci95) == (Decision.WORSE, 10, -0.2, None)
