"""Settings of rounds, by the model that they are for.

`nano` is the demonstration: problems from its own families, four rounds, each with more problems. Its figures are in
docs/measurements/rounds-on-nano.md. `gsm8k` is for real models, LoRA on grade-school problems; on few problems its policy needs
more and smaller steps than here (docs/rounds.md). Anything can be overridden (`--set policy.epochs=2`).
"""

import copy
from collections.abc import Mapping, Sequence
from enum import StrEnum
from typing import Any

import orjson

from ratchet.contracts.rounds import RoundConfig

NANO_TRAIN = 2500
"""Training problems that the rounds of one run draw from; each round takes a longer beginning of the same list."""


class Preset(StrEnum):
    """Which settings a run begins with."""

    NANO = "nano"
    GSM8K = "gsm8k"


def nano(number: int, seed: int) -> dict[str, Any]:
    """Round `number` of a run on nano's problems."""
    place = min(number, 4) - 1
    return {
        "train": {
            "spec": f"nano:train?count={NANO_TRAIN}&seed={seed}",
            "count": (60, 150, 400, 1000)[place],
        },
        "development": {"spec": "nano:development?count=400", "count": 400},
        "held_out": {"spec": "nano:held_out?count=400", "count": 400},
        "seed": seed,
        "label": {
            "rollouts": 8,
            "branching_factor": 4,
            "exploration": 1.0,
            "temperature": 1.0,
            "max_depth": 8,
            "max_tokens": 200,
            "batch_rollouts": True,
            "retries": 1,
            "retry_factor": 2.0,
        },
        "policy": {
            "epochs": 3,
            "lr": 5e-4,
            "batch_tokens": 1024,
            "micro_tokens": 1024,
            "max_length": 256,
            "weight_decay": 0.05,
            "seed": seed,
            "save_every_steps": 500,
        },
        "prm": {
            "epochs": 2,
            "lr": 7e-4,
            # Many small steps: 4,096 tokens a step cost five points of AUC.
            "batch_tokens": 1024,
            "micro_tokens": 1024,
            "max_length": 256,
            "value_weight": 1.0,
            "pair_weight": 1.0,
            "margin": 0.3,
            "edit_distance": 1,
            "seed": seed,
            "save_every_steps": 500,
        },
        "evaluation": {
            "tokens": 400,
            "rollouts": 32,
            # With four, searches with PRM1 were right less often than best-of-N, on development problems.
            "branching_factor": 8,
            "temperature": 0.7,
            "max_tokens": 200,
            "batch_rollouts": True,
            "development_system": 100,
        },
    }


def gsm8k(number: int, seed: int) -> dict[str, Any]:
    """Round `number` of a run of a real model on grade-school problems from the hub."""
    del number
    # All weights, without checkpointing and with passes of 4,096 tokens, a PRM of 0.5 B parameters took more than 15 GB.
    training = {
        "max_length": 1024,
        "batch_tokens": 2048,
        "micro_tokens": 1024,
        "gradient_checkpointing": True,
        "seed": seed,
        "lora": {"r": 16, "alpha": 32},
    }
    return {
        "train": {"spec": "hub:gsm8k", "count": 2000},
        "development": {"spec": "hub:gsm8k", "count": 200, "offset": 7000},
        "held_out": {"spec": "hub:gsm8k?split=test", "count": 1000},
        "seed": seed,
        "label": {"rollouts": 16, "branching_factor": 8, "temperature": 0.8, "max_tokens": 400},
        "policy": {**training, "epochs": 2, "lr": 2e-4},
        "prm": {**training, "epochs": 1, "lr": 1e-4, "warmup_ratio": 0.1, "value_weight": 1.0},
        "evaluation": {"tokens": 3000, "rollouts": 64, "branching_factor": 8, "max_tokens": 400},
    }


PRESETS = {Preset.NANO: nano, Preset.GSM8K: gsm8k}


class OverrideError(ValueError):
    """An override that names nothing, or whose form is wrong."""


def round_config(preset: Preset, number: int, seed: int, overrides: Sequence[str] = ()) -> RoundConfig:
    """The configuration of a run's round. Raises OverrideError, pydantic's ValidationError."""
    return with_overrides(PRESETS[preset](number, seed), overrides)


def with_overrides(settings: Mapping[str, Any], overrides: Sequence[str]) -> RoundConfig:
    """The settings with the overrides, each `dotted.name=value`, the value JSON or plain text.

    Raises OverrideError, pydantic's ValidationError.
    """
    config = copy.deepcopy(dict(settings))
    for override in overrides:
        name, equals, text = override.partition("=")
        if not equals or not name:
            raise OverrideError(f"{override!r} is not of the form name=value, like policy.epochs=2.")
        try:
            value = orjson.loads(text)
        except orjson.JSONDecodeError:
            value = text
        place: dict[str, Any] = config
        *path, last = name.split(".")
        for part in path:
            if not isinstance(place.setdefault(part, {}), dict):
                raise OverrideError(f"{override!r}: {part} holds no settings of its own.")
            place = place[part]
        place[last] = value
    return RoundConfig.model_validate(config)
