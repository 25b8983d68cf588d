"""How a search ended and what stands behind its answer, in plain words."""

from ratchet.contracts.search import Verification, VerificationLevel
from ratchet.states import SearchState

STATE_WORDS = {
    SearchState.QUEUED: "waiting for a worker",
    SearchState.RUNNING: "searching",
    SearchState.SOLVED_VERIFIED: "solved and verified",
    SearchState.ANSWERED_UNVERIFIED: "answered, but not verified as was asked for",
    SearchState.BUDGET_EXHAUSTED: "the budget ended without an answer",
    SearchState.CANCELLED: "cancelled",
    SearchState.FAILED: "failed",
}


def verification_words(verification: Verification) -> str:
    """What stands behind an answer, as sentences."""
    alike = "that behave alike" if verification.grounded else "that differ in what they compute"
    forms = "one form" if verification.forms == 1 else f"{verification.forms} forms"
    words = {
        VerificationLevel.REFERENCE: "Verified: it equals the reference answer.",
        VerificationLevel.AGREEMENT: (
            f"Verified by agreement: {verification.independent_programs} programs {alike}, found independently "
            f"in {forms}, and re-executed from nothing in a clean jail, give it."
        ),
        VerificationLevel.EXECUTION: "One program, re-executed from nothing in a clean jail, gives it.",
        VerificationLevel.NONE: (
            "No program that gives it could be re-executed."
            if verification.grounded is None
            else "Not verified."
        ),
    }[verification.level]
    if verification.grounded is False:
        words += " Its program does not compute it from the problem: it gives it whatever the quantities are."
    return (
        f"{words} {verification.votes} of {verification.total_votes} trajectories gave this answer, "
        f"its share of the PRM-weighted vote is {verification.prm_share:.0%}; {probability_words(verification)}."
    )


def probability_words(verification: Verification) -> str:
    """How probable it is that the answer is right, and what was needed."""
    stated, asked = verification.confidence, verification.min_confidence
    if stated is None:
        return "how probable it is that it is right is not calibrated for these models"
    words = f"probability of being right: {stated:.2f}"
    if asked is None or verification.level is VerificationLevel.REFERENCE:
        return words
    return f"{words} ({asked:.2f} counts as solved)"
