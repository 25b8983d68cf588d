"""What runs inside vLLM's own engine process: a fast top-p for the CPU, and a lifeline to the service.

vLLM imports both by name. The lifeline ends the engine process when the service is gone: after `kill -9` of the
service nothing else would tell it, and it would keep its memory and cores.
"""

import os
import select
import signal
import threading
from typing import Any

import torch
from vllm import SamplingParams
from vllm.config import VllmConfig
from vllm.v1.sample.logits_processor import BatchUpdate, LogitsProcessor, MoveDirectionality

from services.policy.engines.nucleus import keep_nucleus

TOP_P_KEY = "ratchet_top_p"
SERVICE_PID = "RATCHET_POLICY_SERVICE_PID"


class NucleusLogitsProcessor(LogitsProcessor):
    """Top-p from `SamplingParams.extra_args[TOP_P_KEY]`; runs where vLLM's own runs, after the temperature."""

    @classmethod
    def validate_params(cls, sampling_params: SamplingParams) -> None:
        value = (sampling_params.extra_args or {}).get(TOP_P_KEY, 1.0)
        if not 0.0 < value <= 1.0:
            raise ValueError(f"{TOP_P_KEY} must be above 0 and at most 1, not {value}")

    def __init__(self, vllm_config: VllmConfig, device: torch.device, is_pin_memory: bool) -> None:
        self._top_p: dict[int, float] = {}
        self._device = device

    def is_argmax_invariant(self) -> bool:
        return True

    def update_state(self, batch_update: BatchUpdate | None) -> None:
        if batch_update is None:
            return
        for row in batch_update.removed:
            self._top_p.pop(row, None)
        for row, params, _, _ in batch_update.added:
            # A row that is given to a new request forgets the old one.
            self._top_p[row] = (params.extra_args or {}).get(TOP_P_KEY, 1.0)
        for here, there, direction in batch_update.moved:
            mine, theirs = self._top_p.pop(here, 1.0), self._top_p.pop(there, 1.0)
            self._top_p[there] = mine
            if direction == MoveDirectionality.SWAP:
                self._top_p[here] = theirs

    def apply(self, logits: torch.Tensor) -> torch.Tensor:
        top_p = torch.tensor(
            [self._top_p.get(row, 1.0) for row in range(logits.shape[0])], device=self._device
        )
        return keep_nucleus(logits, top_p)


class Lifeline:
    """Mixed into vLLM's worker; importing it is what counts."""

    def lifeline(self) -> dict[str, Any]:
        """What is watched (for tests and for the curious)."""
        return {"service": os.environ.get(SERVICE_PID), "engine": os.getpid()}


def _hold_on_to_the_service() -> None:
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
