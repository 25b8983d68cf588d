"""How does a program behave when the problem's quantities are other ones? Runs its variants in the jail.

Limits: a run that a limit ends counts as failed, so a program that takes nearly as long as it may can behave in two ways.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

from ratchet.clients import SandboxClient
from ratchet.contracts.sandbox import RunStepsResponse, StepStatus
from ratchet.solutions.answers import answer_key, answer_of
from ratchet.solutions.canonical import canonical_form
from ratchet.solutions.clean_runs import clean_run, run_from_nothing
from ratchet.solutions.counterfactual import Variant, apply_variant
from ratchet.solutions.programs import program_of

VARIANT_SECONDS = 5.0
"""For all steps of one variant: half of what the program itself may take."""
FAILED = "error"
"""Answer of a variant that does not run to its end."""
SILENT = "none"
"""Answer of a variant whose last step gives none."""
_LONGEST_KEY = 200


@dataclass(frozen=True, slots=True)
class Behaviour:
    """What a program answers to the variants of its problem."""

    answers: tuple[str, ...]
    """Keys of the answers, in the order of the variants; FAILED or SILENT where there is none."""
    grounded: bool | None
    """Whether the answer responds to a change; None where the problem states nothing to change."""
    signature: str
    """Equal for programs that behave alike."""


def behaviour_of(steps: Sequence[str], answer: str, answers: Sequence[str]) -> Behaviour:
    """The behaviour of a program that gives `answer`, and gave `answers` (keys) to the variants.

    A failing variant is no response. Without variants the program's canonical form takes the place of the answers.
    """
    if not answers:
        return Behaviour((), None, "form " + canonical_form(program_of(list(steps))))
    no_response = {answer_key_of(answer), FAILED, SILENT}
    # The last variant is no part of it: see `make_variants`.
    digest = hashlib.sha256("\0".join(answers[:-1]).encode("utf-8", "surrogatepass")).hexdigest()
    return Behaviour(tuple(answers), any(key not in no_response for key in answers), "answers " + digest)


def answer_key_of(answer: str | None) -> str:
    """The key of an answer, never long; SILENT for None."""
    if answer is None:
        return SILENT
    key = answer_key(answer)
    if len(key) <= _LONGEST_KEY:
        return key
    return "sha256:" + hashlib.sha256(key.encode("utf-8", "surrogatepass")).hexdigest()


@dataclass(frozen=True, slots=True)
class Question:
    """How does a program behave that gives this answer, under the variants of its problem?"""

    steps: Sequence[str]
    answer: str
    variants: Sequence[Variant]


async def ask_variants(questions: Sequence[Question], sandbox: SandboxClient) -> list[tuple[str, ...]]:
    """What each program answers to each of its variants (keys); programs of many problems may be asked at once.

    A variant that changes nothing in a program is not run. Raises ServiceError, SandboxFailedError.
    """
    changed = [[tuple(apply_variant(each.steps, variant)) for variant in each.variants] for each in questions]
    new = dict.fromkeys(
        steps
        for each, variations in zip(questions, changed, strict=True)
        for steps in variations
        if steps != tuple(each.steps)
    )
    # A program that changes have made too long to be run fails.
    ran = await run_from_nothing(
        [clean_run(steps, seconds=VARIANT_SECONDS) for steps in new], sandbox, _key_of_run
    )
    keys = {steps: key or FAILED for steps, key in zip(new, ran, strict=True)}
    return [
        tuple(
            answer_key_of(each.answer) if steps == tuple(each.steps) else keys[steps] for steps in variations
        )
        for each, variations in zip(questions, changed, strict=True)
    ]


def _key_of_run(ran: RunStepsResponse) -> str:
    if not ran.steps or any(step.status is not StepStatus.OK for step in ran.steps):
        return FAILED
    return answer_key_of(answer_of(ran.steps[-1]))
