"""What runs inside vLLM's own engine process: sampling for the CPU, and a lifeline to the service.

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

from services.policy.engines.base import SEED_KEY, SERVICE_PID, TOP_P_KEY, uniforms
from services.policy.engines.nucleus import draw, keep_nucleus


@dataclass(frozen=True)
class _Row:
    """How one row of vLLM's batch is sampled."""

    top_p: float
    seed: int | None
    written: list[int]
    """vLLM's own list of the tokens written so far: it grows."""


class OwnSampling(LogitsProcessor):
    """Top-p and seeded draws from `SamplingParams.extra_args`; runs where vLLM's own top-p runs, after the temperature.

    Seeded rows are decided here: all but the drawn token is masked. vLLM's own seeded draws fail on CPUs: where a prompt is
    computed in pieces, vLLM 0.32 takes a draw back with an operation that CPU generators do not have, and its core dies.
    """

    def __init__(self, vllm_config: VllmConfig, device: torch.device, is_pin_memory: bool) -> None:
        self._rows: dict[int, _Row] = {}
        self._device = device

    def is_argmax_invariant(self) -> bool:
        # True even for the seeded rows: vLLM then applies it to sampled rows only, and greedy ones carry no seed.
        return True

    def update_state(self, batch_update: BatchUpdate | None) -> None:
        if batch_update is None:
            return
        for row in batch_update.removed:
            self._rows.pop(row, None)
        for row, params, _, written in batch_update.added:
            # A row that is given to a new request forgets the old one.
            self._rows.pop(row, None)
            if own := params.extra_args:
                self._rows[row] = _Row(own.get(TOP_P_KEY, 1.0), own.get(SEED_KEY), written)
        for here, there, direction in batch_update.moved:
            mine, theirs = self._rows.pop(here, None), self._rows.pop(there, None)
            if mine is not None:
                self._rows[there] = mine
            if theirs is not None and direction == MoveDirectionality.SWAP:
                self._rows[here] = theirs

    def apply(self, logits: torch.Tensor) -> torch.Tensor:
        rows = {row: own for row, own in self._rows.items() if row < logits.shape[0]}
        if not rows:
            return logits
        top_p = torch.ones(logits.shape[0], device=self._device)
        for row, own in rows.items():
            top_p[row] = own.top_p
        logits = keep_nucleus(logits, top_p)
        seeds = {row: (own.seed, len(own.written)) for row, own in rows.items() if own.seed is not None}
        if seeds:
            numbers, positions = np.array(list(seeds.values()), dtype=np.uint64).T
            index = torch.tensor(list(seeds), device=self._device)
            chosen = draw(logits[index], torch.from_numpy(uniforms(numbers, positions)))
            logits[index] = -torch.inf
            logits[index, chosen] = 0.0
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
