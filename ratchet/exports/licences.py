"""The licence of problems and models, as their source declares it; where it declares none, none is said.

A data set of the hub declares it in its card, a file in the front matter of a README.md beside it, a package in its metadata.

Limits: the licence of a collection may differ from that of single problems in it, and of the model whose text the data is.
"""

import importlib.metadata
from pathlib import Path
from typing import Any

from ratchet.models.mirror import MIRRORS
from ratchet.models.sources import NANO
from ratchet.problems.files import split_options
from ratchet.problems.hub import HUB_SECONDS, SHORTHANDS

CARD = "README.md"
OUR_PACKAGE = "ratchet-solver"


def declared_licence(spec: str, folder: Path | None = None) -> str | None:
    """The licence that the source of a problem spec declares; None: none. A file's own path counts from `folder`."""
    source, colon, rest = spec.partition(":")
    name = rest.partition("?")[0]
    match source if colon else "":
        case "nano":
            return _of_package(OUR_PACKAGE)
        case "reasoning-gym":
            return _of_package("reasoning-gym")
        case "hub":
            return _of_hub(SHORTHANDS.get(name, (name, None))[0])
        case _:
            return _of_card(((folder or Path()) / split_options(spec)[0]).parent / CARD)


def model_licence(version: str, folder: Path) -> str | None:
    """The licence that a base model declares: in the card in its folder, with the packaged weights, or with its mirror."""
    name = version.partition("@")[0]
    if name == NANO:
        return _of_package(OUR_PACKAGE)
    if (said := _of_card(folder / CARD)) is not None:
        return said
    return MIRRORS[name].licence.lower() if name in MIRRORS else None


def _of_package(name: str) -> str | None:
    try:
        about = importlib.metadata.metadata(name)
    except importlib.metadata.PackageNotFoundError:
        return None
    said = next((about[name] for name in ("License-Expression", "License") if name in about), None)
    # Some packages put the whole text there.
    return said.strip().lower() if said and len(said) < 100 else None


def _of_hub(dataset: str) -> str | None:
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError

    try:
        card = hf_hub_download(dataset, CARD, repo_type="dataset", etag_timeout=HUB_SECONDS)
    except (HfHubHTTPError, HFValidationError, OSError, ValueError):
        # Neither the hub nor its cache has the card for us: then nothing is declared to us.
        return None
    return _of_card(Path(card))


def _of_card(card: Path) -> str | None:
    import yaml

    try:
        text = card.read_text(encoding="utf-8")
    except (OSError, ValueError):
        return None
    _, begin, rest = text.partition("---\n")
    head, end, _ = rest.partition("\n---")
    if not begin or not end:
        return None
    try:
        front: Any = yaml.safe_load(head)
    except yaml.YAMLError:
        return None
    said = front.get("license") if isinstance(front, dict) else None
    named = [said] if isinstance(said, str) else said if isinstance(said, list) else []
    return ", ".join(str(each).strip() for each in named) or None
