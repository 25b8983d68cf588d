"""What serves through all services: a pair stays what it is, whatever is restarted, and one can go back to it."""

import asyncio
import shutil
from pathlib import Path

import httpx
import pytest

from ratchet.clients import PolicyClient, PrmClient, TrainerClient
from ratchet.contracts.serving import PRM1
from ratchet.contracts.trainer import ModelKind, ModelRegistration, ServedBy
from ratchet.models.checkpoint import local_checkpoint
from ratchet.stack.config import StackConfig, StackUrls
from ratchet.stack.local import local_stack
from ratchet.states import ModelState
from services.trainer.promotion import EVERY_SECONDS
from tests.models import make_prm
from tests.running_stack import Keys, ratchet
from tests.small_rounds import Rounds

LOOKS = 3
BOUND_SECONDS = 60.0


async def register(rounds: Rounds, kind: ModelKind, folder: Path, parent: str) -> str:
    """Register the checkpoint in a folder; its version."""
    found = local_checkpoint(folder, rounds.stack.data / "cache")
    body = {
        "version": found.version, "kind": kind, "uri": str(folder), "sha256": found.sha256, "parent": parent,
    }  # fmt: skip
    response = await rounds.trainer.post("/models", json=body)
    assert response.status_code == 201, response.text
    return found.version


@pytest.fixture
async def siblings(rounds: Rounds, tmp_path: Path) -> list[str]:
    """Two policies that were trained from what the policy service starts with, as those of two rounds."""
    held = (await rounds.trainer.get(f"{rounds.stack.urls.policy}/models")).json()["models"]
    base = next(each for each in held if each["configured"])
    versions = []
    for number in range(2):
        copy = Path(shutil.copytree(base["uri"], tmp_path / f"round-{number}-policy"))
        (copy / "config.json").write_text((copy / "config.json").read_text() + " " * (number + 1))
        versions.append(await register(rounds, ModelKind.POLICY, copy, base["version"]))
    return versions


async def registered(rounds: Rounds) -> dict[str, list[str]]:
    """What the registry says to serve, by kind."""
    return {
        kind: [each.version for each in await rounds.models(kind, ModelState.SERVING)] for kind in ModelKind
    }


async def serves(rounds: Rounds, pair: dict[str, str]) -> None:
    """Returns when both services serve the pair."""
    async with asyncio.timeout(BOUND_SECONDS):
        while await rounds.served() != pair:
            await asyncio.sleep(0.1)


async def test_a_policy_stays_with_the_prm_of_an_earlier_round_and_one_can_go_back(
    rounds: Rounds, siblings: list[str], tmp_path: Path
) -> None:
    earlier, later = siblings
    prm = await register(rounds, ModelKind.PRM, make_prm(tmp_path / "round-0-prm", seed=1), earlier)
    before = await rounds.served()
    async with TrainerClient(rounds.stack.urls.trainer, key=rounds.stack.urls.key) as trainer:
        for version, beside in ((earlier, PRM1), (prm, prm), (later, PRM1)):
            promoted = await trainer.serve(version)
            assert promoted.prm == beside, "it was trained on another policy"
        promoted = await trainer.serve(prm)
        assert (promoted.policy, promoted.prm, promoted.why) == (later, prm, ServedBy.PERSON)

        pair = {"policy": later, "prm": prm}
        for part in (None, "prm", "policy", "trainer"):
            if part is not None:
                await rounds.stack.kill(part)
                await serves(rounds, pair)
            await asyncio.sleep(LOOKS * EVERY_SECONDS)
            assert await rounds.served() == pair, f"after {part} was killed"
            assert await registered(rounds) == {"policy": [later], "prm": [prm]}
            assert (await trainer.pairs())[0] == promoted

        back = await trainer.roll_back(promoted.id)
        assert (back.policy, back.prm) == (later, PRM1)
        assert await rounds.served() == {"policy": later, "prm": PRM1}
        for expected in ({"policy": earlier, "prm": prm}, {"policy": earlier, "prm": PRM1}, before):
            done = await ratchet("models", "rollback", f"--data={rounds.stack.data}")
            assert done.code == 0, done.stderr
            assert done.stdout.strip() == f"serving {expected['policy']} with {expected['prm']}"
            assert await rounds.served() == expected
        assert (await trainer.serve(earlier)).prm == PRM1, "with which it last served"
        newest = (await trainer.pairs(1))[0]
        await trainer.roll_back(newest.id)
    assert await rounds.served() == before
    listed = await ratchet("models", "pairs", f"--data={rounds.stack.data}")
    assert listed.code == 0, listed.stderr
    assert before["policy"] in listed.stdout


async def test_a_stack_that_starts_again_serves_its_pair_from_the_first_moment(tmp_path: Path) -> None:
    config = StackConfig(data=tmp_path / "data", model="nano", services=("policy", "prm", "trainer"))

    async def served(urls: StackUrls) -> list[str]:
        async with (
            PolicyClient(urls.policy, key=urls.token) as policy,
            PrmClient(urls.prm, key=urls.token) as prm,
        ):
            held = [*await policy.models(), *await prm.models()]
        return [each.version for each in held if each.serving]

    async with local_stack(config) as urls, TrainerClient(urls.trainer, key=urls.key) as trainer:
        base, first = await served(urls)
        assert first == PRM1
        folder = make_prm(tmp_path / "prm", seed=3)
        found = local_checkpoint(folder, tmp_path / "cache")
        model = ModelRegistration(
            version=found.version, kind=ModelKind.PRM, uri=str(folder), sha256=found.sha256, parent=base
        )
        async with httpx.AsyncClient(base_url=urls.trainer, auth=Keys(urls)) as client:
            (await client.post("/models", json=model.model_dump(mode="json"))).raise_for_status()
        await trainer.serve(found.version)
        assert await served(urls) == [base, found.version]
    async with local_stack(config) as urls:
        assert await served(urls) == [base, found.version]


async def test_a_prm_that_cannot_be_held_leaves_the_pair_as_it_was(rounds: Rounds, tmp_path: Path) -> None:
    before, pairs = await rounds.served(), (await rounds.trainer.get("/pairs")).json()
    broken = make_prm(tmp_path / "broken-prm", seed=2)
    version = await register(rounds, ModelKind.PRM, broken, before["policy"])
    weights = broken / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    response = await rounds.trainer.post(f"/models/{version}/serve")
    assert response.status_code == 409
    assert "model.safetensors is damaged" in response.json()["detail"]
    assert (await rounds.trainer.get("/pairs")).json() == pairs
    assert await rounds.served() == before
