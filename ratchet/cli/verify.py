"""`ratchet verify`: re-executes a proof bundle offline, in a jail of our own, and says what holds and what does not.

Nothing that the bundle says is believed: the digests are computed again, every program runs again from nothing, what
it prints is compared, and its answer is graded; then it runs with the problem's quantities changed. What cannot be checked
offline is said: that an answer equals a reference answer, how often a program was found, and how many others voted.
"""

import contextlib
from collections.abc import AsyncGenerator, AsyncIterator
from pathlib import Path
from typing import Annotated, Any

import orjson
import typer
from pydantic import ValidationError
from rich.console import Console
from rich.text import Text

from ratchet.cli.display import clean
from ratchet.cli.session import Interrupts, local_sandbox, run
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

MAX_BUNDLE_BYTES = 64 * 2**20


def verify(
    bundle: Annotated[Path, typer.Argument(metavar="PROOF", help="A proof bundle, as JSON.")],
    json: Annotated[bool, typer.Option("--json", help="Print only the findings, as JSON.")] = False,
) -> None:
    """Check a proof bundle. Exit code 0: all of it holds, 1: something does not, 2: no bundle, 3: no jail."""
    document, proof = read_bundle(bundle)
    console = Console(stderr=json)

    async def command(_: Interrupts) -> int:
        checks: list[Check] = []
        async with contextlib.aclosing(_checks(document, proof)) as found:
            async for check in found:
                checks.append(check)
                mark = Text("holds  ", "green") if check.holds else Text("FAILS  ", "bold red")
                console.print(mark + Text(f"{check.name}: {clean(check.detail)}"), soft_wrap=True)
        holds = all(check.holds for check in checks)
        if json:
            findings = {
                "bundle": str(bundle),
                "search": proof.search,
                "answer": proof.answer,
                "holds": holds,
                "checks": [{"name": c.name, "holds": c.holds, "detail": c.detail} for c in checks],
            }
            print(orjson.dumps(findings).decode(), flush=True)
        else:
            failing = sum(not check.holds for check in checks)
            words = "All of it holds." if holds else f"{failing} of {len(checks)} checks fail."
            console.print(
                Text(f"Answer {clean(proof.answer)}. {words}", "bold green" if holds else "bold red")
            )
        return 0 if holds else 1

    run(command)


def read_bundle(path: Path) -> tuple[dict[str, Any], Proof]:
    """The JSON object as it is, and as a Proof. Raises typer.BadParameter."""
    try:
        with path.open("rb") as file:
            content = file.read(MAX_BUNDLE_BYTES + 1)
    except OSError as error:
        raise typer.BadParameter(f"{path}: {error.strerror}.", param_hint="PROOF") from None
    if len(content) > MAX_BUNDLE_BYTES:
        raise typer.BadParameter(f"{path}: larger than {MAX_BUNDLE_BYTES} bytes.", param_hint="PROOF")
    try:
        document = orjson.loads(content)
        if isinstance(document, dict) and document.get("format") == "ratchet-proof/1":
            raise typer.BadParameter(
                f"{path}: made by Ratchet 0.1, whose bundles have other fields. Verify it with that version.",
                param_hint="PROOF",
            )
        return document, Proof.model_validate(document)
    except orjson.JSONDecodeError as error:
        raise typer.BadParameter(f"{path}: not valid JSON: {error.msg}.", param_hint="PROOF") from None
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(str(part) for part in first["loc"]) or "the document"
        raise typer.BadParameter(
            f"{path}: not a proof bundle: {clean(field)}: {first['msg']}.", param_hint="PROOF"
        ) from None


async def _checks(document: dict[str, Any], proof: Proof) -> AsyncGenerator[Check, None]:
    """Each when it is done: first what needs no sandbox."""
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


def register(app: typer.Typer) -> None:
    """Add the command to the program."""
    app.command()(verify)
