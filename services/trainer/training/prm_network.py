"""The network of a PRM: the policy with a head of one output, which reads packed trees."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ratchet.contracts.training import PrmTraining
from ratchet.models.precision import serving_dtype
from services.trainer.training.jobs import TrainingFailedError
from services.trainer.training.optimizer import trained_weights, with_adapters
from services.trainer.training.prm_pieces import Piece
from services.trainer.training.token_trie import ancestor_mask


def load_policy(base: Path, config: PrmTraining, device: str) -> tuple[Any, Any]:
    """The policy's network with a new head, adapters if the config asks for LoRA, and its tokenizer.

    Raises TrainingFailedError.
    """
    from transformers import AutoConfig, AutoModelForTokenClassification, AutoTokenizer
    from transformers.utils import logging

    # The head is new, and transformers would warn of it.
    logging.set_verbosity_error()  # type: ignore[no-untyped-call]
    try:
        tokenizer = AutoTokenizer.from_pretrained(base, local_files_only=True)
        model_config = AutoConfig.from_pretrained(base, local_files_only=True)
        model_config.num_labels = 1
        # The policy was trained without dropout; transformers' default for this head is 0.1.
        model_config.classifier_dropout = 0.0
        model = AutoModelForTokenClassification.from_pretrained(
            base,
            config=model_config,
            dtype=torch.bfloat16 if config.lora is not None and config.dtype == "bf16" else torch.float32,
            attn_implementation="sdpa",
            local_files_only=True,
            use_safetensors=True,
        )
    except (OSError, ValueError, KeyError, ImportError) as error:
        first = str(error).strip().splitlines()
        raise TrainingFailedError(
            f"The policy in {base} cannot be loaded: {first[0] if first else type(error).__name__}"
        ) from error
    if config.gradient_checkpointing:
        model.gradient_checkpointing_enable({"use_reentrant": False})
    model = with_adapters(model, config.lora, "TOKEN_CLS")
    # A small step would vanish in the last bit of bf16.
    for weight in trained_weights(model).values():
        weight.data = weight.data.float()
    return model.to(device), tokenizer


def logits_of(model: Any, batch: Sequence[Piece], dtype: str | None) -> torch.Tensor:
    """Logits of packed trees, fp32 [B, T]; T is the longest's. `dtype` None: that of the weights."""
    device = model.device
    width = max(map(len, batch))
    ids = torch.zeros((len(batch), width), dtype=torch.long)
    positions = torch.zeros((len(batch), width), dtype=torch.long)
    for row, piece in enumerate(batch):
        ids[row, : len(piece)] = torch.from_numpy(piece.tokens)
        positions[row, : len(piece)] = torch.from_numpy(piece.positions)
    mask = torch.from_numpy(np.stack([ancestor_mask(piece.parents, width) for piece in batch])).unsqueeze(1)
    with torch.autocast(device.type, torch.bfloat16, enabled=dtype == "bf16"):
        out = model(
            input_ids=ids.to(device),
            attention_mask=mask.to(device),
            position_ids=positions.to(device),
            use_cache=False,
        )
    return torch.as_tensor(out.logits[..., 0]).float()


def stored_dtype(base: Path) -> torch.dtype:
    """The number format in which a PRM on this policy is kept."""
    from transformers import AutoConfig

    dtype = AutoConfig.from_pretrained(base, local_files_only=True).dtype
    return torch.float32 if dtype == torch.float32 else torch.bfloat16


def as_served(model: Any, base: Path, stored: torch.dtype, device: str) -> Any:
    """The model rounded to the format in which it is kept, in that in which the service computes."""
    return model.to(stored).to(serving_dtype(base, stored, device)).eval()


def in_passes(data: Sequence[Piece], tokens: int) -> list[list[Piece]]:
    """Pieces of like length together, at most so many tokens a pass, padding included; a longer piece is a pass by itself."""
    passes: list[list[Piece]] = []
    for piece in sorted(data, key=lambda piece: (len(piece), piece.problem_id)):
        if not passes or len(piece) * (len(passes[-1]) + 1) > tokens:
            passes.append([])
        passes[-1].append(piece)
    return passes


@torch.inference_mode()
def read_nodes(model: Any, data: Sequence[Piece], tokens: int) -> dict[int, dict[str, float]]:
    """The logit of each node that a piece reads, by the piece's `id`; `tokens` a pass."""
    found: dict[int, dict[str, float]] = {}
    for batch in in_passes(data, tokens):
        for piece, row in zip(batch, logits_of(model, batch, None).cpu().numpy(), strict=True):
            found[id(piece)] = dict(zip(piece.nodes, row[piece.ends].tolist(), strict=True))
    return found
