"""Several model versions in one policy service: loaded, swapped under load, let go, lost."""

import asyncio
import contextlib
import gc
import shutil
import socket
import weakref
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import uvicorn

from ratchet.clients import PolicyClient, ServiceError
from ratchet.contracts.policy import GenerateRequest, LikelihoodRequest, Prefix
from ratchet.contracts.serving import LoadModel
from ratchet.contracts.trainer import ModelKind
from ratchet.models.checkpoint import local_checkpoint
from ratchet.models.prompts import MEASURED
from ratchet.settings import PolicySettings
from ratchet.solutions.step_formats import few_shot
from ratchet.store.pairs import UnknownVersionError
from services.policy.app import build_app
from services.policy.engines.slot_decoder import SlotDecoder
from services.policy.engines.transformers import TransformersEngine
from services.trainer.holding import Serving
from services.trainer.stages.train import served_format
from tests.models import make_checkpoint

FIRST = "tiny@0"
PREFIXES = [Prefix(problem="What is 2 + 3?")]


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Three models that write different things; the last one in the format with markers."""
    folder = tmp_path_factory.mktemp("models")
    return [
        make_checkpoint(folder / f"tiny{seed}", seed=seed, step_format="markers" if seed == 2 else None)
        for seed in range(3)
    ]


class Service:
    """The app under a real server."""

    def __init__(self, checkpoints: list[Path], cache: Path) -> None:
        self.failures: list[str] = []
        self.engines: dict[str, TransformersEngine] = {}
        self.cache = cache
        engine = self._kept(
            TransformersEngine(checkpoints[0], FIRST, max_num_seqs=16, dtype=torch.float32, device="cpu")
        )
        self.app = build_app(
            PolicySettings(cache_dir=cache),
            engine,
            few_shot(),
            self.failures.append,
            sha256=self.sha256(checkpoints[0]),
        )

    def sha256(self, checkpoint: Path) -> str:
        return local_checkpoint(checkpoint, self.cache).sha256

    def _kept(self, engine: TransformersEngine) -> TransformersEngine:
        """So that a test gets at the engines that the service makes."""
        plain: Callable[[Path, str], TransformersEngine] = engine.beside
        engine.beside = lambda *named: self._kept(plain(*named))  # type: ignore[method-assign]
        self.engines[engine.model_version] = engine
        return engine


@contextlib.asynccontextmanager
async def running(service: Service) -> AsyncIterator[PolicyClient]:
    server = uvicorn.Server(
        uvicorn.Config(service.app, log_config=None, timeout_graceful_shutdown=2, timeout_keep_alive=75)
    )
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        task = asyncio.create_task(server.serve(sockets=[sock]))
        try:
            url = f"http://127.0.0.1:{sock.getsockname()[1]}"
            async with PolicyClient(url, retry_seconds=0, attempt_seconds=60) as client:
                while True:
                    with contextlib.suppress(ServiceError):
                        if (await client.health()).ready:
                            break
                    await asyncio.sleep(0.05)
                yield client
        finally:
            server.should_exit = True
            await task


@pytest.fixture
async def service(checkpoints: list[Path], tmp_path: Path) -> Service:
    return Service(checkpoints, tmp_path / "cache")


@pytest.fixture
async def client(service: Service) -> AsyncIterator[PolicyClient]:
    async with running(service) as opened:
        yield opened


def ask(model: str | None = None, **more: Any) -> GenerateRequest:
    return GenerateRequest(prefixes=PREFIXES, temperature=0, max_tokens=12, model=model, until="end", **more)


async def writes(client: PolicyClient, model: str | None = None) -> tuple[str, str]:
    answer = await client.generate(ask(model))
    return answer.model, answer.candidates[0][0].text


async def refusal(work: Any) -> ServiceError:
    with pytest.raises(ServiceError) as caught:
        await work
    return caught.value


async def test_a_version_is_held_beside_the_serving_one(
    client: PolicyClient, service: Service, checkpoints: list[Path]
) -> None:
    name, sha256 = "rounds/nano-r2@3f2a", service.sha256(checkpoints[2])
    held = await client.load(name, LoadModel(uri=str(checkpoints[2]), sha256=sha256))
    assert (held.version, held.uri, held.sha256, held.serving) == (name, str(checkpoints[2]), sha256, False)
    assert [(one.version, one.serving) for one in await client.models()] == [(FIRST, True), (name, False)]
    (first, mine), (second, other) = await writes(client), await writes(client, name)
    assert (first, second) == (FIRST, name)
    assert mine != other
    likely = LikelihoodRequest(trajectories=[Prefix(problem="What is 2 + 3?", steps=["# a\nx = 2"])])
    assert (await client.likelihood(likely.model_copy(update={"model": name}))).model == name
    before = (await client.health()).detail
    assert (before["model"], before["step_format"], before["models"]) == (FIRST, "few_shot", [FIRST, name])
    assert (await client.serve(name)).serving
    after = (await client.health()).detail
    assert (after["model"], after["step_format"], after["models"]) == (name, "markers", [name, FIRST])
    assert (after["uri"], after["sha256"]) == (str(checkpoints[2]), sha256)
    assert await writes(client) == (name, other)
    assert await writes(client, FIRST) == (FIRST, mine)


class Registered:
    """Stands for the registry's one question that is asked here."""

    def __init__(self, **folders: Path) -> None:
        self.folders = folders

    async def get(self, version: str) -> LoadModel | None:
        """The version's checkpoint."""
        found = self.folders.get(version.partition("@")[0])
        return None if found is None else LoadModel(uri=str(found))


