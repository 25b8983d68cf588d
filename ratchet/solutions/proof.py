"""Proof bundles: how one is sealed, and what must hold of it.

The pure part only: hashes, counts and comparisons of what was claimed with what a re-execution printed.
Running the programs and comparing answers as mathematics is the sandbox's work; `ratchet verify` brings
the two together.
"""

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import orjson

from ratchet.contracts.sandbox import RunStepsResponse, StepStatus
from ratchet.contracts.search import Proof, ProofProgram, VerificationLevel
from ratchet.solutions.programs import fingerprint, program_of

REEXECUTION_SEED = 0
"""Seed of `random` in a clean re-execution: the builder of a bundle and its checker use the same one."""


@dataclass(frozen=True)
class Check:
    """One thing that a bundle claims, and whether it holds."""

    name: str
    holds: bool
    detail: str


def canonical_sha256(document: Mapping[str, Any]) -> str:
    """SHA-256 of a JSON object without its field `sha256`: keys sorted, no spaces, UTF-8."""
    body = {key: value for key, value in document.items() if key != "sha256"}
    return hashlib.sha256(orjson.dumps(body, option=orjson.OPT_SORT_KEYS)).hexdigest()


def steps_sha256(steps: Sequence[str]) -> str:
    """SHA-256 of the steps joined by a NUL byte, UTF-8."""
    return hashlib.sha256("\0".join(steps).encode()).hexdigest()


def proof_program(steps: Sequence[str], stdout: Sequence[str]) -> ProofProgram:
    """A program as a bundle holds it; `stdout` is what each step printed in its clean re-execution."""
    return ProofProgram(steps=list(steps), stdout=list(stdout), sha256=steps_sha256(steps))


def sealed(proof: Proof) -> Proof:
    """The same bundle with its own hash filled in."""
    return proof.model_copy(update={"sha256": canonical_sha256(proof.model_dump(mode="json"))})


def final_answer(stdout: Sequence[str]) -> str | None:
    """The last non-empty line that the last step printed, or None."""
    lines = [line.strip() for line in stdout[-1].splitlines()] if stdout else []
    return next((line for line in reversed(lines) if line), None)


def distinct_programs(programs: Sequence[Sequence[str]]) -> int:
    """How many of these programs (each a list of steps) differ in more than names."""
    return len({fingerprint(program_of(list(steps))) for steps in programs})


def check_bundle(document: Mapping[str, Any], proof: Proof) -> Iterator[Check]:
    """What can be said of a bundle without running anything. `document` is the JSON object as it was read."""
    yield _check_digest("bundle digest", canonical_sha256(document), proof.sha256)
    yield Check("programs", bool(proof.programs), f"{len(proof.programs)} in the bundle")
    for number, program in enumerate(proof.programs, 1):
        yield _check_digest(f"program {number} digest", steps_sha256(program.steps), program.sha256)


def _check_digest(name: str, found: str, claimed: str) -> Check:
    holds = found == claimed
    return Check(name, holds, f"sha256 {found[:16]}…" if holds else f"is {found}, the bundle says {claimed}")


def check_outputs(number: int, program: ProofProgram, ran: RunStepsResponse) -> Check:
    """Whether every step ran again and printed what the bundle says."""
    name = f"program {number} outputs"
    steps = len(program.steps)
    if len(program.stdout) != steps or len(ran.steps) != steps:
        return Check(
            name, False, f"{len(program.stdout)} outputs recorded, {steps} steps, {len(ran.steps)} run"
        )
    for index, (recorded, step) in enumerate(zip(program.stdout, ran.steps, strict=True), 1):
        if step.status is not StepStatus.OK:
            error = step.stderr.strip().splitlines()[-1:] or [ran.message]
            return Check(name, False, f"step {index} did not run: {step.status.value}. {error[0]}".strip())
        if step.stdout != recorded:
            return Check(name, False, f"step {index} printed {_short(step.stdout)}, not {_short(recorded)}")
    return Check(name, True, f"{_count(steps, 'step')} re-executed, every printed line the same")


def check_level(proof: Proof, good: Sequence[ProofProgram]) -> Check:
    """Whether `good`, the programs that ran as recorded and gave the answer, earn the verification level."""
    name = "verification level"
    level = proof.verification.level
    distinct = distinct_programs([program.steps for program in good])
    detail = f"{level.value}: {_count(distinct, 'different program')} gave the answer"
    match level:
        case VerificationLevel.NONE:
            return Check(name, False, "the bundle claims none")
        case VerificationLevel.AGREEMENT:
            needed = max(proof.parameters.min_agreement, proof.verification.distinct_programs)
        case VerificationLevel.EXECUTION:
            needed = 1
        case VerificationLevel.REFERENCE:
            needed = 1
            detail += "; that it equals the reference is the service's word, as the bundle does not hold it"
    return Check(name, distinct >= needed, detail if distinct >= needed else f"{detail}, needed: {needed}")


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"


def _short(text: str) -> str:
    return repr(text if len(text) <= 80 else text[:77] + "…")
