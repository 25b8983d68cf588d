"""Proof bundles are checked here, in a jail of our own, and nothing that a bundle says is believed.

The digests are computed again, every program runs again from nothing, what it prints is compared, and its answer is graded;
then it runs with the problem's quantities changed. What cannot be checked offline is said: that an answer equals a reference
answer, how often a program was found, and how many others voted.
"""

import contextlib
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from typing import Any

from pydantic import ValidationError

from ratchet.clients import SandboxClient, SandboxFailedError
from ratchet.contracts.sandbox import GradeRequest, RunStatus, RunStepsRequest
from ratchet.contracts.search import Proof, ProofProgram
from ratchet.solutions.answers import answer_of
from ratchet.solutions.behaviour import Question, ask_variants
from ratchet.solutions.clean_runs import REEXECUTION_SEED
from ratchet.solutions.proof import (
    Check,
    asked_variants,
    check_answers,
    check_behaviour,
    check_bundle,
    check_level,
    check_outputs,
)
from ratchet.stack.own_sandbox import local_sandbox


async def check_proof(document: Mapping[str, Any], proof: Proof) -> AsyncGenerator[Check, None]:
    """All checks of a bundle, in a jail of our own, each when it is done: first what needs none.

    `document` is the JSON object as it was read. Raises StackError where no jail can be had, ServiceError.
    """
    for check in check_bundle(document, proof):
        yield check
    async with (
        local_sandbox() as sandbox,
        contextlib.aclosing(check_programs(proof, sandbox)) as found,
    ):
        async for check in found:
            yield check


async def check_programs(proof: Proof, sandbox: SandboxClient) -> AsyncGenerator[Check, None]:
    """Run the programs of a bundle again, and check what they print and give. Raises ServiceError."""
    good: list[ProofProgram] = []
    for number, program in enumerate(proof.programs, 1):
        holds = True
        async for check in _run_again(number, program, proof, sandbox):
            holds = holds and check.holds
            yield check
        if holds:
            good.append(program)
    yield check_behaviour(proof, good)
    yield check_level(proof, good)


async def _run_again(
    number: int, program: ProofProgram, proof: Proof, sandbox: SandboxClient
) -> AsyncIterator[Check]:
    try:
        request = RunStepsRequest(steps=program.steps, seed=REEXECUTION_SEED)
    except ValidationError as error:
        yield Check(f"program {number} outputs", False, f"cannot be run: {error.errors()[0]['msg']}")
        return
    ran = await sandbox.run_steps(request)
    if ran.status is RunStatus.SANDBOX_ERROR:
        yield Check(f"program {number} outputs", False, f"the sandbox could not run it: {ran.message}")
        return
    yield check_outputs(number, program, ran)
    name = f"program {number} answer"
    printed = answer_of(ran.steps[-1])
    if printed is None:
        yield Check(name, False, "its last step prints no answer")
        return
    answer = proof.answer
    try:
        grade = await sandbox.grade(GradeRequest(candidate=printed, reference=answer))
    except ValidationError as error:
        yield Check(name, False, f"cannot be compared: {error.errors()[0]['msg']}")
        return
    words = f"prints {printed[:200]}, which {'is' if grade.equal else 'is not'} {answer[:200]} ({grade.rule.value})"
    yield Check(name, grade.equal, words)
    try:
        [answers] = await ask_variants([Question(program.steps, printed, asked_variants(proof))], sandbox)
    except SandboxFailedError as error:
        yield Check(f"program {number} variants", False, f"the sandbox could not run them: {error}")
        return
    yield check_answers(number, program, answers)
