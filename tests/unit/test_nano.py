"""nano's problems, its weak corpus, and the weights that come with the code."""

import contextlib
import hashlib
import io
import math
import random
import shutil
import sys
from collections import Counter
from itertools import islice
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ratchet.models import sources
from ratchet.models.checkpoint import ModelSourceError, Source
from ratchet.models.sources import resolve
from ratchet.problems.nano import Split, generate, instances, split_of
from ratchet.problems.nano.families import FAMILIES, draw
from ratchet.problems.nano.instance import Instance

NANO = Path(__file__).parents[2] / "models" / "nano"
sys.path.insert(0, str(NANO))
from corpus import RATES, demonstrate, demonstrations  # type: ignore[import-not-found]  # noqa: E402

DRAWS = 200
DEMONSTRATIONS = 11_500


def printed(steps: tuple[str, ...]) -> str:
    """What our own worked solution prints; it is no foreign code."""
    out = io.StringIO()
    with contextlib.redirect_stdout(out):
        exec("\n".join(steps), {})
    return out.getvalue().strip()


def worked(instance: Instance) -> tuple[str, ...]:
    return tuple(step.text for step in instance.steps)


@pytest.mark.parametrize("family", FAMILIES)
def test_the_worked_solution_of_a_problem_gives_its_answer(family: str) -> None:
    rng = random.Random(family)
    lengths = set()
    for _ in range(DRAWS):
        found = draw(family, rng)
        assert printed(worked(found)) == str(found.answer), found
        assert found.answer >= 0
        assert [step.variable for step in found.steps[:-1]] == list("abcdefg"[: len(found.steps) - 1])
        assert found.steps[-1].variable is None
        lengths.add(len(found.steps))
    assert len(lengths) == 1, "rates of errors are given by step"
    assert len(RATES[family]) == lengths.pop()


def test_there_are_families_from_one_step_to_six() -> None:
    rng = random.Random(0)
    assert {len(draw(family, rng).steps) for family in FAMILIES} == {1, 2, 3, 4, 5, 6}
    assert len(FAMILIES) == len(RATES) == 23


def test_the_numbers_of_a_problem_are_in_its_text() -> None:
    for found in islice(instances(Split.DEVELOPMENT, 3), 500):
        words = Counter("".join(c if c.isdigit() else " " for c in found.text).split())
        assert all(str(number) in words for number in found.numbers), found


@given(st.lists(st.integers(0, 10**6), min_size=1, max_size=5))
def test_the_order_of_numbers_does_not_decide_the_split(numbers: list[int]) -> None:
    assert split_of(tuple(numbers)) is split_of(tuple(reversed(numbers)))


def test_splits_share_no_text_and_no_numbers_whatever_the_seed() -> None:
    texts: dict[Split, set[str]] = {}
    numbers: dict[Split, set[tuple[int, ...]]] = {}
    for split in Split:
        found = [one for seed in (0, 1) for one in islice(instances(split, seed), 1500)]
        texts[split] = {one.text for one in found}
        numbers[split] = {tuple(sorted(one.numbers)) for one in found}
        assert len(texts[split]) > 1500
    for one, other in (
        (Split.TRAIN, Split.DEVELOPMENT),
        (Split.TRAIN, Split.HELD_OUT),
        (Split.DEVELOPMENT, Split.HELD_OUT),
    ):
        assert not texts[one] & texts[other]
        assert not numbers[one] & numbers[other]


@pytest.mark.parametrize("split", Split)
def test_a_split_is_one_list_of_which_its_beginning_is_returned(split: Split) -> None:
    many = generate(split, 700, seed=5)
    assert len({problem.text for problem in many}) == len(many) == 700, "no text twice"
    assert generate(split, 160, seed=5) == many[:160]
    assert generate(split, 160, seed=6) != many[:160]
    assert {problem.family for problem in many} == set(FAMILIES)


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 80), st.integers(0, 80), st.integers(0, 2**31))
def test_generating_fewer_gives_the_beginning_of_more(one: int, other: int, seed: int) -> None:
    fewer, more = sorted((one, other))
    assert generate(Split.HELD_OUT, fewer, seed) == generate(Split.HELD_OUT, more, seed)[:fewer]