async def test_a_policy_is_trained_in_the_format_in_which_the_service_asks_its_base(
    checkpoints: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(MEASURED, "chatty", "chat")
    chatty = Path(shutil.copytree(checkpoints[1], tmp_path / "chatty"))
    (chatty / "chat_template.jinja").write_text("{{ messages[0].content }}<|end|>")
    registry: Any = Registered(chatty=chatty, trained=checkpoints[2])
    unasked: Any = None
    async with running(Service(checkpoints, tmp_path / "cache")) as client:
        serving = Serving(registry, unasked, unasked, {ModelKind.POLICY: client})
        assert await served_format(serving, FIRST) == "few_shot", "it is held, the registry is not asked"
        assert await served_format(serving, "chatty@1") == "chat"
        assert await served_format(serving, "trained@1") == "markers"
        with pytest.raises(UnknownVersionError, match="no policy unknown@1"):
            await served_format(serving, "unknown@1")


async def test_versions_of_all_formats_are_held_side_by_side(
    checkpoints: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A base that is asked by its chat template, and what was trained from it in our own format."""
    monkeypatch.setitem(MEASURED, "chatty", "chat")
    chatty = Path(shutil.copytree(checkpoints[1], tmp_path / "chatty"))
    (chatty / "chat_template.jinja").write_text(
        "{% for message in messages %}<{{ message.role }}>{{ message.content }}<|end|>{% endfor %}<assistant>"
    )
    async with running(Service(checkpoints, tmp_path / "cache")) as client:
        # The registry's name and the folder's are both asked: a base may lie in a folder with a name of its own.
        base = await client.load("chatty@1", LoadModel(uri=str(chatty)))
        again = await client.load("b", LoadModel(uri=str(chatty)))
        await client.unload("b")
        trained = await client.load("chatty-r1@2", LoadModel(uri=str(checkpoints[2])))
        assert (base.step_format, again.step_format, trained.step_format) == ("chat", "chat", "markers")
        held = {one.version: one.step_format for one in await client.models()}
        assert held == {FIRST: "few_shot", "chatty@1": "chat", "chatty-r1@2": "markers"}
        first, chat, markers = [await writes(client, name) for name in (FIRST, "chatty@1", "chatty-r1@2")]
        assert len({first[1], chat[1], markers[1]}) == 3
        await client.serve("chatty@1")
        assert (await client.health()).detail["step_format"] == "chat"
        steps = LikelihoodRequest(trajectories=[Prefix(problem="What is 2 + 3?", steps=["# a\nx = 2"])])
        assert len((await client.likelihood(steps)).step_logprobs[0]) == 1
        (chatty / "chat_template.jinja").unlink()
        await client.unload(FIRST)
        refused = await refusal(client.load("chatty@3", LoadModel(uri=str(chatty))))
        assert (refused.status, "no chat template" in str(refused)) == (422, True)


async def test_loading_again_changes_nothing_and_other_content_is_refused(
    client: PolicyClient, service: Service, checkpoints: list[Path]
) -> None:
    body = LoadModel(uri=str(checkpoints[1]), sha256=service.sha256(checkpoints[1]))
    both = await asyncio.gather(client.load("b", body), client.load("b", body))
    engine = service.engines["b"]
    assert both[0] == both[1] == await client.load("b", LoadModel(uri=str(checkpoints[1])))
    assert service.engines["b"] is engine, "loaded once"
    other = await refusal(client.load("b", LoadModel(uri=str(checkpoints[2]))))
    assert (other.status, "other content" in str(other)) == (409, True)


@pytest.mark.parametrize("kind", ["digest", "nowhere", "damaged", "format"])
async def test_what_cannot_be_loaded_is_refused_with_the_reason(
    client: PolicyClient, checkpoints: list[Path], tmp_path: Path, kind: str
) -> None:
    folder = Path(shutil.copytree(checkpoints[1], tmp_path / "model"))
    sha256, field, said = None, "uri", "format 'other'"
    if kind == "digest":
        sha256, field, said = "0" * 64, "sha256", "other content"
    elif kind == "nowhere":
        shutil.rmtree(folder)
        said = "There is no model"
    elif kind == "damaged":
        config = folder / "config.json"
        config.write_text(config.read_text().replace('"hidden_size": 64', '"hidden_size": 32'))
        said = "cannot be loaded"
    else:
        config = folder / "config.json"
        config.write_text(config.read_text().replace("{", '{"ratchet_step_format": "other",', 1))
    error = await refusal(client.load("b", LoadModel(uri=str(folder), sha256=sha256)))
    assert error.status == 422
    assert [one.field for one in error.errors] == [field]
    assert said in str(error)
    assert [one.version for one in await client.models()] == [FIRST]
    assert (await writes(client))[0] == FIRST


async def test_versions_that_are_not_held_or_not_free_are_refused(
    client: PolicyClient, checkpoints: list[Path]
) -> None:
    for work in (client.generate(ask("b")), client.serve("b"), client.unload("b")):
        error = await refusal(work)
        assert error.status == 404
        assert FIRST in str(error), "the held ones are named"
    error = await refusal(client.unload(FIRST))
    assert (error.status, "serves" in str(error)) == (409, True)
    for name in ("b", "c"):
        await client.load(name, LoadModel(uri=str(checkpoints[1])))
    error = await refusal(client.load("d", LoadModel(uri=str(checkpoints[1]))))
    assert (error.status, "RATCHET_MAX_MODELS" in str(error)) == (409, True)
    await client.unload("b")
    await client.load("d", LoadModel(uri=str(checkpoints[1])))


async def test_a_swap_under_load_drops_no_request(client: PolicyClient, checkpoints: list[Path]) -> None:
    await client.load("b", LoadModel(uri=str(checkpoints[1])))
    expected = {name: (await writes(client, name))[1] for name in (FIRST, "b")}
    over = False
    seen: list[str] = []

    async def keep_asking() -> None:
        while not over:
            model, text = await writes(client)
            assert text == expected[model]
            seen.append(model)

    askers = [asyncio.create_task(keep_asking()) for _ in range(8)]
    for name in ("b", FIRST, "b"):
        count = len(seen)
        while len(seen) < count + 40:
            await asyncio.sleep(0.01)
        await client.serve(name)
    # A swap, and the old version goes while it still has requests.
    await client.unload(FIRST)
    count = len(seen)
    while len(seen) < count + 40:
        await asyncio.sleep(0.01)
    over = True
    await asyncio.gather(*askers)
    assert set(seen) == {FIRST, "b"}
    assert set(seen[-20:]) == {"b"}


async def test_a_version_is_let_go_when_its_requests_have_ended_and_its_memory_is_free(
    client: PolicyClient, service: Service, checkpoints: list[Path]
) -> None:
    await client.load("b", LoadModel(uri=str(checkpoints[1])))
    engine = service.engines.pop("b")
    engine._ends = set()
    weights = weakref.ref(engine._model)
    long = GenerateRequest(
        prefixes=PREFIXES, model="b", max_tokens=600, until="end", n=4, seed=1, temperature=2
    )
    under_way = asyncio.create_task(client.generate(long))
    assert isinstance(engine._decoder, SlotDecoder)
    # More rows than the warm-up's two, which the decoder may still hold.
    while len(engine._decoder._lengths) <= 2:
        await asyncio.sleep(0.01)
    going = asyncio.create_task(client.unload("b"))
    await asyncio.sleep(0.1)
    assert under_way.done() or not going.done(), "it waits for the request"
    assert (await refusal(client.generate(ask("b")))).status == 404
    answer = await under_way
    assert answer.model == "b"
    assert [one.version for one in (await going).models] == [FIRST]
    gc.collect()
    assert weights() is None
    assert (await writes(client))[0] == FIRST


async def test_a_dead_version_is_dropped_and_the_serving_one_goes_on(
    client: PolicyClient, service: Service, checkpoints: list[Path]
) -> None:
    await client.load("b", LoadModel(uri=str(checkpoints[1])))
    kill(service.engines["b"])
    assert (await refusal(client.generate(ask("b")))).status == 503
    while len(await client.models()) > 1:
        await asyncio.sleep(0.01)
    assert (await refusal(client.generate(ask("b")))).status == 404
    assert (await writes(client))[0] == FIRST
    assert not service.failures
    await client.load("b", LoadModel(uri=str(checkpoints[1])))
    assert (await writes(client, "b"))[0] == "b"


async def test_the_death_of_the_serving_version_ends_the_service(
    client: PolicyClient, service: Service, checkpoints: list[Path]
) -> None:
    await client.load("b", LoadModel(uri=str(checkpoints[1])))
    await client.serve("b")
    kill(service.engines["b"])
    assert (await refusal(client.generate(ask()))).status == 503
    for _ in range(100):
        if service.failures:
            break
        await asyncio.sleep(0.05)
    assert "the engine died" in service.failures[0]
    assert not (await client.health()).ready


def kill(engine: TransformersEngine) -> None:
    """The next token ends the engine's thread, also where that thread has the decoder in its hands already."""

    def broken(*_: Any) -> torch.Tensor:
        raise MemoryError("broken on purpose")

    decoder: Any = engine._decoder
    decoder.add = decoder.next = broken


@pytest.mark.slow
@pytest.mark.timeout(400)
async def test_vllm_runs_two_versions_in_one_process(checkpoints: list[Path], tmp_path: Path) -> None:
    pytest.importorskip("vllm")
    from services.policy.engines.vllm import VllmEngine

    first = VllmEngine(
        checkpoints[0], FIRST, max_model_len=2048, max_num_seqs=4, kv_cache_gb=1, dtype="float32"
    )
    failures: list[str] = []
    service = Service(checkpoints, tmp_path / "cache")
    service.app = build_app(
        PolicySettings(cache_dir=service.cache), first, few_shot(), failures.append, sha256=None
    )
    async with running(service) as client:
        before = await writes(client)
        await client.load("b", LoadModel(uri=str(checkpoints[1])))
        other = await writes(client, "b")
        assert other[1] != before[1]
        under_way = asyncio.create_task(client.generate(ask(stop=["never"])))
        await client.serve("b")
        assert (await under_way).model in (FIRST, "b")
        assert await writes(client, FIRST) == before
        await client.unload(FIRST)
        assert await writes(client) == other
        assert not failures
