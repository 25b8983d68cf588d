"""Proof bundles: a seal that holds for the bundle alone, and claims that are counted and compared."""

from datetime import UTC, datetime
from typing import Any

import orjson
import pytest

from ratchet.contracts.sandbox import RunStepsResponse
from ratchet.contracts.search import Proof, VerificationLevel
from ratchet.solutions.proof import (
    canonical_sha256,
    check_bundle,
    check_level,
    check_outputs,
    distinct_programs,
    final_answer,
    proof_program,
    sealed,
)

ONE = proof_program(["# Sum.\na = 40 + 2", "print(a)"], ["", "42\n"])
RENAMED = proof_program(["# Total.\nb = 40 + 2", "print(b)"], ["", "42\n"])
OTHER = proof_program(["print(6 * 7)"], ["42\n"])


def bundle(**changes: Any) -> Proof:
    fields: dict[str, Any] = {
        "search": "s1",
        "problem": "How many? é",
        "answer": "42",
        "verification": {
            "level": "agreement",
            "votes": 3,
            "total_votes": 4,
            "distinct_programs": 2,
            "prm_share": 0.1,
            "confidence": 1.0,
        },
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


def test_copies_under_other_names_are_no_agreement() -> None:
    assert distinct_programs([ONE.steps, RENAMED.steps]) == 1
    assert check_level(bundle(), [ONE, OTHER]).holds
    assert not check_level(bundle(), [ONE, RENAMED]).holds
    assert not check_level(bundle(), [OTHER]).holds


@pytest.mark.parametrize(("level", "holds"), [("execution", True), ("reference", True), ("none", False)])
def test_one_program_earns_execution(level: str, holds: bool) -> None:
    verification = bundle().verification.model_copy(
        update={"level": VerificationLevel(level), "distinct_programs": 1}
    )
    proof = bundle(verification=verification.model_dump())
    assert check_level(proof, [ONE]).holds is holds
    assert not check_level(proof, []).holds


def test_the_answer_is_the_last_line_that_the_last_step_prints() -> None:
    assert final_answer(["1\n", "so\n 42 \n\n"]) == "42"
    assert final_answer(["42\n", " \n"]) is None
    assert final_answer([]) is None
