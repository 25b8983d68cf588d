"""A promoted round as the first days of version 0.1.0 wrote it, once migrated: without what later versions have added.

`later` stands for something that only another version knows.
"""

from typing import Any

CONFIG: dict[str, Any] = {
    "seed": 7,
    "train": {"spec": "nano:train?count=30", "count": 30, "offset": 0},
    "label": {"rollouts": 4, "branching_factor": 4, "batch_rollouts": True, "max_tokens": 160},
    "policy": {"lr": 0.0005, "dtype": "bf16", "epochs": 2, "lora": None},
    "prm": {"lr": 0.0007, "dtype": "bf16", "epochs": 1},
    "later": True,
}
_TRAINING: dict[str, Any] = {
    "job": "5b3597f2",
    "steps": 1,
    "epochs": 1,
    "sha256": "928ea3be",
    "tokens": 2040,
    "seconds": 6.231,
    "final_loss": 1.37,
    "dropped_too_long": 0,
    "tokens_per_second": 327.4,
}
_FIGURE = {"n": 98, "low": 0.41, "high": 0.79, "value": 0.6}
_GREEDY: dict[str, Any] = {
    "n": 10,
    "ci95": [0.3127, 0.8318],
    "right": 6,
    "tokens": 44.9,
    "accuracy": 0.6,
    "outcomes": "0111010101",
}
METRICS: dict[str, Any] = {
    "models": {
        "prm": "prm1-likelihood",
        "base": "nano@19cb7e97",
        "policy": "nano@19cb7e97",
        "base_uri": "/nano",
        "policy_uri": "/nano",
    },
    "problems": {
        split: {"refused": 0, "problems": 10, "set_aside": 0}
        for split in ("train", "held_out", "development")
    },
    "label": {
        "failed": 0,
        "solved": 19,
        "tokens": 6786,
        "coverage": 0.6333,
        "problems": 30,
        "searches": 30,
        "rollouts": 120,
    },
    "selection": {
        "rows": 21,
        "trees": 30,
        "sha256": "88234e5b",
        "solved": 19,
        "dataset": "b5af0e66-4347-5c56-aa22-653f04abe83d",
        "dropped": {"wrong answer": 71},
        "coverage": {"family": {"ages": [1, 2]}, "difficulty": {"1": [1, 2]}},
        "problems": 30,
        "quarantined": 0,
        "selected_problems": 19,
        "trajectories_found": 92,
        "from_earlier_rounds": 0,
        "trajectories_selected": 21,
        "later": 3,
    },
    "policy": {**_TRAINING, "version": "old-r1-policy@ebc5f478", "uri": "/old/policy", "examples": 21},
    "prm": {
        **_TRAINING,
        "version": "old-r1-prm@928ea3be",
        "uri": "/old/prm",
        "trees": 30,
        "values": 104,
        "problems": 30,
        "sibling_pairs": 17,
        "trajectory_pairs": 13,
        "held_out_problems": 15,
        "calibration": {"a": 1.4875, "b": -0.5488},
        "quality": {
            "problems": 15,
            "step_auc": _FIGURE,
            "pair_accuracy": _FIGURE,
            "trajectory_auc": _FIGURE,
            "calibration_error": _FIGURE,
            "calibration_error_raw": {"n": 0, "low": None, "high": None, "value": None},
        },
    },
    "evaluation": {
        "incumbent": {"pair": "nano@19cb7e97 prm1-likelihood", "measured": {"held_out.greedy": _GREEDY}},
        "candidate": {
            "pair": "old-r1-policy@ebc5f478 old-r1-prm@928ea3be",
            "measured": {"held_out.greedy": _GREEDY, "development.greedy": _GREEDY},
        },
    },
    "gate": {
        "lost": [],
        "alpha": 0.1,
        "promoted": True,
        "tolerance": 0.01,
        "comparisons": {
            "development.greedy": {
                "n": 10,
                "loses": False,
                "worse": 1,
                "better": 1,
                "p_worse": 0.75,
                "difference": 0.0,
            }
        },
    },
    "seconds": {"created": 0.0, "searching": 3.6, "evaluating": 12.6},
    "later": {"unknown": 1},
}
