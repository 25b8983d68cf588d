"""Proof bundles: how one is sealed, and what must hold of it.

The pure part only: hashes, counts and comparisons of what was claimed with what a re-execution printed.
Running the programs and their variants and comparing answers as mathematics is the sandbox's work; `ratchet verify` brings
the two together.
"""

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import orjson

from ratchet.contracts.sandbox import RunStepsResponse, StepStatus
from ratchet.contracts.search import Proof, ProofBeginning, ProofProgram, StatedQuantity, VerificationLevel
from ratchet.solutions.answers import last_line
from ratchet.solutions.behaviour import Behaviour, behaviour_of
from ratchet.solutions.canonical import count_forms
from ratchet.solutions.counterfactual import Variant, make_variants, telling_variants
from ratchet.solutions.quantities import find_quantities


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


def proof_program(
    steps: Sequence[str], stdout: Sequence[str], found: int, answers: Sequence[str]
) -> ProofProgram:
    """A program as a bundle holds it.

    `stdout` is what each step printed in its clean re-execution, `found` how often it was found independently, `answers` the
    keys of what it answers to the variants.
    """
    return ProofProgram(
        steps=list(steps), stdout=list(stdout), found=found, answers=list(answers), sha256=steps_sha256(steps)
    )


def proof_quantities(problem: str) -> list[StatedQuantity]:
    """The quantities of a problem as a bundle holds them."""
    return [
        StatedQuantity(
            text=problem[each.start : each.end],
            start=each.start,
            values=[str(value) for value in each.values],
        )
        for each in find_quantities(problem)
    ]


def proof_variants(variants: Sequence[Variant]) -> list[dict[str, str]]:
    """Variants as a bundle holds them."""
    return [{str(old): str(new) for old, new in variant.items()} for variant in variants]


def sealed(proof: Proof) -> Proof:
    """The same bundle with its own hash filled in."""
    return proof.model_copy(update={"sha256": canonical_sha256(proof.model_dump(mode="json"))})


def check_bundle(document: Mapping[str, Any], proof: Proof) -> Iterator[Check]:
    """What can be said of a bundle without running anything. `document` is the JSON object as it was read."""
    yield _check_digest("bundle digest", canonical_sha256(document), proof.sha256)
    yield Check("programs", bool(proof.programs), f"{len(proof.programs)} in the bundle")
    for number, program in enumerate(proof.programs, 1):
        yield _check_digest(f"program {number} digest", steps_sha256(program.steps), program.sha256)
    stated = proof_quantities(proof.problem)
    yield Check(
        "quantities", stated == proof.quantities, f"{_count(len(stated), 'quantity')} in the problem's text"
    )
    variants = asked_variants(proof)
    # A change of a number that the problem does not state would make any constant respond.
    yield Check(
        "variants",
        proof_variants(variants) == proof.variants,
        f"{_count(len(variants), 'variant')} of the problem",
    )
    yield _check_probability(proof)
    if proof.beginning is not None:
        yield _check_beginning(proof.beginning, proof)


def _check_beginning(beginning: ProofBeginning, proof: Proof) -> Check:
    """Whether the programs begin as was given. Those that do share their first step, and cannot agree independently."""
    name, given = "beginning", len(beginning.steps)
    if any(program.steps[:given] != beginning.steps for program in proof.programs):
        return Check(name, False, "a program does not begin with the steps that were given")
    if given and proof.verification.independent_programs > 1:
        return Check(name, False, "programs that share what was given are counted as independent")
    edited = ", the last of them edited" if beginning.edited else ""
    words = f"{_count(given, 'step')} given by a person{edited}"
    forbidden = f"; {_count(len(beginning.forbidden), 'step')} forbidden" if beginning.forbidden else ""
    return Check(name, True, words + forbidden)


def _check_probability(proof: Proof) -> Check:
    """Whether what is said of the probability can be: where the answer equals a reference it is certain."""
    name, stated = "probability", proof.verification.confidence
    if proof.verification.level is VerificationLevel.REFERENCE and stated != 1.0:
        return Check(name, False, f"{stated} of an answer that is said to equal the reference")
    if stated is None:
        return Check(name, True, "not calibrated for these models")
    asked = proof.verification.min_confidence
    words = "" if asked is None else f"; {asked:.2f} counted as solved"
    return Check(name, True, f"{stated:.2f} of being right, the service's word{words}")


