"""Settings of rounds, by the model that they are for.

`nano` is the demonstration: problems from its own families, four rounds, each with more problems. Its figures are in
docs/measurements/rounds-on-nano.md. `gsm8k` is for real models on grade-school problems, `gsm8k-2cores` the same for `small` on
two CPU cores, `gsm8k-gpu` on one GPU; docs/how-to/train.md says why they are as they are. Anything can be overridden
(`--set policy.epochs=2`).
"""

import copy
from collections.abc import Mapping, Sequence
from enum import StrEnum
from typing import Any

from ratchet.cli.overrides import OverrideError, read_override
from ratchet.contracts.rounds import RoundConfig

NANO_TRAIN = 2500
"""Training problems that the rounds of one run draw from; each round takes a longer beginning of the same list."""


class Preset(StrEnum):
    """Which settings a run begins with."""

    NANO = "nano"
    GSM8K = "gsm8k"
    GSM8K_2CORES = "gsm8k-2cores"
    GSM8K_GPU = "gsm8k-gpu"

    @property
    def base(self) -> str:
        """The model that a run with these settings improves, unless another is named: that on which they were tried."""
        return "nano" if self is Preset.NANO else "small"


def nano(number: int, seed: int) -> dict[str, Any]:
    """Round `number` of a run on nano's problems."""
    place = min(number, 4) - 1
    return {
        "train": {
            "spec": f"nano:train?count={NANO_TRAIN}&seed={seed}",
            "count": (60, 150, 400, 1000)[place],
        },
        # So many that the gate can tell a pair that is as good from one that is two points worse; it seldom looks at a tenth.
        "development": {"spec": "nano:development?count=3100", "count": 3100},
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
            # Many small steps: 4,096 tokens a step cost five points of AUC, and 16 problems a step seven of sibling accuracy.
            "batch_tokens": 1024,
            "batch_problems": 1,
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
            "samples": 4,
            # For the report alone: the gate decides by development problems.
            "held_out_system": 200,
        },
        "gate": {"selection": 100, "block": 50},
    }


def gsm8k(number: int, seed: int) -> dict[str, Any]:
    """Round `number` of a run of a real model on grade-school problems from the hub."""
    # All weights, without checkpointing and with passes of 4,096 tokens, a PRM of 0.5 B parameters took more than 15 GB.
    training = {
        "max_length": 1024,
        "micro_tokens": 1024,
        "gradient_checkpointing": True,
        "seed": seed,
        "lora": {"r": 16, "alpha": 32},
    }
    return {
        "train": {"spec": "hub:gsm8k", "count": 2000, "offset": _fresh(number, 2000, 6000)},
        "development": {"spec": "hub:gsm8k", "count": 1000, "offset": 6300},
        "held_out": {"spec": "hub:gsm8k?split=test", "count": 1000},
        "seed": seed,
        "label": {"rollouts": 16, "branching_factor": 8, "temperature": 0.8, "max_tokens": 400},
        "selection": {"per_problem": 4},
        # 5e-4 learnt 34 programs by heart. How long is long enough the validation problems say.
        "policy": {
            **training,
            "epochs": 3,
            "lr": 1e-4,
            "batch_tokens": 8192,
            "warmup_ratio": 0.05,
            "validations": 4,
        },
        "prm": {
            **training,
            "epochs": 1,
            "lr": 1e-4,
            "batch_tokens": 2048,
            "warmup_ratio": 0.1,
            "value_weight": 1.0,
        },
        "evaluation": {"tokens": 3000, "rollouts": 64, "branching_factor": 8, "max_tokens": 400},
        "gate": {"selection": 100, "block": 100},
    }


def gsm8k_2cores(number: int, seed: int) -> dict[str, Any]:
    """Round `number` of a run of `small` on two CPU cores, some hours each, all on GSM8K's training file.

    With a file of one's own `train.spec`, `development.spec` and `held_out.spec` are that file; problems are kept apart by
    `offset`.
    """
    settings = gsm8k(number, seed)
    return settings | {
        "train": {"spec": "hub:gsm8k", "count": 300, "offset": _fresh(number, 300, 6000)},
        "development": {"spec": "hub:gsm8k", "count": 300, "offset": 6300},
        "held_out": {"spec": "hub:gsm8k", "count": 200, "offset": 7000},
        "label": {
            "rollouts": 12,
            "branching_factor": 8,
            "temperature": 0.8,
            "max_tokens": 300,
            # Programs of hard problems are few and dear, and a second search of half the problems is as dear as the first.
            "retries": 0,
        },
        # A pass of 1,024 tokens fits into memory beside the engines, and recomputing it would take a third longer.
        "policy": {
            **settings["policy"],
            "batch_tokens": 4096,
            "gradient_checkpointing": False,
            "validations": 2,
            "save_every_steps": 20,
        },
        "prm": {**settings["prm"], "gradient_checkpointing": False, "save_every_steps": 20},
        # About six programs of `small` for each problem and strategy.
        "evaluation": {"tokens": 600, "rollouts": 32, "branching_factor": 8, "max_tokens": 300},
        # Of 100 simulated pairs that are eight points better 97 pass, four points better 66, four points worse none. With a
        # margin of two points it is 92 and 50.
        "gate": {"margin": 0.03, "selection": 50, "block": 50},
    }


def gsm8k_gpu(number: int, seed: int) -> dict[str, Any]:
    """Round `number` of a run of `small` on one GPU, some minutes each: the recipe of two cores.

    Passes are larger: with small ones a GPU waits for its launches.
    """
    settings = gsm8k_2cores(number, seed)
    return settings | {
        "policy": {**settings["policy"], "micro_tokens": 8192},
        "prm": {**settings["prm"], "micro_tokens": 8192, "batch_tokens": 8192},
    }


def _fresh(number: int, count: int, problems: int) -> int:
    """Where the round's own problems begin: each takes the next `count`, and begins again where there are no more.

    What earlier rounds have selected of theirs stays in the training.
    """
    return (number - 1) * count % (problems // count * count)


PRESETS = {
    Preset.NANO: nano,
    Preset.GSM8K: gsm8k,
    Preset.GSM8K_2CORES: gsm8k_2cores,
    Preset.GSM8K_GPU: gsm8k_gpu,
}


def round_config(preset: Preset, number: int, seed: int, overrides: Sequence[str] = ()) -> RoundConfig:
    """The configuration of a run's round. Raises OverrideError, pydantic's ValidationError."""
    return with_overrides(PRESETS[preset](number, seed), overrides)


def with_overrides(settings: Mapping[str, Any], overrides: Sequence[str]) -> RoundConfig:
    """The settings with the overrides, each `dotted.name=value`, the value JSON or plain text.

    Raises OverrideError, pydantic's ValidationError.
    """
    config = copy.deepcopy(dict(settings))
    for override in overrides:
        name, value = read_override(override, example="policy.epochs=2")
        place: dict[str, Any] = config
        *path, last = name.split(".")
        for part in path:
            if not isinstance(place.setdefault(part, {}), dict):
                raise OverrideError(f"{override!r}: {part} holds no settings of its own.")
            place = place[part]
        place[last] = value
    return RoundConfig.model_validate(config)
