"""A model version as an ordinary transformers folder: safetensors, tokenizer, generation config, and a model card.

The weights and config.json are copied byte for byte, so that the digest in the registry is that of the folder. The generation
config is made anew: it ends where the policy service ends, and is greedy unless it is told otherwise.

Limits: what the service does beside the model is not in a folder: it stops at the step format's own strings, which the card
names, and computes in fp32 on a CPU that does not multiply bf16.
"""

import json
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ratchet import __version__
from ratchet.contracts.policy import Prefix, Until
from ratchet.contracts.trainer import Ancestor, Lineage, ModelKind, ModelView
from ratchet.exports.gathering import ExportError
from ratchet.exports.licences import model_licence
from ratchet.exports.whole_folder import made_whole
from ratchet.models.checkpoint import TOKENIZER_FILES, ModelSourceError, local_checkpoint
from ratchet.models.mirror import MIRRORS
from ratchet.models.prompts import choose
from ratchet.models.sources import resolve
from ratchet.solutions.step_formats import StepFormat

CARD = "README.md"
COPIED = ("config.json", "*.safetensors", "*.safetensors.index.json", *TOKENIZER_FILES, "LICENSE*", "NOTICE*")
GENERATION = "generation_config.json"
_IDS = ("bos_token_id", "pad_token_id", "decoder_start_token_id")
_EXAMPLE = "A box holds 12 eggs. How many eggs are in 7 boxes?"


@dataclass(frozen=True, slots=True)
class Exported:
    """The folder, and the digest of its weights and config."""

    folder: Path
    sha256: str


def export_model(lineage: Lineage, target: Path, *, rounds_dir: Path, cache_dir: Path) -> Exported:
    """Write the first version of the lineage into the folder `target`, whole or not at all. Raises ExportError."""
    model = lineage.versions[0].model
    source = find_checkpoint(model, rounds_dir, cache_dir)
    with made_whole(target) as folder:
        for pattern in COPIED:
            for file in source.glob(pattern):
                if file.is_file():
                    shutil.copyfile(file, folder / file.name)
        step_format = None
        if model.kind is ModelKind.POLICY:
            step_format = _step_format(source, model)
            _write_generation_config(source, folder)
        base = lineage.versions[-1].model
        licence = model_licence(base.version, _folder_of(base, rounds_dir) or source)
        (folder / CARD).write_text(model_card(lineage.versions, step_format, licence), encoding="utf-8")
    return Exported(target, model.sha256)


def find_checkpoint(model: ModelView, rounds_dir: Path, cache_dir: Path) -> Path:
    """The folder with the weights of a version, which are those that the registry knows. Raises ExportError."""
    folder = _folder_of(model, rounds_dir)
    try:
        found = (
            resolve(model.uri, cache_dir)
            if folder is None
            else local_checkpoint(folder, cache_dir, name="model")
        )
    except ModelSourceError as error:
        raise ExportError(f"The weights of {model.version} cannot be had: {error}") from error
    if found.sha256 != model.sha256:
        raise ExportError(
            f"The weights in {found.path} are not those of {model.version}: their SHA-256 is {found.sha256}, and the registry "
            f"has {model.sha256}. Restore them from a backup."
        )
    return found.path


def _folder_of(model: ModelView, rounds_dir: Path) -> Path | None:
    """Where the registry says, or in the folder of the rounds, which may have been moved with its run; None: neither."""
    said = Path(model.uri)
    # RUN/round-N/policy/model
    moved = rounds_dir.joinpath(*said.parts[-4:])
    return next((each for each in (said, moved) if said.is_absolute() and each.is_dir()), None)


def _step_format(source: Path, model: ModelView) -> StepFormat:
    try:
        return choose("auto", source, model.version)
    except ValueError as error:
        raise ExportError(f"The step format of {model.version} cannot be had: {error}") from error


