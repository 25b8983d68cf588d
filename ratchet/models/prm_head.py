"""What the trainer and the PRM service agree on: where a trained PRM is read, and what its logit means.

A trained PRM is a token classifier with one label in the `markers` format. The score of a step is the logit at the last
token of the step's `<end_of_step>` marker, made a probability by `sigmoid(a * logit + b)`; a and b are in its config.
"""

import math
from bisect import bisect_left
from collections.abc import Sequence
from typing import Any

from ratchet.contracts.policy import Prefix
from ratchet.contracts.prm import Calibration
from ratchet.solutions.step_formats import END_OF_STEP, Markers

CONFIG_KEY = "ratchet_prm"


class HeadError(Exception):
    """The checkpoint is no PRM that can be served; the message says why."""


def calibration_of(config: dict[str, Any]) -> Calibration:
    """The calibration in a checkpoint's config. Raises ValueError when it is not that of a trained PRM."""
    entry = config.get(CONFIG_KEY)
    if not isinstance(entry, dict):
        raise ValueError(f"its config.json has no {CONFIG_KEY}, so it is not a PRM that Ratchet trained")
    try:
        found = Calibration(**{name: float(value) for name, value in entry["calibration"].items()})
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise ValueError(
            f"{CONFIG_KEY}.calibration in its config.json must be two numbers, a and b"
        ) from error
    if not (math.isfinite(found.a) and math.isfinite(found.b)):
        raise ValueError(f"{CONFIG_KEY}.calibration in its config.json is not finite")
    return found


def prm_text(problem: str, steps: Sequence[str]) -> tuple[str, list[int]]:
    """The text that the PRM reads, and the position in it (characters) where each step's marker ends."""
    markers = Markers()
    at = len(markers.render(Prefix(problem=problem)))
    ends: list[int] = []
    for step in steps:
        # The marker is followed by a line break.
        at += len(markers.join([step]))
        ends.append(at - 1)
    text = markers.render(Prefix(problem=problem, steps=list(steps)))
    assert all(text.endswith(END_OF_STEP, 0, end) for end in ends)
    return text, ends


def tokens_at(ends: Sequence[int], token_ends: Sequence[int]) -> list[int]:
    """The token (its number) in which each position of `prm_text` ends; `token_ends` is where each token ends."""
    return [bisect_left(token_ends, end) for end in ends]