# --- the weak corpus -------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def corpus() -> list[tuple[Instance, tuple[str, ...], bool]]:
    """Problems of the training split, what their demonstration does, and whether it is said to be correct."""
    pairs = zip(instances(Split.TRAIN, 0, unique=False), demonstrations(0), strict=False)
    found = []
    for problem, shown in islice(pairs, DEMONSTRATIONS):
        assert shown.problem == problem.text
        found.append((problem, shown.steps, shown.correct))
    return found


def test_about_a_fifth_of_the_demonstrations_is_entirely_correct(
    corpus: list[tuple[Instance, tuple[str, ...], bool]],
) -> None:
    right = sum(correct for _, _, correct in corpus)
    assert 0.20 <= right / len(corpus) <= 0.26
    for problem, steps, correct in corpus:
        assert (steps == worked(problem)) == correct


def test_the_rate_of_errors_depends_on_the_family_as_it_is_written_down(
    corpus: list[tuple[Instance, tuple[str, ...], bool]],
) -> None:
    n = Counter(problem.family for problem, _, _ in corpus)
    right = Counter(problem.family for problem, _, correct in corpus if correct)
    for family, rates in RATES.items():
        expected = math.prod(1 - rate for rate in rates)
        # Four standard errors: with 23 families one is not outside by chance.
        slack = 4 * math.sqrt(expected * (1 - expected) / n[family])
        assert abs(right[family] / n[family] - expected) < slack, family
    shares = [right[family] / n[family] for family in RATES]
    assert max(shares) > 4 * min(shares)


def test_errors_are_of_every_kind(corpus: list[tuple[Instance, tuple[str, ...], bool]]) -> None:
    shorter = fails = other = 0
    for problem, steps, correct in corpus[:3000]:
        if correct:
            continue
        shorter += len(steps) < len(problem.steps)
        try:
            other += printed(steps) != str(problem.answer)
        except (SyntaxError, NameError, ZeroDivisionError, TypeError, OverflowError, ValueError):
            fails += 1
    assert min(shorter, fails) > 20
    assert other > 1500, "a wrong step mostly gives a wrong answer"


def test_the_preferred_error_of_a_step_is_the_most_frequent_one() -> None:
    """It has four fifths of the step's errors, so a model that learns from them prefers it to the right step."""
    problem = draw("remainder", random.Random(1))
    shown = Counter(demonstrate(problem, random.Random(seed)).steps for seed in range(400))
    right = shown.pop(worked(problem))
    assert shown.most_common(1)[0][1] > 1.3 * right


def test_the_corpus_is_the_same_each_time_it_is_made() -> None:
    assert list(islice(demonstrations(4), 300)) == list(islice(demonstrations(4), 300))
    assert list(islice(demonstrations(4), 50)) != list(islice(demonstrations(5), 50))


# --- the weights -----------------------------------------------------------------------------------------------------


def test_the_weights_are_those_that_were_published(tmp_path: Path) -> None:
    folder = NANO / "policy"
    lines = [line.split("  ") for line in (folder / "SHA256SUMS").read_text().splitlines()]
    assert {file for _, file in lines} == {file.name for file in folder.iterdir()} - {"SHA256SUMS"}
    for digest, file in lines:
        assert hashlib.sha256((folder / file).read_bytes()).hexdigest() == digest, file
    found = resolve("nano", tmp_path)
    assert (found.path, found.source) == (folder, Source.PACKAGED)
    assert (folder / "model.safetensors").stat().st_size < 5 * 2**20


@pytest.mark.parametrize("file", ["model.safetensors", "tokenizer.json", "config.json"])
def test_a_copy_that_was_tampered_with_is_refused(
    file: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copy = Path(shutil.copytree(NANO / "policy", tmp_path / "policy"))
    monkeypatch.setattr(sources, "NANO_FOLDERS", (copy,))
    assert resolve("nano", tmp_path / "cache").path == copy
    content = bytearray((copy / file).read_bytes())
    content[-3] ^= 1
    (copy / file).write_bytes(content)
    with pytest.raises(ModelSourceError, match=rf"{file} is not the published file.*make nano"):
        resolve("nano", tmp_path / "cache")


def test_without_weights_it_is_said_how_to_make_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sources, "NANO_FOLDERS", (tmp_path / "gone",))
    with pytest.raises(ModelSourceError, match="make nano"):
        resolve("nano", tmp_path)
