"""Proof bundles: a seal that holds for the bundle alone, and claims that are counted and compared."""

from datetime import UTC, datetime
from typing import Any

import orjson
import pytest

from ratchet.contracts.sandbox import RunStepsResponse
from ratchet.contracts.search import Proof, VerificationLevel
from ratchet.solutions.counterfactual import make_variants
from ratchet.solutions.proof import (
    canonical_sha256,
    check_answers,
    check_behaviour,
    check_bundle,
    check_level,
    check_outputs,
    proof_program,
    proof_quantities,
    proof_variants,
    sealed,
)

PROBLEM = "6 rows of 7 é. How many?"
VARIANTS = make_variants(PROBLEM)
PRODUCTS = [f"number:{keys}" for keys in (12 * 21, 84, 84, 126, 126, 5 * 8)]
"""What `6 * 7` answers to the variants."""
ONE = proof_program(["# Sum.\na = 6 * 7", "print(a)"], ["", "42\n"], 2, PRODUCTS)
OTHER = proof_program(["print(7 * 6)"], ["42\n"], 1, PRODUCTS)
SUM = proof_program(
    ["print(6 + 36)"], ["42\n"], 1, ["number:48", "number:48", *["number:42"] * 3, "number:41"]
)
WRITTEN = proof_program(["print(42)"], ["42\n"], 3, ["number:42"] * 6)


def bundle(**changes: Any) -> Proof:
    fields: dict[str, Any] = {
        "search": "s1",
        "problem": PROBLEM,
        "answer": "42",
        "verification": {
            "level": "agreement",
            "votes": 3,
            "total_votes": 4,
            "independent_programs": 3,
            "forms": 1,
            "grounded": True,
            "prm_share": 0.1,
            "confidence": 1.0,
        },
        "quantities": proof_quantities(PROBLEM),
        "variants": proof_variants(VARIANTS),
        "programs": [ONE, OTHER],
        "seed": 0,
        "strategy": "mcts",
        "parameters": {},
        "models": {"policy": "m@1"},
        "versions": {"ratchet": "0"},
        "usage": {},
        "created_at": datetime(2026, 1, 1, 0, 0, 0, 1, UTC),
        "sha256": "",
    }
    return sealed(Proof.model_validate(fields | changes))


def reread(proof: Proof) -> dict[str, Any]:
    document: dict[str, Any] = orjson.loads(proof.model_dump_json())
    return document


def test_a_sealed_bundle_holds_after_a_way_through_json() -> None:
    document = reread(bundle())
    assert all(check.holds for check in check_bundle(document, Proof.model_validate(document)))
    assert canonical_sha256(dict(reversed(document.items()))) == document["sha256"]


@pytest.mark.parametrize(
    ("path", "value", "broken"),
    [
        (["answer"], "43", {"bundle digest"}),
        (["verification", "votes"], 9, {"bundle digest"}),
        (["programs", 1, "steps", 0], "print(42)", {"bundle digest", "program 2 digest"}),
        (["programs", 0, "stdout", 1], "43\n", {"bundle digest"}),
        (["programs"], [], {"bundle digest", "programs"}),
        (["quantities", 0, "values"], ["6", "42"], {"bundle digest", "quantities"}),
        (["variants", 0, "42"], "84", {"bundle digest", "variants"}),
        (["problem"], "6 rows of 8", {"bundle digest", "quantities", "variants"}),
    ],
)
def test_whatever_is_changed_breaks_the_seal(path: list[Any], value: Any, broken: set[str]) -> None:
    document = reread(bundle())
    place: Any = document
    for step in path[:-1]:
        place = place[step]
    place[path[-1]] = value
    checks = check_bundle(document, Proof.model_validate(document))
    assert {check.name for check in checks if not check.holds} == broken


@pytest.mark.parametrize(
    ("changes", "holds", "words"),
    [
        (
            {"confidence": 0.93, "min_confidence": 0.81},
            True,
            "0.93 of being right, the service's word; 0.81 counted",
        ),
        ({"confidence": 0.93}, True, "0.93 of being right"),
        ({"confidence": None}, True, "not calibrated"),
        ({"level": "reference", "confidence": 1.0}, True, "1.00 of being right"),
        ({"level": "reference", "confidence": 0.5}, False, "said to equal the reference"),
        ({"level": "reference", "confidence": None}, False, "said to equal the reference"),
    ],
)
def test_a_bundle_tells_the_probability_and_is_certain_of_a_reference(
    changes: dict[str, Any], holds: bool, words: str
) -> None:
    whole = bundle()
    verification = {**whole.verification.model_dump(), **changes}
    document = reread(bundle(verification=verification))
    [check] = [
        each for each in check_bundle(document, Proof.model_validate(document)) if each.name == "probability"
    ]
    assert check.holds is holds
    assert words in check.detail