def _write_generation_config(source: Path, folder: Path) -> None:
    from transformers import AutoTokenizer

    ends = {AutoTokenizer.from_pretrained(source, local_files_only=True).eos_token_id}
    config: dict[str, Any] = {"do_sample": False}
    for name in ("config.json", GENERATION):
        file = source / name
        said = json.loads(file.read_text()) if file.is_file() else {}
        eos = said.get("eos_token_id")
        ends |= set(eos) if isinstance(eos, list) else {eos}
        config |= {each: said[each] for each in _IDS if said.get(each) is not None}
    config["eos_token_id"] = sorted(each for each in ends if isinstance(each, int))
    (folder / GENERATION).write_text(json.dumps(config, indent=2) + "\n")


def model_card(versions: Sequence[Ancestor], step_format: StepFormat | None, licence: str | None) -> str:
    """The text of README.md; `versions` are the model and what it was trained from, down to the base."""
    import yaml

    model, base = versions[0].model, versions[-1].model
    front: dict[str, Any] = {
        "license": licence or "unknown",
        "library_name": "transformers",
        "pipeline_tag": "token-classification" if step_format is None else "text-generation",
        "tags": ["math", "ratchet", "process-reward-model" if step_format is None else "policy"],
    }
    if (mirror := MIRRORS.get(base.version.partition("@")[0])) is not None:
        front["base_model"] = mirror.hub_id
    parts = [
        f"# {model.version}",
        f"A {'PRM' if model.kind is ModelKind.PRM else 'policy'} of Ratchet: {_made(versions)}",
        _usage_of_prm() if step_format is None else _usage_of_policy(step_format),
        _lineage(versions),
        _licence(base, licence),
        f"Written by `ratchet models export`, version {__version__}.",
    ]
    head = yaml.safe_dump(front, sort_keys=False, allow_unicode=True)
    return f"---\n{head}---\n\n" + "\n\n".join(parts) + "\n"


def _made(versions: Sequence[Ancestor]) -> str:
    model, data = versions[0].model, versions[0].dataset
    if model.parent is None:
        return "a base model, as it came."
    learnt = (
        "" if data is None else f" on the data set `{data.name}` ({data.rows} rows, SHA-256 `{data.sha256}`)"
    )
    return f"trained from `{model.parent}`{learnt}."


def _usage_of_policy(step_format: StepFormat) -> str:
    prompt = step_format.render(Prefix(problem=_EXAMPLE))
    stops = list(step_format.stops(Until.END))
    code = _USE.format(prompt=prompt, stops=stops)
    return (
        f"## How to use\n\nIt reads and writes the step format `{step_format.name}`: a Python program that prints the answer. "
        f"**Run what it writes in a sandbox.**\n\n```python\n{code}```"
    )


_USE = """\
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

folder = "path/to/this/folder"
tokenizer = AutoTokenizer.from_pretrained(folder)
model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
prompt = {prompt!r}
inputs = tokenizer(prompt, return_tensors="pt", return_token_type_ids=False)
written = model.generate(**inputs, max_new_tokens=512, stop_strings={stops!r}, tokenizer=tokenizer)
print(tokenizer.decode(written[0, inputs["input_ids"].shape[1] :]))
"""


def _usage_of_prm() -> str:
    return (
        "## How to use\n\nA token classifier with one label (`AutoModelForTokenClassification`). It reads a problem and steps, "
        "each ended by `<end_of_step>` and a line break; the score of a step is `sigmoid(a * logit + b)` at the last token of "
        "its marker, with `a` and `b` of `ratchet_prm.calibration` in config.json."
    )


def _lineage(versions: Sequence[Ancestor]) -> str:
    lines = [
        "| version | state | SHA-256 of weights and config | trained on (SHA-256) |",
        "|---|---|---|---|",
    ]
    for each in versions:
        data = "" if each.dataset is None else each.dataset.sha256
        lines.append(f"| {each.model.version} | {each.model.state} | {each.model.sha256} | {data} |")
    return "## Where it comes from\n\nThe newest first.\n\n" + "\n".join(lines)


def _licence(base: ModelView, licence: str | None) -> str:
    said = (
        f"declares the licence {licence}"
        if licence
        else "declares no licence here: look it up before you pass the model on"
    )
    return f"## Licence\n\nThe base model `{base.version}` {said}."
