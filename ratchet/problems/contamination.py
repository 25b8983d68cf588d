"""Contamination: problems of an evaluation whose words are also in the training problems.

Two problems are compared by their runs of `n` words (n-grams), as sets of hashes. Numbers and signs of arithmetic count as
words, so that a template with other numbers is another problem. A run that many training problems share is the template's
and says nothing about one problem: it is left out. A text shorter than `n` words is compared as a whole.

Limits: words, not meaning: a paraphrase or a translation is not found. A problem made only of template runs is compared as
a whole.
"""

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from ratchet.problems.problem import Problem, one_form

TEMPLATE_PROBLEMS = 10
"""A run in more training problems than this is taken for a template's: duplicates have been dropped before."""
SAME_PROBLEM = 0.9
"""Share of common n-grams from which on two problems are the same one."""

_WORD = re.compile(r"\d+(?:[.,]\d+)*|[^\W\d_]+|[-+*/^=<>%×÷−]")


@dataclass(frozen=True)
class Overlap:
    """A problem of the evaluation, and the training problem that shares most with it."""

    evaluation: Problem
    train: Problem
    share: float
    """Of the n-grams of the evaluation's problem, those that some training problem has; 1 for the same words."""


def find_overlaps(
    train: Sequence[Problem], evaluation: Sequence[Problem], n: int = 13, threshold: float = 0.5
) -> list[Overlap]:
    """The problems of `evaluation` of whose n-grams at least `threshold` are in `train`, the largest share first."""
    texts = [_words(problem.text) for problem in evaluation]
    ours = [_grams(words, n) for words in texts]
    wanted = set[int]().union(*ours)
    wholes = {hash(words) for words in texts}
    copies: dict[int, Problem] = {}
    seen: dict[int, list[int]] = {}
    for index, problem in enumerate(train):
        words = _words(problem.text)
        if (whole := hash(words)) in wholes:
            copies.setdefault(whole, problem)
        for gram in _grams(words, n) & wanted:
            seen.setdefault(gram, []).append(index)
    found = []
    for problem, words, grams in zip(evaluation, texts, ours, strict=True):
        if copy := copies.get(hash(words)):
            found.append(Overlap(problem, copy, 1.0))
            continue
        telling = [gram for gram in grams if len(seen.get(gram, ())) <= TEMPLATE_PROBLEMS]
        shared = Counter(index for gram in telling for index in seen.get(gram, ()))
        if shared and (share := sum(gram in seen for gram in telling) / len(telling)) >= threshold:
            found.append(Overlap(problem, train[shared.most_common(1)[0][0]], share))
    return sorted(found, key=lambda overlap: -overlap.share)


def _words(text: str) -> tuple[str, ...]:
    return tuple(_WORD.findall(one_form(text).casefold()))


def _grams(words: tuple[str, ...], n: int) -> set[int]:
    """Hashes of the runs of n words; of a shorter text, its own."""
    return {hash(words[start : start + n]) for start in range(max(1, len(words) - n + 1))}