def ran(*steps: tuple[str, str], stderr: str = "") -> RunStepsResponse:
    return RunStepsResponse.model_validate(
        {
            "status": "Success",
            "steps": [{"status": status, "stdout": stdout, "stderr": stderr} for status, stdout in steps],
            "measured": {"wall_seconds": 0, "cpu_seconds": 0, "peak_memory_mb": 0},
        }
    )


def test_outputs_are_compared_step_by_step() -> None:
    assert check_outputs(1, ONE, ran(("ok", ""), ("ok", "42\n"))).holds
    other = check_outputs(1, ONE, ran(("ok", ""), ("ok", "43\n")))
    assert (other.holds, other.detail) == (False, r"step 2 printed '43\n', not '42\n'")
    failed = check_outputs(1, ONE, ran(("error", ""), ("not_run", ""), stderr="Trace\nNameError: x\n"))
    assert (failed.holds, failed.detail) == (False, "step 1 did not run: error. NameError: x")
    assert not check_outputs(1, ONE, ran(("ok", ""))).holds
    assert not check_outputs(1, ONE.model_copy(update={"stdout": []}), ran(("ok", ""), ("ok", "42\n"))).holds


def test_answers_to_the_variants_are_compared_one_by_one() -> None:
    assert check_answers(1, ONE, PRODUCTS).holds
    other = check_answers(1, ONE, [*PRODUCTS[:5], "error"])
    assert (other.holds, other.detail) == (False, "variant 6 is answered 'error', not 'number:40'")
    assert not check_answers(1, ONE, PRODUCTS[:5]).holds


def test_programs_must_behave_alike_and_as_the_bundle_says() -> None:
    assert check_behaviour(bundle(), [ONE, OTHER]).holds
    assert not check_behaviour(bundle(), [ONE, SUM]).holds
    assert not check_behaviour(bundle(), [WRITTEN]).holds
    assert not check_behaviour(verified("agreement", 2, forms=2), [ONE, OTHER]).holds, "one form"
    assert not check_behaviour(bundle(), []).holds


def verified(
    level: str, independent_programs: int = 1, *, grounded: bool | None = True, forms: int = 1
) -> Proof:
    changes = {
        "level": VerificationLevel(level),
        "independent_programs": independent_programs,
        "grounded": grounded,
        "forms": forms,
    }
    return bundle(verification=bundle().verification.model_copy(update=changes).model_dump())


def test_an_agreement_counts_what_was_found_independently_and_behaves_alike() -> None:
    assert check_level(bundle(), [ONE, OTHER]).holds
    assert not check_level(bundle(), [ONE]).holds, "the bundle claims three"
    assert check_level(verified("agreement", 2), [ONE]).holds
    assert not check_level(verified("agreement", 1), [OTHER]).holds, "two must agree"
    assert not check_level(verified("agreement", 2), [OTHER, SUM]).holds
    assert not check_level(verified("agreement", 3, grounded=False), [WRITTEN]).holds


def test_where_nothing_can_be_changed_each_form_counts_once() -> None:
    one = proof_program(["print(42)"], ["42\n"], 3, [])
    same = proof_program(["x = 40", "print(x + 2)"], ["", "42\n"], 1, [])
    other = proof_program(["print(sum([40, 2]))"], ["42\n"], 1, [])
    agreed = verified("agreement", 2, grounded=None, forms=2)
    assert check_behaviour(agreed, [one, other]).holds
    assert check_level(agreed, [one, other]).holds
    assert not check_level(agreed, [one, same]).holds


@pytest.mark.parametrize(("level", "holds"), [("execution", True), ("reference", True), ("none", False)])
def test_one_program_earns_execution(level: str, holds: bool) -> None:
    assert check_level(verified(level), [ONE]).holds is holds
    assert not check_level(verified(level), []).holds


def test_what_was_written_down_earns_no_execution_but_can_equal_the_reference() -> None:
    assert not check_level(verified("execution", grounded=False), [WRITTEN]).holds
    assert check_level(verified("reference", grounded=False), [WRITTEN]).holds