def asked_variants(proof: Proof) -> list[Variant]:
    """The variants of the bundle's problem that its programs were to answer: all, or the few that tell whether one responds."""
    every = make_variants(proof.problem)
    return telling_variants(every) if len(proof.variants) < len(every) else every


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


def check_answers(number: int, program: ProofProgram, answers: Sequence[str]) -> Check:
    """Whether the program answered to the variants what the bundle says."""
    name = f"program {number} variants"
    if list(answers) == program.answers:
        return Check(name, True, f"{_count(len(answers), 'variant')} re-executed, every answer the same")
    if len(answers) != len(program.answers):
        return Check(name, False, f"{len(program.answers)} answers recorded, {len(answers)} variants")
    pairs = enumerate(zip(program.answers, answers, strict=True), 1)
    place, recorded, found = next((place, old, new) for place, (old, new) in pairs if old != new)
    return Check(name, False, f"variant {place} is answered {_short(found)}, not {_short(recorded)}")


def check_behaviour(proof: Proof, good: Sequence[ProofProgram]) -> Check:
    """Whether `good`, the programs that ran as recorded, behave alike, and respond to the quantities as the bundle says."""
    name = "behaviour"
    if not good:
        return Check(name, False, "no program ran as recorded")
    behaviours = [_behaviour(program) for program in good]
    grounded = behaviours[0].grounded
    if grounded is None:
        words = "the problem states no quantity that could be changed"
    else:
        words = "the answer changes with the quantities" if grounded else "the answer depends on no quantity"
        if len({behaviour.signature for behaviour in behaviours}) > 1:
            return Check(name, False, "the programs do not answer alike to the variants")
    forms = count_forms((program.steps for program in good), compute=grounded is None)
    words = f"{_count(forms, 'form')}, {words}"
    claimed = proof.verification
    holds = grounded is claimed.grounded and forms == claimed.forms
    if not holds:
        words += f"; the bundle says {_count(claimed.forms, 'form')}, grounded: {claimed.grounded}"
    return Check(name, holds, words)


def check_level(proof: Proof, good: Sequence[ProofProgram]) -> Check:
    """Whether `good`, the programs that ran as recorded and gave the answer, earn the verification level."""
    name = "verification level"
    level = proof.verification.level
    found = _independent_programs(good)
    detail = (
        f"{level.value}: the service says that programs of one behaviour were found {_count(found, 'time')}"
    )
    needed = 1
    match level:
        case VerificationLevel.NONE:
            return Check(name, False, "the bundle claims none")
        case VerificationLevel.AGREEMENT:
            needed = proof.parameters.min_agreement
        case VerificationLevel.REFERENCE:
            detail += "; that it equals the reference is its word as well, as the bundle does not hold it"
    needed = max(needed, proof.verification.independent_programs)
    if found < needed:
        return Check(name, False, f"{detail}, needed: {needed}")
    verification = proof.verification
    if level is VerificationLevel.AGREEMENT and 2 * verification.votes < verification.total_votes:
        return Check(
            name,
            False,
            f"{detail}, but {verification.votes} of {verification.total_votes} votes are not half",
        )
    if level is not VerificationLevel.REFERENCE and _behaviour(good[0]).grounded is False:
        return Check(name, False, f"{detail}, but the answer depends on no quantity")
    return Check(name, True, detail)


def _independent_programs(good: Sequence[ProofProgram]) -> int:
    """Finds of programs that behave like the first; where nothing could be changed, of each form one."""
    behaviours = [_behaviour(program) for program in good]
    if behaviours and behaviours[0].grounded is None:
        found = {each.signature for each, program in zip(behaviours, good, strict=True) if program.found}
        return len(found)
    return sum(
        program.found
        for each, program in zip(behaviours, good, strict=True)
        if each.signature == behaviours[0].signature
    )


def _behaviour(program: ProofProgram) -> Behaviour:
    printed = last_line(program.stdout[-1]) if program.stdout else None
    return behaviour_of(program.steps, printed or "", program.answers)


def _count(number: int, noun: str) -> str:
    plural = f"{noun[:-1]}ies" if noun.endswith("y") else f"{noun}s"
    return f"{number} {noun if number == 1 else plural}"


def _short(text: str) -> str:
    return repr(text if len(text) <= 80 else text[:77] + "…")
