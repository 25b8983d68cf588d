"""What an evaluation is to do: problems of a set, and the ways to search them, each with the file of its results."""

import hashlib
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import orjson

from ratchet import __version__
from ratchet.contracts.search import SearchRequest, StrategyName
from ratchet.problems import Problem, ProblemSet
from ratchet.problems.files import without_suffix

SERVED = "served"
"""In file names, where it is not known which policy answers."""
Models = Mapping[str, str | None]
"""Versions of policy and PRM, as far as they are known."""


@dataclass(frozen=True)
class Plan:
    """These problems of the set, each with the request, whose text and answer are then the problem's."""

    held: ProblemSet
    problems: Sequence[Problem]
    request: SearchRequest
    with_reference: bool
    offset: int


@dataclass(frozen=True)
class Comparison:
    """Strategies at budgets of generated tokens, each with all seeds."""

    strategies: tuple[StrategyName, ...]
    tokens: tuple[int, ...]
    seeds: tuple[int, ...]
    baseline: StrategyName
    """What the others are compared with."""

    def arms(self) -> Iterator["Arm"]:
        """The smallest budget first, so that a run that is broken off has whole curves of it."""
        for strategy in self.strategies:
            if strategy is StrategyName.GREEDY:
                # One trajectory at temperature 0: no budget that holds it changes it, and no seed.
                yield Arm(strategy, max(self.tokens), self.seeds[:1])
        for tokens in sorted(self.tokens):
            for strategy in self.strategies:
                if strategy is not StrategyName.GREEDY:
                    yield Arm(strategy, tokens, self.seeds)


@dataclass(frozen=True)
class Arm:
    """One strategy at one budget."""

    strategy: StrategyName
    tokens: int
    seeds: tuple[int, ...]

    def requests(self, request: SearchRequest) -> list[SearchRequest]:
        """One for each seed."""
        budget = request.budget.model_copy(update={"tokens": self.tokens})
        return [
            request.model_copy(update={"strategy": self.strategy, "budget": budget, "seed": seed})
            for seed in self.seeds
        ]


def result_name(held: ProblemSet, request: SearchRequest, with_reference: bool, models: Models) -> str:
    """File name of the results of these settings. Offset and limit are not among them: more problems go on with it."""
    settings = {
        "data": held.sha256,
        "models": models,
        "version": __version__,
        "with_reference": with_reference,
        "request": request.model_dump(mode="json", exclude={"problem", "reference_answer", "wait"}),
    }
    return (
        file_stem(held, request.strategy.value, models["policy"] or SERVED, f"s{request.seed}", settings)
        + ".jsonl"
    )


def comparison_stem(plan: Plan, comparison: Comparison, models: Models) -> str:
    """Name, without suffix, of the files of a comparison."""
    settings = {
        "data": plan.held.sha256,
        "problems": [problem.id for problem in plan.problems],
        "models": models,
        "version": __version__,
        "with_reference": plan.with_reference,
        "request": plan.request.model_dump(mode="json", exclude={"problem", "reference_answer", "wait"}),
        "compared": [list(each) for each in (comparison.strategies, comparison.tokens, comparison.seeds)],
        "baseline": comparison.baseline,
    }
    return file_stem(plan.held, "compared", models["policy"] or SERVED, f"n{len(plan.problems)}", settings)


def file_stem(held: ProblemSet, what: str, model: str, detail: str, settings: object) -> str:
    """A file name without suffix that a person can read, with a digest of all settings."""
    digest = hashlib.sha256(orjson.dumps(settings, option=orjson.OPT_SORT_KEYS)).hexdigest()[:8]
    stem = without_suffix(held.name)
    return "-".join(re.sub(r"[^\w.@]+", "_", part)[-60:] for part in (stem, what, model, detail, digest))
