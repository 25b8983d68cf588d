"""The PRM service with trained PRMs: loading, swapping and letting go over real HTTP, and scores that equal a plain pass.

The PRMs are random networks of 0.1 M parameters, which is enough to tell versions apart; there is no policy behind them.
"""

import asyncio
import json
import os
import shutil
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from ratchet.clients import PolicyClient, PrmClient, ServiceError
from ratchet.contracts.prm import ScoreRequest
from ratchet.contracts.serving import PRM1, LoadModel
from ratchet.models.prm_head import CONFIG_KEY, HeadError, prm_text
from ratchet.settings import PrmSettings
from ratchet.web.app import EXIT_FAILED
from services.prm.app import build_app
from services.prm.cache import StepCache
from services.prm.head import TrainedHead
from services.prm.prm1 import LikelihoodPrm
from services.prm.versions import PrmVersions
from tests.http_double import listening
from tests.models import CALIBRATION, make_checkpoint, make_prm
from tests.served_app import served

PROBLEM = "A shelf holds 4 boxes of 12 cups. 5 cups are broken. How many are whole?"
STEPS = ["# Count all.\ncups = 4 * 12", "# Take away.\ncups -= 5", "print(cups)"]


@pytest.fixture(scope="module")
def first(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_prm(tmp_path_factory.mktemp("prm") / "first", seed=1)


@pytest.fixture(scope="module")
def second(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_prm(tmp_path_factory.mktemp("prm") / "second", seed=2)


@pytest.fixture(scope="module")
def cache_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="module")
def base_url(first: Path, cache_dir: Path) -> Iterator[str]:
    # Nobody listens for the policy: a trained PRM needs none.
    with listening() as nobody:
        settings = PrmSettings(
            policy_url=f"http://127.0.0.1:{nobody.getsockname()[1]}",
            prm_model=str(first),
            cache_dir=cache_dir,
        )
        with served(build_app(settings), settings) as url:
            yield url


@pytest.fixture
async def prm(base_url: str) -> AsyncIterator[PrmClient]:
    """The service, holding PRM1 and the first version alone, which serves."""
    async with PrmClient(base_url, retry_seconds=0.0) as client:
        async with asyncio.timeout(20):
            while not (await client.health()).ready:
                await asyncio.sleep(0.05)
        yield client
        held = await client.models()
        started = next(model.version for model in held if model.version.startswith("first@"))
        await client.serve(started)
        for model in held:
            if model.version not in (started, PRM1):
                await client.unload(model.version)


def plain(folder: Path, problem: str, steps: list[str]) -> list[float]:
    """The calibrated score of each step, each from a pass over the text up to its marker and nothing else."""
    head = TrainedHead(folder, device="cpu")
    scores = []
    for count in range(1, len(steps) + 1):
        text, _ = prm_text(problem, steps[:count])
        ids = head._tokenizer(text.removesuffix("\n"), return_tensors="pt")["input_ids"]
        with torch.inference_mode():
            scores.append(CALIBRATION.probability(float(head._model(input_ids=ids).logits[0, -1, 0])))
    return scores


def ask(steps: list[list[str]], problem: str = PROBLEM, **fields: Any) -> ScoreRequest:
    return ScoreRequest(problem=problem, steps=steps, **fields)


async def refusal(call: Any) -> ServiceError:
    with pytest.raises(ServiceError) as caught:
        await call
    return caught.value


# --- the service -----------------------------------------------------------------------------------------------------


async def test_the_prm_of_the_settings_serves_without_a_policy(prm: PrmClient) -> None:
    health = await prm.health()
    version = str(health.detail["model"])
    assert version.startswith("first@")
    assert health.detail["held"] == [version, PRM1]
    assert health.detail["device"] in ("cpu", "cuda")
    listed = await prm.models()
    assert [(model.version, model.serving) for model in listed] == [(version, True), (PRM1, False)]
    assert (await prm.score(ask([STEPS]))).model == version


async def test_scores_are_calibrated_and_those_of_a_plain_pass(prm: PrmClient, first: Path) -> None:
    rows = [STEPS, STEPS[:1], [], ["x = 1"]]
    answer = await prm.score(ask(rows, problem="plain"))
    assert [len(row) for row in answer.scores] == [3, 1, 0, 1]
    for row, scores in zip(rows, answer.scores, strict=True):
        assert scores == pytest.approx(plain(first, "plain", row), abs=1e-4)


async def test_a_step_that_was_scored_costs_nothing_again(prm: PrmClient) -> None:
    one = await prm.score(ask([STEPS[:2]], problem="cached"))
    more = await prm.score(ask([STEPS], problem="cached"))
    again = await prm.score(ask([STEPS], problem="cached"))
    assert (one.cached, more.cached, again.cached) == (0, 2, 3)
    assert more.scores[0][:2] == one.scores[0]
    assert again.scores == more.scores


async def test_a_second_version_is_held_beside_the_first_and_asked_by_name(
    prm: PrmClient, second: Path
) -> None:
    held = await prm.load("run/r2", LoadModel(uri=str(second)))
    assert (held.version, held.serving, len(held.sha256 or "")) == ("run/r2", False, 64)
    named, default = await asyncio.gather(prm.score(ask([STEPS], model="run/r2")), prm.score(ask([STEPS])))
    assert (named.model, default.model.partition("@")[0]) == ("run/r2", "first")
    assert named.scores[0] == pytest.approx(plain(second, PROBLEM, STEPS), abs=1e-4)
    assert named.scores != default.scores
    # Loading it again, with the digest that it has, changes nothing.
    assert await prm.load("run/r2", LoadModel(uri=str(second), sha256=held.sha256)) == held


async def test_a_swap_is_seen_by_the_next_request(prm: PrmClient, second: Path) -> None:
    await prm.load("r2", LoadModel(uri=str(second)))
    assert (await prm.serve("r2")).serving
    assert (await prm.score(ask([STEPS]))).model == "r2"
    assert (await prm.models())[0].version == "r2"
    assert (await prm.health()).detail["model"] == "r2"


async def test_no_request_is_dropped_while_versions_come_and_go(prm: PrmClient, second: Path) -> None:
    started = (await prm.models())[0].version
    stop = False
    models: list[str] = []

    async def keep_asking(name: int) -> None:
        number = 0
        while not stop:
            number += 1
            models.append((await prm.score(ask([STEPS], problem=f"busy {name} {number}"))).model)

    asking = [asyncio.create_task(keep_asking(name)) for name in range(4)]
    for _ in range(3):
        await prm.load("r2", LoadModel(uri=str(second)))
        await prm.serve("r2")
        await asyncio.sleep(0.05)
        await prm.serve(started)
        await prm.unload("r2")
    stop = True
    await asyncio.gather(*asking)
    assert set(models) == {started, "r2"}


async def test_prm1_is_always_held_and_asks_for_a_policy(prm: PrmClient) -> None:
    unserved = await refusal(prm.score(ask([STEPS], model=PRM1)))
    assert unserved.status == 503
    # Likelihoods that the caller has, under a policy that it names, need nobody.
    given = await prm.score(ask([["a"]], model=PRM1, policy="pi@1", logprobs=[[-0.1]]))
    assert given.model == f"{PRM1}@pi@1"
    for call in (prm.unload(PRM1), prm.load(PRM1, LoadModel(uri="anything"))):
        error = await refusal(call)
        assert error.status == 409
        assert [field.field for field in error.errors] == ["version"]


async def test_a_version_that_serves_is_not_let_go_of(prm: PrmClient, second: Path) -> None:
    serving = (await prm.models())[0].version
    error = await refusal(prm.unload(serving))
    assert error.status == 409
    assert "POST /serving" in str(error)
    await prm.load("r2", LoadModel(uri=str(second)))
    await prm.serve("r2")
    assert (await refusal(prm.unload("r2"))).status == 409


async def test_a_version_that_is_not_held_is_not_found(prm: PrmClient) -> None:
    for call, field in (
        (prm.serve("gone"), "version"),
        (prm.unload("gone"), "version"),
        (prm.score(ask([STEPS], model="gone")), "model"),
    ):
        error = await refusal(call)
        assert error.status == 404
        assert [one.field for one in error.errors] == [field]
        assert PRM1 in str(error)


async def test_a_name_does_not_change_its_meaning(prm: PrmClient, first: Path, second: Path) -> None:
    await prm.load("r2", LoadModel(uri=str(second)))
    error = await refusal(prm.load("r2", LoadModel(uri=str(first))))
    assert error.status == 409
    assert "other content" in str(error)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("digest", "has the digest"),
        ("no entry", "is not a PRM that Ratchet trained"),
        ("bad entry", "must be two numbers"),
        ("no head", "score.weight missing"),
        ("cut off", "damaged"),
        ("nan", "its training went wrong"),
        ("gone", "There is no model"),
    ],
)
async def test_what_is_no_intact_prm_is_refused_by_name(
    prm: PrmClient, second: Path, tmp_path: Path, change: str, message: str
) -> None:
    from safetensors.torch import load_file, save_file

    folder = tmp_path / "prm"
    shutil.copytree(second, folder)
    weights, config = folder / "model.safetensors", json.loads((folder / "config.json").read_text())
    tensors = load_file(weights)
    if change == "no entry":
        del config[CONFIG_KEY]
    elif change == "bad entry":
        config[CONFIG_KEY]["calibration"] = {"a": "steep", "b": 0}
    elif change == "no head":
        del tensors["score.weight"]
    elif change == "nan":
        tensors["score.bias"] += torch.nan
    (folder / "config.json").write_text(json.dumps(config))
    save_file(tensors, weights, {"format": "pt"})
    if change == "cut off":
        weights.write_bytes(weights.read_bytes()[:-1])
    if change == "gone":
        shutil.rmtree(folder)
    request = LoadModel(uri=str(folder), sha256="0" * 64 if change == "digest" else None)
    error = await refusal(prm.load("bad", request))
    assert error.status == 422
    assert [field.field for field in error.errors] == ["sha256" if change == "digest" else "uri"]
    assert message in str(error)
    assert "bad" not in [model.version for model in await prm.models()]


