"""How does a program behave when the problem's quantities are other ones? Runs its variants in the jail.

Limits: a run that a limit ends counts as failed, so a program that takes nearly as long as it may can behave in two ways.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

from pydantic import ValidationError

from ratchet.batching import within_a_request
from ratchet.clients import SandboxClient, SandboxFailedError
from ratchet.contracts.sandbox import (
    RunStatus,
    RunStepsBatchRequest,
    RunStepsRequest,
    RunStepsResponse,
    StepStatus,
)
from ratchet.solutions.answers import answer_key, answer_of
from ratchet.solutions.canonical import canonical_form
from ratchet.solutions.counterfactual import Variant, apply_variant
from ratchet.solutions.programs import program_of

REEXECUTION_SEED = 0
"""Seed of `random` in clean re-executions: whoever makes a proof and whoever checks it use the same one."""
VARIANT_SECONDS = 5.0
"""For all steps of one variant: half of what the program itself may take."""
VARIANT_MEMORY_MB = 512
FAILED = "error"
"""Answer of a variant that does not run to its end."""
SILENT = "none"
"""Answer of a variant whose last step gives none."""
_ATTEMPTS = 3
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


async def ask_variants(
    programs: Sequence[Sequence[str]],
    answers: Sequence[str],
    variants: Sequence[Variant],
    sandbox: SandboxClient,
) -> list[tuple[str, ...]]:
    """What each program, which gives the answer beside it, answers to each variant (keys).

    A variant that changes nothing in a program is not run. Raises ServiceError, SandboxFailedError.
    """
    changed = [[apply_variant(steps, variant) for variant in variants] for steps in programs]
    runs: dict[tuple[str, ...], RunStepsRequest | None] = {}
    for original, variations in zip(programs, changed, strict=True):
        for steps in variations:
            if steps != list(original):
                runs.setdefault(tuple(steps), _request(steps))
    keys = await _run_all(runs, sandbox)
    return [
        tuple(
            answer_key_of(answer) if steps == list(original) else keys[tuple(steps)] for steps in variations
        )
        for original, answer, variations in zip(programs, answers, changed, strict=True)
    ]


def _request(steps: list[str]) -> RunStepsRequest | None:
    """None where the changes made a step longer than a step may be."""
    try:
        return RunStepsRequest(
            steps=steps,
            seed=REEXECUTION_SEED,
            run_timeout=VARIANT_SECONDS,
            memory_limit_MB=VARIANT_MEMORY_MB,
        )
    except ValidationError:
        return None


async def _run_all(
    runs: dict[tuple[str, ...], RunStepsRequest | None], sandbox: SandboxClient
) -> dict[tuple[str, ...], str]:
    keys = {steps: FAILED for steps, request in runs.items() if request is None}
    message = ""
    for _ in range(_ATTEMPTS):
        left = [
            (steps, request) for steps, request in runs.items() if request is not None and steps not in keys
        ]
        for batch in within_a_request(left, lambda run: sum(map(len, run[0]))):
            asked = RunStepsBatchRequest(runs=[request for _, request in batch])
            for (steps, _), ran in zip(batch, (await sandbox.run_steps_batch(asked)).results, strict=True):
                if ran.status is RunStatus.SANDBOX_ERROR:
                    message = ran.message
                else:
                    keys[steps] = _answer_of_run(ran)
        if len(keys) == len(runs):
            return keys
    raise SandboxFailedError(message)


def _answer_of_run(ran: RunStepsResponse) -> str:
    if not ran.steps or any(step.status is not StepStatus.OK for step in ran.steps):
        return FAILED
    return answer_key_of(answer_of(ran.steps[-1]))
