"""What does not leave: problems that a run has set aside, and those that models are measured on.

A problem of any round's development or held-out problems is withheld, wherever else it turns up, and so is one that shares
nine tenths of its words with one of them: the same rule by which a round refuses problems. What any run has set aside is
withheld, unless a person overruled that in the run that is exported.

Pure.
"""

from collections.abc import Iterable, Mapping, Sequence
from enum import StrEnum

from ratchet.problems import Problem, find_overlaps
from ratchet.problems.contamination import SAME_PROBLEM
from ratchet.problems.problem import normal_form
from ratchet.store.exported import SetAside


class Withheld(StrEnum):
    """Why a problem does not leave."""

    SET_ASIDE = "its reference answer is not trusted (quarantine)"
    EVALUATION = "it is a development or held-out problem of a round"
    EXCLUDED = "it is in a set that was to be excluded"


def withheld(
    texts: Iterable[str],
    *,
    ledger: Sequence[SetAside],
    evaluation: Sequence[str],
    excluded: Sequence[str] = (),
    run: str | None = None,
) -> dict[str, Withheld]:
    """The problems (`texts`) that do not leave, by their normal forms (`normal_form`), each with the first reason."""
    problems = {normal_form(text): text for text in texts}
    trusted = {normal_form(each.problem) for each in ledger if each.overruled and each.run == run}
    aside = {normal_form(each.problem) for each in ledger if not each.overruled} - trusted
    found = {form: Withheld.SET_ASIDE for form in problems if form in aside}
    for why, against in ((Withheld.EVALUATION, evaluation), (Withheld.EXCLUDED, excluded)):
        for form in _shared(problems, against):
            found.setdefault(form, why)
    return found


def _shared(problems: Mapping[str, str], against: Sequence[str]) -> set[str]:
    """The normal forms of those problems that are, or nearly are, among `against`."""
    forms = {normal_form(text) for text in against}
    same = {form for form in problems if form in forms}
    ours = [Problem(form, text, "", "") for form, text in problems.items()]
    theirs = [Problem("", text, "", "") for text in against]
    return same | {each.evaluation.id for each in find_overlaps(theirs, ours, threshold=SAME_PROBLEM)}
