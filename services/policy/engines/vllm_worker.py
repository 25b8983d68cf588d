"""What runs inside vLLM's own engine process: draws for the CPU, and a lifeline to the service.

vLLM imports both by name. The lifeline ends the engine process when the service is gone: after `kill -9` of the
service nothing else would tell it, and it would keep its memory and cores.
"""

import os
import select
import signal
import threading
from dataclasses import dataclass

import numpy as np
import torch
from vllm.config import VllmConfig
from vllm.v1.sample.logits_processor import BatchUpdate, LogitsProcessor, MoveDirectionality

from services.policy.engines.base import SEED_KEY, SERVICE_PID, TEMPERATURE_KEY, TOP_P_KEY, uniforms
from services.policy.engines.nucleus import draw


@dataclass(frozen=True)
class _Row:
    """How one row of vLLM's batch is sampled."""

    temperature: float
    top_p: float
    seed: int
    written: list[int]
    """vLLM's own list of the tokens written so far: it grows."""


class OwnSampling(LogitsProcessor):
    """Draws by `SamplingParams.extra_args`, of requests that are greedy to vLLM: the token that is drawn becomes the largest.

    vLLM's own draws would come after it, with one exponential random number for each token of the vocabulary. Its seeded ones
    fail on CPUs: where a prompt is computed in pieces, vLLM 0.32 takes a draw back with an operation that CPU generators do not
    have, and its core dies.
    """

    def __init__(self, vllm_config: VllmConfig, device: torch.device, is_pin_memory: bool) -> None:
        self._rows: dict[int, _Row] = {}
        self._device = device

    def is_argmax_invariant(self) -> bool:
        """Not so: it says which one the largest is."""
        return False

    def update_state(self, batch_update: BatchUpdate | None) -> None:
        if batch_update is None:
            return
        for row in batch_update.removed:
            self._rows.pop(row, None)
        for row, params, _, written in batch_update.added:
            # A row that is given to a new request forgets the old one.
            self._rows.pop(row, None)
            if own := params.extra_args:
                self._rows[row] = _Row(own[TEMPERATURE_KEY], own[TOP_P_KEY], own[SEED_KEY], written)
        for here, there, direction in batch_update.moved:
            mine, theirs = self._rows.pop(here, None), self._rows.pop(there, None)
            if mine is not None:
                self._rows[there] = mine
            if theirs is not None and direction == MoveDirectionality.SWAP:
                self._rows[here] = theirs

    def apply(self, logits: torch.Tensor) -> torch.Tensor:
        """`logits` fp32 [rows, vocabulary], in place."""
        rows = sorted(row for row in self._rows if row < logits.shape[0])
        if not rows:
            return logits
        own = [self._rows[row] for row in rows]
        index = torch.tensor(rows, device=self._device)
        top_p, temperature = torch.tensor(
            [(each.top_p, each.temperature) for each in own], device=self._device
        ).T
        numbers = uniforms(
            np.array([each.seed for each in own], dtype=np.uint64),
            np.array([len(each.written) for each in own], dtype=np.uint64),
        )
        drawn = logits if len(rows) == logits.shape[0] else logits[index]
        logits[index, draw(drawn, top_p, torch.from_numpy(numbers), temperature)] = torch.inf
        return logits


class Lifeline:
    """vLLM mixes it into its worker, and imports this module for it, which holds on to the service (below)."""


def _hold_on_to_the_service() -> None:
    """End this process when the service's has ended. Does nothing in the service itself."""
    pid = os.environ.get(SERVICE_PID)
    if pid is None or not hasattr(os, "pidfd_open") or int(pid) == os.getpid():
        return
    try:
        watched = os.pidfd_open(int(pid))
    except ProcessLookupError:
        os.kill(os.getpid(), signal.SIGKILL)
        return
    except OSError:
        return

    def wait() -> None:
        poll = select.poll()
        poll.register(watched, select.POLLIN)
        poll.poll()
        os.kill(os.getpid(), signal.SIGKILL)

    threading.Thread(target=wait, name="lifeline", daemon=True).start()


_hold_on_to_the_service()
