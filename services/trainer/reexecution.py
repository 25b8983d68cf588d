"""Do programs hold what their searches say of them? They are run again from nothing, and with the problem's quantities changed.

Many programs of many problems are one request. Policies write them, so nothing that one holds makes this raise: one that
cannot be run does not stand.
"""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass

from ratchet.clients import SandboxClient
from ratchet.solutions.answers import same_answer
from ratchet.solutions.behaviour import Behaviour, Question, ask_variants, behaviour_of
from ratchet.solutions.clean_runs import clean_answer, clean_run, run_from_nothing
from ratchet.solutions.counterfactual import Variant

AT_ONCE = 256
"""Programs whose variants are made at once: one that holds a lease has to be heard in between."""
GRADED_AT_ONCE = 32
"""Answers that are no numbers are compared by the sandbox, which takes a while for some."""


@dataclass(frozen=True, slots=True)
class Claim:
    """What is said of a program: it gives this answer. `variants` of its problem show how it behaves."""

    steps: tuple[str, ...]
    answer: str
    variants: Sequence[Variant]


async def reexecute(claims: Sequence[Claim], sandbox: SandboxClient) -> list[Behaviour | None]:
    """How each program behaves, in order; None for one that does not give its answer again.

    Raises ServiceError, SandboxFailedError.
    """
    behaviours: list[Behaviour | None] = []
    for start in range(0, len(claims), AT_ONCE):
        behaviours += await _reexecute(claims[start : start + AT_ONCE], sandbox)
    return behaviours


async def _reexecute(claims: Sequence[Claim], sandbox: SandboxClient) -> list[Behaviour | None]:
    given = await run_from_nothing([clean_run(claim.steps) for claim in claims], sandbox, clean_answer)
    standing = await _equal(claims, given, sandbox)
    questions = [Question(claims[place].steps, answer, claims[place].variants) for place, answer in standing]
    behaviours: list[Behaviour | None] = [None] * len(claims)
    for (place, answer), keys in zip(standing, await ask_variants(questions, sandbox), strict=True):
        behaviours[place] = behaviour_of(claims[place].steps, answer, keys)
    return behaviours


async def _equal(
    claims: Sequence[Claim], given: Sequence[str | None], sandbox: SandboxClient
) -> list[tuple[int, str]]:
    """Those that gave an answer equal to the one that is said of them: place and answer."""
    answered = [(place, answer) for place, answer in enumerate(given) if answer is not None]
    pairs = list(dict.fromkeys((answer, claims[place].answer) for place, answer in answered))
    equal: set[tuple[str, str]] = set()
    for start in range(0, len(pairs), GRADED_AT_ONCE):
        some = pairs[start : start + GRADED_AT_ONCE]
        same = await asyncio.gather(*(same_answer(sandbox, *pair) for pair in some))
        equal.update(pair for pair, holds in zip(some, same, strict=True) if holds)
    return [(place, answer) for place, answer in answered if (answer, claims[place].answer) in equal]
