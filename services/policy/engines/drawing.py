"""Next tokens of a batch: each sequence's own temperature, top-p and random number decide.

Shapes: B sequences, V words.
"""

from typing import Any

import numpy as np
import torch

from services.policy.engines.base import uniforms
from services.policy.engines.nucleus import draw

Rows = np.ndarray[Any, np.dtype[np.void]]
"""[B] of `sequence.ROW`."""
Drawn = tuple[torch.Tensor, torch.Tensor]
"""Tokens int64 [B] and their log-probabilities under the untempered model fp32 [B], both on the CPU."""


def draw_rows(logits: torch.Tensor, rows: Rows) -> Drawn:
    """Draw from logits fp32 [B, V]."""
    temperature = torch.from_numpy(rows["temperature"].copy()).to(logits.device)
    warm = torch.nonzero(temperature > 0).flatten()
    chosen = logits.argmax(dim=-1)
    if len(warm):
        mine = rows[warm.cpu().numpy()]
        top_p = torch.from_numpy(mine["top_p"].copy()).to(logits.device)
        chosen[warm] = draw(logits[warm], top_p, numbers_of(mine).to(logits.device), temperature[warm])
    return chosen.cpu(), logprobs_of(logits, chosen).cpu()


def numbers_of(rows: Rows) -> torch.Tensor:
    """The random numbers of the rows' next tokens, fp64 [B]."""
    return torch.from_numpy(uniforms(rows["seed"], rows["drawn"]))


def logprobs_of(logits: torch.Tensor, tokens: torch.Tensor) -> torch.Tensor:
    """Of one token of each row of logits [B, V]: fp32 [B], at most 0."""
    found = logits.gather(1, tokens.unsqueeze(1)).squeeze(1) - logits.logsumexp(dim=-1)
    return found.clamp(max=0.0)
