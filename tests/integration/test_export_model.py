"""A version that leaves is an ordinary transformers folder, which writes what the service writes."""

import contextlib
import io
import json
import shutil
import time
from datetime import UTC, datetime
from pathlib import Path

import httpx
import pytest
import torch
import yaml

from ratchet.contracts.policy import GenerateResponse
from ratchet.contracts.trainer import Ancestor, DatasetView, Lineage, ModelKind, ModelView
from ratchet.exports.gathering import ExportError
from ratchet.exports.model_folder import export_model
from ratchet.models.checkpoint import local_checkpoint
from ratchet.models.sources import resolve
from ratchet.problems import load
from ratchet.settings import PolicySettings
from ratchet.solutions.step_formats import END_OF_CODE, Markers
from ratchet.states import ModelState
from services.policy.app import build_app
from services.policy.engines.transformers import TransformersEngine
from tests.served_app import served

EXAMPLE = "A box holds 12 eggs. How many eggs are in 7 boxes?"
PROBLEMS = [EXAMPLE, *(problem.text for problem in load("nano:held_out?count=8").problems)]


def lineage(folder: Path, sha256: str, kind: ModelKind = ModelKind.POLICY) -> Lineage:
    """A version that was trained once, from nano."""

    def model(version: str, parent: str | None) -> ModelView:
        return ModelView(
            version=version,
            kind=kind,
            state=ModelState.SERVING,
            parent=parent,
            uri=str(folder),
            sha256=sha256,
            created_at=datetime.now(UTC),
        )

    data = DatasetView(id="d", name="run-r1", round=None, uri="/d", sha256="d" * 64, rows=7)
    made = Ancestor(model=model("run-r1-policy@1", "nano@2"), dataset=data)
    return Lineage(versions=[made, Ancestor(model=model("nano@2", None), dataset=None)])


@pytest.fixture(scope="module")
def nano(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    found = resolve("nano", tmp_path_factory.mktemp("cache"))
    return found.path, found.sha256


def served_greedily(folder: Path) -> list[str]:
    """What the service writes to the problems, without its stop string."""
    engine = TransformersEngine(folder, "nano@1", dtype=torch.float32, device="cpu")
    with served(build_app(PolicySettings(), engine, Markers()), PolicySettings()) as url:
        while httpx.get(f"{url}/readyz", timeout=60).status_code != 200:
            time.sleep(0.05)
        asked = {"prefixes": [{"problem": text} for text in PROBLEMS], "until": "end", "temperature": 0}
        response = httpx.post(f"{url}/generate", json=asked, timeout=60)
        found = GenerateResponse.model_validate(response.raise_for_status().json())
    return [candidates[0].text for candidates in found.candidates]


def written_by_the_card(card: str, folder: Path) -> list[str]:
    """What the program in the model card prints for each problem, up to the stop string."""
    program = card.split("```python\n")[1].split("```")[0].replace("path/to/this/folder", str(folder))
    texts = []
    for problem in PROBLEMS:
        with contextlib.redirect_stdout(io.StringIO()) as printed:
            exec(program.replace(repr(f"{EXAMPLE}\n"), repr(f"{problem}\n")), {})
        texts.append(printed.getvalue().partition(END_OF_CODE)[0])
    return texts


def test_the_folder_writes_greedily_what_the_service_writes(nano: tuple[Path, str], tmp_path: Path) -> None:
    source, sha256 = tmp_path / "source", nano[1]
    shutil.copytree(nano[0], source)
    # A base model's own sampling would change what is written, and an end that only its generation config names ends a text.
    own = json.loads((source / "generation_config.json").read_text())
    sampling = {"do_sample": True, "temperature": 2.0, "repetition_penalty": 3.0, "max_length": 21}
    (source / "generation_config.json").write_text(json.dumps({**own, **sampling, "eos_token_id": [1, 5]}))
    made = export_model(
        lineage(source, sha256), tmp_path / "out", rounds_dir=tmp_path, cache_dir=tmp_path / "cache"
    )
    assert local_checkpoint(made.folder, tmp_path / "cache").sha256 == made.sha256 == sha256
    assert json.loads((made.folder / "generation_config.json").read_text()) == {
        "do_sample": False,
        "pad_token_id": 0,
        "eos_token_id": [1, 5],
    }
    written = written_by_the_card((made.folder / "README.md").read_text(), made.folder)
    assert written == served_greedily(source)
    assert len(set(written)) > len(PROBLEMS) / 2


def test_only_what_a_model_needs_leaves_and_the_card_says_where_it_comes_from(
    nano: tuple[Path, str], tmp_path: Path
) -> None:
    source, sha256 = tmp_path / "run" / "round-1" / "policy" / "model", nano[1]
    shutil.copytree(nano[0], source)
    (source / "pytorch_model.bin").write_bytes(b"\x80\x04pickled")
    (source / "train.log").write_text("of no use elsewhere")
    (source / "chat_template.jinja").write_text("{{ messages }}")
    # The registry knows where it was before its data folder was moved.
    known = lineage(Path("/gone/rounds/run/round-1/policy/model"), sha256)
    made = export_model(known, tmp_path / "out", rounds_dir=tmp_path, cache_dir=tmp_path / "cache")
    assert {file.name for file in made.folder.iterdir()} == {
        "README.md",
        "chat_template.jinja",
        "config.json",
        "generation_config.json",
        "model.safetensors",
        "tokenizer.json",
        "tokenizer_config.json",
    }
    card = (made.folder / "README.md").read_text()
    front = yaml.safe_load(card.split("---\n")[1])
    assert (front["library_name"], front["pipeline_tag"]) == ("transformers", "text-generation")
    assert front["license"] == "apache-2.0"
    assert all(part in card for part in ("run-r1-policy@1", "nano@2", "d" * 64, sha256, "run-r1"))


def test_other_weights_than_the_registry_knows_do_not_leave(nano: tuple[Path, str], tmp_path: Path) -> None:
    places = {"rounds_dir": tmp_path, "cache_dir": tmp_path / "cache"}
    with pytest.raises(ExportError, match="are not those of run-r1-policy@1"):
        export_model(lineage(nano[0], "0" * 64), tmp_path / "out", **places)
    with pytest.raises(ExportError, match="cannot be had"):
        export_model(lineage(tmp_path / "none", nano[1]), tmp_path / "out", **places)
    assert not (tmp_path / "out").exists()
