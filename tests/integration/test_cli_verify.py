"""`ratchet verify` in a real jail: what holds holds, and whatever is forged is found."""

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

from ratchet.cli.verify import read_bundle
from ratchet.client.proofs import check_programs
from ratchet.clients import SandboxClient
from ratchet.contracts.search import Proof
from ratchet.solutions.counterfactual import make_variants
from ratchet.solutions.proof import (
    canonical_sha256,
    check_bundle,
    proof_program,
    proof_quantities,
    proof_variants,
    sealed,
    steps_sha256,
)
from tests.cli_process import ratchet
from tests.sandbox_server import TOKEN, Sandbox, sandbox

__all__ = ["sandbox"]

PROBLEM = "6 rows of 7 seats. How many seats are there?"
PRODUCTS = [f"number:{answer}" for answer in (252, 84, 84, 126, 126, 40)]
"""What a product of the two answers when both are changed, each alone in two ways, and both to neighbours."""
ONE = proof_program(["# Rows.\na = 6 * 7", "print(a)"], ["", "42\n"], 1, PRODUCTS)
OTHER = proof_program(["import math\nb = math.prod([7, 6])\nprint(float(b))"], ["42.0\n"], 1, PRODUCTS)
SUM = proof_program(
    ["print(36 + 6)"],
    ["42\n"],
    1,
    ["number:48", "number:48", "number:42", "number:54", "number:42", "number:41"],
)
WRITTEN = proof_program(["seats_left = 42", "print(seats_left)"], ["", "42\n"], 2, ["number:42"] * 6)


def bundle(
    *programs: Any, answer: str = "42", grounded: bool = True, level: str = "agreement"
) -> dict[str, Any]:
    proof = Proof.model_validate(
        {
            "search": "s1",
            "problem": PROBLEM,
            "answer": answer,
            "verification": {
                "level": level,
                "votes": 3,
                "total_votes": 4,
                "independent_programs": 2,
                "forms": len(programs),
                "grounded": grounded,
                "prm_share": 0.9,
                "confidence": 1.0 if level == "reference" else 0.8,
            },
            "quantities": proof_quantities(PROBLEM),
            "variants": proof_variants(make_variants(PROBLEM)),
            "programs": list(programs),
            "seed": 0,
            "strategy": "mcts",
            "parameters": {},
            "models": {"policy": "m@1"},
            "versions": {"ratchet": "0"},
            "usage": {},
            "created_at": "2026-01-01T00:00:00Z",
            "sha256": "",
        }
    )
    return sealed(proof).model_dump(mode="json")


def verify(path: Path, document: dict[str, Any], *options: str) -> "subprocess.CompletedProcess[str]":
    path.write_text(json.dumps(document))
    return ratchet("verify", str(path), *options)


def test_an_honest_bundle_holds(tmp_path: Path) -> None:
    done = verify(tmp_path / "p.json", bundle(ONE, OTHER))
    assert done.returncode == 0, done.stdout + done.stderr
    assert "FAILS" not in done.stdout
    assert "All of it holds" in done.stdout


def forged_digest() -> dict[str, Any]:
    return bundle(ONE, OTHER) | {"answer": "43"}


def resealed(document: dict[str, Any]) -> dict[str, Any]:
    for program in document["programs"]:
        program["sha256"] = steps_sha256(program["steps"])
    return document | {"sha256": canonical_sha256(document)}


def forged_output() -> dict[str, Any]:
    document = bundle(ONE, OTHER)
    document["programs"][0]["stdout"][1] = "43\n"
    return resealed(document)


def forged_program() -> dict[str, Any]:
    document = bundle(ONE, OTHER)
    document["programs"][1]["steps"][0] = "print(no_such_name)"
    return resealed(document)


def forged_variant() -> dict[str, Any]:
    """The answer itself among what is changed: so any constant responds."""
    document = bundle(WRITTEN)
    document["variants"][0]["42"] = "84"
    document["programs"][0]["answers"][0] = "number:84"
    return resealed(document)


def forged_answers() -> dict[str, Any]:
    document = bundle(ONE, SUM)
    document["programs"][1]["answers"] = list(PRODUCTS)
    return resealed(document)


@pytest.mark.parametrize(
    ("document", "broken"),
    [
        (
            forged_digest(),
            {"bundle digest", "program 1 answer", "program 2 answer", "behaviour", "verification level"},
        ),
        (forged_output(), {"program 1 outputs", "behaviour", "verification level"}),
        (
            forged_program(),
            {"program 2 outputs", "program 2 answer", "behaviour", "verification level"},
        ),
        (
            bundle(ONE, OTHER, answer="43"),
            {"program 1 answer", "program 2 answer", "behaviour", "verification level"},
        ),
        (forged_variant(), {"variants", "program 1 variants", "behaviour", "verification level"}),
        (forged_answers(), {"program 2 variants", "behaviour", "verification level"}),
        (bundle(ONE, SUM), {"behaviour", "verification level"}),
        (bundle(WRITTEN), {"behaviour", "verification level"}),
        (bundle(WRITTEN, grounded=False), {"verification level"}),
        (bundle(WRITTEN, grounded=False, level="reference"), set()),
    ],
    ids=[
        *("digest", "output", "program", "answer", "variant", "answers"),
        *("other behaviour", "claimed grounded", "not grounded", "reference"),
    ],
)
async def test_a_forgery_is_found(
    sandbox: Sandbox, tmp_path: Path, document: dict[str, Any], broken: set[str]
) -> None:
    path = tmp_path / "p.json"
    path.write_text(json.dumps(document))
    found, proof = read_bundle(path)
    async with SandboxClient(str(sandbox.http.base_url), key=TOKEN) as client:
        ran = [check async for check in check_programs(proof, client)]
    checks = [*check_bundle(found, proof), *ran]
    assert {check.name for check in checks if not check.holds} == broken, checks


def test_a_forgery_is_told_and_exits_1(tmp_path: Path) -> None:
    done = verify(tmp_path / "p.json", forged_output(), "--json")
    assert done.returncode == 1, done.stdout + done.stderr
    found = json.loads(done.stdout)
    assert found["holds"] is False
    assert [check["name"] for check in found["checks"] if not check["holds"]] == [
        "program 1 outputs",
        "behaviour",
        "verification level",
    ]


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"format": "other/1"}'])
def test_what_is_no_bundle_is_wrong_use(tmp_path: Path, content: str) -> None:
    path = tmp_path / "p.json"
    path.write_text(content)
    done = ratchet("verify", str(path))
    assert done.returncode == 2
    assert "PROOF" in done.stderr