async def test_a_trajectory_longer_than_the_prm_reads_is_refused(prm: PrmClient) -> None:
    error = await refusal(prm.score(ask([["x = 1"], ["# " + "long " * 10_000]])))
    assert error.status == 422
    assert [field.field for field in error.errors] == ["steps.1"]
    assert "at most 8192" in str(error)


async def test_a_service_whose_prm_cannot_be_loaded_ends_and_says_why(tmp_path: Path) -> None:
    env = {**os.environ, "RATCHET_PRM_MODEL": str(make_checkpoint(tmp_path / "policy"))}
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "services.prm", env=env, stderr=asyncio.subprocess.PIPE
    )
    _, errors = await asyncio.wait_for(process.communicate(), 30)
    assert process.returncode == EXIT_FAILED
    assert b"is not a PRM that Ratchet trained" in errors


# --- the parts -------------------------------------------------------------------------------------------------------


@pytest.fixture
async def versions(cache_dir: Path) -> AsyncIterator[PrmVersions]:
    """PRM1, which serves, and no policy behind it."""
    cache = StepCache(100)
    async with PolicyClient("http://127.0.0.1:9", retry_seconds=0.0) as policy:
        made = PrmVersions(LikelihoodPrm(policy, cache), cache, cache_dir)
        await made.start(PRM1)
        yield made
        await made.close()


