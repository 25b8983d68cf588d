"""`ratchet verify` in a real jail: what holds holds, and whatever is forged is found."""

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

from ratchet.cli.verify import check_programs, read_bundle
from ratchet.clients import SandboxClient
from ratchet.contracts.search import Proof
from ratchet.solutions.proof import canonical_sha256, check_bundle, proof_program, sealed, steps_sha256
from tests.cli_process import ratchet
from tests.sandbox_server import Sandbox, sandbox

__all__ = ["sandbox"]

SUM = proof_program(["# Sum.\na = 40 + 2", "print(a)"], ["", "42\n"])
PRODUCT = proof_program(["import math\nb = math.prod([2, 3, 7])\nprint(float(b))"], ["42.0\n"])


def bundle(*programs: Any, answer: str = "42") -> dict[str, Any]:
    proof = Proof.model_validate(
        {
            "search": "s1",
            "problem": "How many?",
            "answer": answer,
            "verification": {
                "level": "agreement",
                "votes": 3,
                "total_votes": 4,
                "distinct_programs": 2,
                "prm_share": 0.9,
                "confidence": 0.8,
            },
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
    done = verify(tmp_path / "p.json", bundle(SUM, PRODUCT))
    assert done.returncode == 0, done.stdout + done.stderr
    assert "FAILS" not in done.stdout
    assert "All of it holds" in done.stdout


def forged_digest() -> dict[str, Any]:
    return bundle(SUM, PRODUCT) | {"answer": "43"}


def resealed(document: dict[str, Any]) -> dict[str, Any]:
    for program in document["programs"]:
        program["sha256"] = steps_sha256(program["steps"])
    return document | {"sha256": canonical_sha256(document)}


def forged_output() -> dict[str, Any]:
    document = bundle(SUM, PRODUCT)
    document["programs"][0]["stdout"][1] = "43\n"
    return resealed(document)


def forged_program() -> dict[str, Any]:
    document = bundle(SUM, PRODUCT)
    document["programs"][1]["steps"][0] = "print(no_such_name)"
    return resealed(document)


RENAMED = proof_program(["# Total.\nb = 40 + 2", "print(b)"], ["", "42\n"])


@pytest.mark.parametrize(
    ("document", "broken"),
    [
        (forged_digest(), {"bundle digest", "program 1 answer", "program 2 answer", "verification level"}),
        (forged_output(), {"program 1 outputs", "verification level"}),
        (forged_program(), {"program 2 outputs", "program 2 answer", "verification level"}),
        (bundle(SUM, RENAMED), {"verification level"}),
        (
            bundle(SUM, PRODUCT, answer="43"),
            {"program 1 answer", "program 2 answer", "verification level"},
        ),
    ],
    ids=["digest", "output", "program", "copy", "answer"],
)
async def test_a_forgery_is_found(
    sandbox: Sandbox, tmp_path: Path, document: dict[str, Any], broken: set[str]
) -> None:
    path = tmp_path / "p.json"
    path.write_text(json.dumps(document))
    found, proof = read_bundle(path)
    async with SandboxClient(str(sandbox.http.base_url)) as client:
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
        "verification level",
    ]


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"format": "other/1"}'])
def test_what_is_no_bundle_is_wrong_use(tmp_path: Path, content: str) -> None:
    path = tmp_path / "p.json"
    path.write_text(content)
    done = ratchet("verify", str(path))
    assert done.returncode == 2
    assert "PROOF" in done.stderr
