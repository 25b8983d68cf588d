"""Contamination: what counts as the same problem, and what does not."""

import random
import time

import pytest

from ratchet.problems import Problem, find_overlaps, problem_id


def problems(*texts: str) -> list[Problem]:
    return [Problem(problem_id(text, "1"), text, "1", f"p:{index}") for index, text in enumerate(texts)]


LONG = (
    "A farmer has 12 hens and every hen lays 5 eggs in a week. He sells the eggs at the market in boxes of 6, "
    "and each box brings him 3 dollars. How much does he earn in 4 weeks?"
)


def test_the_same_words_are_found_whatever_their_case_spaces_and_punctuation() -> None:
    (overlap,) = find_overlaps(problems("Other.", LONG), problems(LONG.upper().replace(". ", " ...\n")))
    assert (overlap.train.source, overlap.share) == ("p:1", 1.0)


def test_a_text_inside_a_longer_one_is_found() -> None:
    (overlap,) = find_overlaps(problems(f"Here is a puzzle for you. {LONG} Explain."), problems(LONG))
    assert overlap.share == 1.0


def test_the_share_is_that_of_the_evaluations_n_grams() -> None:
    words = [f"word{chr(97 + i)}" for i in range(20)]
    train, evaluation = problems(" ".join(words[:16])), problems(" ".join(words))
    # 20 words have 8 runs of 13, of which the first 4 are in the first 16 words.
    (overlap,) = find_overlaps(train, evaluation)
    assert overlap.share == 0.5
    assert find_overlaps(train, evaluation, threshold=0.51) == []
    assert find_overlaps(train, evaluation, n=17) == []
    # 4 of the 8 runs of the longer text; of the shorter one, all.
    assert find_overlaps(evaluation, train)[0].share == 1.0


def test_other_numbers_make_another_problem() -> None:
    other = (
        LONG.replace("12", "13").replace("5 eggs", "7 eggs").replace("6,", "10,").replace("3 dol", "4 dol")
    )
    assert find_overlaps(problems(LONG), problems(other.replace("4 weeks", "9 weeks"))) == []


@pytest.mark.parametrize(
    ("train", "evaluation", "found"),
    [
        ("What is 3 + 4?", "what is 3+4", 1),
        ("What is 3 + 4?", "What is 3 - 4?", 0),
        ("What is 34?", "What is 3 4?", 0),
    ],
)
def test_short_texts_are_compared_whole(train: str, evaluation: str, found: int) -> None:
    assert len(find_overlaps(problems(train), problems(evaluation))) == found


def test_the_words_of_a_template_are_no_contamination_and_a_copy_in_it_is() -> None:
    rules = (
        "Give the answer as a whole number without any units and do not explain how you have found it at all."
    )
    train = problems(*(f"{rules} What is {number} + {number}?" for number in range(100, 140)))
    evaluation = problems(f"{rules} What is 900 + 800?", f"{rules} What is 120 + 120?")
    (overlap,) = find_overlaps(train, evaluation)
    assert (overlap.evaluation.source, overlap.train.source, overlap.share) == ("p:1", "p:20", 1.0)


def test_nothing_is_in_nothing() -> None:
    assert find_overlaps([], problems(LONG)) == find_overlaps(problems(LONG), []) == []


def test_ten_thousand_problems_are_compared_with_a_thousand_in_seconds() -> None:
    rng = random.Random(0)
    texts = [" ".join(f"w{rng.randrange(3000)}" for _ in range(60)) for _ in range(11_000)]
    train, evaluation = problems(*texts[:10_000]), problems(*texts[10_000:], *texts[:5])
    began = time.monotonic()
    assert len(find_overlaps(train, evaluation)) == 5
    # 0.5 s on one idle core.
    assert time.monotonic() - began < 10