async def test_a_version_in_use_ends_after_its_last_request(versions: PrmVersions, second: Path) -> None:
    await versions.load("r2", LoadModel(uri=str(second)))
    with versions.using("r2") as held:
        ending = asyncio.create_task(versions.unload("r2"))
        await asyncio.sleep(0.05)
        assert not ending.done()
        # Out of sight at once, while the request that has it is answered.
        assert versions.names() == [PRM1]
        assert len((await held.model.score(ask([STEPS]))).scores[0]) == 3
    await ending


async def test_trajectories_that_come_together_are_one_pass(
    versions: PrmVersions, second: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    held = await versions.load("r2", LoadModel(uri=str(second)))
    passes: list[int] = []
    logits = TrainedHead.logits

    def counted(head: TrainedHead, questions: Any) -> list[list[float]]:
        passes.append(len(questions))
        return logits(head, questions)

    monkeypatch.setattr(TrainedHead, "logits", counted)
    await asyncio.gather(
        *(held.model.score(ask([STEPS, STEPS[:1]], problem=f"problem {number}")) for number in range(8))
    )
    assert sum(passes) == 16
    assert len(passes) < 8


LONG = PROBLEM + " " + "And the shelf is old. " * 40
TREE = [STEPS, [STEPS[0], "cups = cups - 5", "print(cups)"], [STEPS[0], "print(cups)"], ["print(4 * 12 - 5)"]]


def test_reading_after_a_kept_prefix_gives_what_a_full_pass_gives(first: Path) -> None:
    kept, whole = (TrainedHead(first, device="cpu", kept_bytes=kept) for kept in (2**30, 0))
    passed: list[int] = []
    kept._model.register_forward_hook(
        lambda _module, _args, kwargs, _out: passed.append(kwargs["input_ids"].numel()), with_kwargs=True
    )
    for known in (0, 1, 2, 0):
        rows = [row for row in TREE if len(row) > known]
        asked = [kept.question(LONG, row, known=known) for row in rows]
        expected = whole.logits([whole.question(LONG, row, known=known) for row in rows])
        found = kept.logits(asked)
        assert [len(row) for row in found] == [len(row) - known for row in rows]
        for one, other in zip(found, expected, strict=True):
            assert one == pytest.approx(other, abs=1e-3)
    # The long problem was read once; the passes after it are of some steps.
    problem = kept.question(LONG, STEPS, known=0).bases[0]
    assert problem > 256
    assert sum(tokens >= problem for tokens in passed) == 1


def test_kept_prefixes_are_bounded_and_the_last_used_stay(first: Path) -> None:
    plain = TrainedHead(first, device="cpu")
    asked = [plain.question(f"{number} {LONG}", STEPS, known=0) for number in range(6)]
    for each in asked:
        plain.logits([each])
    two_each = [tokens for each in asked for tokens in (each.tokens[: each.bases[-1]], each.tokens)]
    # The one with which a head tries itself when it is loaded is there too.
    assert list(plain._kept)[2:] == two_each
    head = TrainedHead(first, device="cpu", kept_bytes=plain._kept._bytes // 3)
    for each in asked:
        head.logits([each])
    assert 1 <= len(head._kept) < 6
    assert list(head._kept) == two_each[-len(head._kept) :]
    assert head._kept._bytes <= head._kept.limit


def test_the_next_steps_of_many_trajectories_are_one_pass_behind_prefixes_of_any_length(first: Path) -> None:
    head, whole = TrainedHead(first, device="cpu"), TrainedHead(first, device="cpu", kept_bytes=0)
    rows = [
        (f"{PROBLEM} {'It rains. ' * number}", row) for number in range(4) for row in TREE if len(row) > 1
    ]
    head.logits([head.question(problem, row[:1], known=0) for problem, row in rows])
    passed: list[tuple[int, ...]] = []
    head._model.register_forward_hook(
        lambda _module, _args, kwargs, _out: passed.append(tuple(kwargs["input_ids"].shape)), with_kwargs=True
    )
    found = head.logits([head.question(problem, row[:2], known=1) for problem, row in rows])
    [(batch, width)] = passed
    longest = max(len(head.question(*rows[0], known=0).tokens), width)
    assert (batch, width < longest / 2) == (len(rows), True), "of each only its new step is read"
    expected = whole.logits([whole.question(problem, row[:2], known=1) for problem, row in rows])
    for one, other in zip(found, expected, strict=True):
        assert one == pytest.approx(other, abs=1e-3)


def test_batches_of_any_size_and_length_score_each_text_the_same(
    first: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    head = TrainedHead(first, device="cpu")
    questions = [head.question(PROBLEM + "!" * n, row, known=0) for n in range(5) for row in TREE]
    alone = [head.logits([question])[0] for question in questions]
    for kept in (0, 50_000, 2**30):
        # With room for some prefixes only, one pass takes away what the next one would have read behind.
        again = TrainedHead(first, device="cpu", kept_bytes=kept)
        for tokens in (16_384, 300, 1):
            monkeypatch.setattr("services.prm.head.BATCH_TOKENS", tokens)
            for one, other in zip(again.logits(questions), alone, strict=True):
                assert one == pytest.approx(other, abs=1e-4)


def test_a_policy_is_no_prm(tmp_path: Path) -> None:
    with pytest.raises(HeadError, match="not a PRM that Ratchet trained"):
        TrainedHead(make_checkpoint(tmp_path / "policy"))
