"""A GGUF file becomes an ordinary bf16 safetensors checkpoint.

Reads the header itself and dequantises tensor by tensor with the `gguf` package's own functions: the package's reader,
which transformers uses too, turns each of 300,000 vocabulary entries into arrays first, and that takes longer than the
conversion. Weights and tokenizer equal what transformers makes of the same file, bit for bit (held by a test).

Limits: little-endian files of the qwen2 architecture in one part. Peak memory is the bf16 checkpoint and a little more.
"""

import json
import mmap
import os
import re
import struct
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import torch

GGUF_MAGIC = b"GGUF"
# Rows are dequantised in blocks of about this many values, so that the temporaries of `gguf` stay in the cache.
BLOCK_VALUES = 2**21

_SCALARS = {0: "B", 1: "b", 2: "<H", 3: "<h", 4: "<I", 5: "<i", 6: "<f", 7: "?", 10: "<Q", 11: "<q", 12: "<d"}
_STRING, _ARRAY = 8, 9
# Token types of the format: control tokens are special, user-defined ones are ordinary words kept whole.
_CONTROL_TOKEN, _USER_TOKEN = 3, 4

# How Qwen2 cuts text before byte-pair merging; digits stand alone.
QWEN2_SPLIT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)

_QWEN2_LAYER = {
    "attn_norm.weight": "input_layernorm.weight",
    "ffn_norm.weight": "post_attention_layernorm.weight",
    "attn_q.weight": "self_attn.q_proj.weight",
    "attn_q.bias": "self_attn.q_proj.bias",
    "attn_k.weight": "self_attn.k_proj.weight",
    "attn_k.bias": "self_attn.k_proj.bias",
    "attn_v.weight": "self_attn.v_proj.weight",
    "attn_v.bias": "self_attn.v_proj.bias",
    "attn_output.weight": "self_attn.o_proj.weight",
    "ffn_gate.weight": "mlp.gate_proj.weight",
    "ffn_up.weight": "mlp.up_proj.weight",
    "ffn_down.weight": "mlp.down_proj.weight",
}
_QWEN2_TOP = {
    "token_embd.weight": "model.embed_tokens.weight",
    "output_norm.weight": "model.norm.weight",
    "output.weight": "lm_head.weight",
}


class GgufError(ValueError):
    """The file is no GGUF file, or one that this module does not convert."""


@dataclass(frozen=True)
class TensorInfo:
    """Where one tensor lies. `shape` is in PyTorch's order (rows first)."""

    name: str
    shape: tuple[int, ...]
    kind: int
    offset: int


@dataclass(frozen=True)
class Header:
    """Metadata and the tensors; `data_start` is where offsets count from."""

    metadata: dict[str, Any]
    tensors: list[TensorInfo]
    data_start: int


class _Cursor:
    def __init__(self, buffer: mmap.mmap) -> None:
        self.buffer = buffer
        self.at = 0

    def scalar(self, code: str) -> Any:
        value = struct.unpack_from(code, self.buffer, self.at)[0]
        self.at += struct.calcsize(code)
        return value

    def string(self) -> str:
        length = self.scalar("<Q")
        raw = self.buffer[self.at : self.at + length]
        self.at += length
        return raw.decode("utf-8", "replace")

    def value(self, kind: int) -> Any:
        if kind == _STRING:
            return self.string()
        if kind != _ARRAY:
            return self.scalar(_SCALARS[kind])
        element, count = self.scalar("<I"), self.scalar("<Q")
        if count > len(self.buffer):
            raise GgufError("the GGUF header is damaged: an array is longer than the file")
        return [self.value(element) for _ in range(count)]


def read_header(buffer: mmap.mmap) -> Header:
    """Metadata and tensor table of a GGUF file. Raises GgufError for anything else."""
    if buffer[:4] != GGUF_MAGIC:
        raise GgufError("not a GGUF file: it does not begin with the letters GGUF")
    cursor = _Cursor(buffer)
    cursor.at = 4
    try:
        version = cursor.scalar("<I")
        if version not in (2, 3):
            raise GgufError(f"GGUF version {version} is not supported; 2 and 3 are")
        tensor_count, pair_count = cursor.scalar("<Q"), cursor.scalar("<Q")
        metadata = {}
        for _ in range(pair_count):
            key = cursor.string()
            metadata[key] = cursor.value(cursor.scalar("<I"))
        tensors = []
        for _ in range(tensor_count):
            name = cursor.string()
            dims = [cursor.scalar("<Q") for _ in range(cursor.scalar("<I"))]
            kind, offset = cursor.scalar("<I"), cursor.scalar("<Q")
            tensors.append(TensorInfo(name, tuple(reversed(dims)), kind, offset))
    except (struct.error, KeyError, IndexError) as error:
        raise GgufError("the GGUF header is damaged") from error
    alignment = int(metadata.get("general.alignment", 32))
    return Header(metadata, tensors, -(-cursor.at // alignment) * alignment)


def _qwen2_name(name: str) -> str:
    if name in _QWEN2_TOP:
        return _QWEN2_TOP[name]
    parts = name.split(".", 2)
    if len(parts) == 3 and parts[0] == "blk" and parts[2] in _QWEN2_LAYER:
        return f"model.layers.{parts[1]}.{_QWEN2_LAYER[parts[2]]}"
    raise GgufError(f"tensor {name} is not one of a qwen2 model")


def _to_bf16(buffer: mmap.mmap, start: int, info: TensorInfo) -> "torch.Tensor":
    import torch
    from gguf.constants import GGML_QUANT_SIZES, GGMLQuantizationType
    from gguf.quants import dequantize

    kind = GGMLQuantizationType(info.kind)
    block, block_bytes = GGML_QUANT_SIZES[kind]
    rows = int(np.prod(info.shape[:-1], dtype=np.int64))
    row_bytes = info.shape[-1] // block * block_bytes
    packed = np.frombuffer(buffer, np.uint8, rows * row_bytes, start).reshape(rows, row_bytes)
    result = torch.empty((rows, info.shape[-1]), dtype=torch.bfloat16)
    step = max(1, BLOCK_VALUES // info.shape[-1])
    plain: dict[int, np.dtype[Any]] = {
        GGMLQuantizationType.F32: np.dtype("<f4"),
        GGMLQuantizationType.F16: np.dtype("<f2"),
    }
    for row in range(0, rows, step):
        part = packed[row : row + step]
        values = part.view(plain[kind]).astype(np.float32) if kind in plain else dequantize(part, kind)
        result[row : row + step] = torch.from_numpy(np.ascontiguousarray(values))
    return result.reshape(info.shape)


def convert(
    source: Path, target: Path, progress: Callable[[int, int], None] = lambda done, total: None
) -> None:
    """Write `source` (GGUF, qwen2) as a checkpoint into the existing folder `target`.

    `progress` is told how many bytes of packed tensors are done, of how many. Raises GgufError, and OSError when the
    disk fails.
    """
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    with source.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as buffer:
        header = read_header(buffer)
        architecture = header.metadata.get("general.architecture")
        if architecture != "qwen2":
            raise GgufError(f"a GGUF file of architecture {architecture!r} is not supported; qwen2 is")
        total = len(buffer) - header.data_start
        weights: dict[str, torch.Tensor] = {}
        for info in header.tensors:
            weights[_qwen2_name(info.name)] = _to_bf16(buffer, header.data_start + info.offset, info)
            progress(min(total, info.offset), total)
    weights_file = target / "model.safetensors"
    try:
        save_file(dict(sorted(weights.items())), weights_file, metadata={"format": "pt"})
    except SafetensorError as error:
        # The writer hides the system's error number (a full disk, say) in its message.
        if found := re.search(r"os error (\d+)", str(error)):
            raise OSError(int(found[1]), os.strerror(int(found[1])), str(weights_file)) from error
        raise
    # The writer makes the file private; a cache may be shared between users, like any other file under its umask.
    umask = os.umask(0)
    os.umask(umask)
    weights_file.chmod(0o666 & ~umask)

    # A GGUF file keeps embedding and output apart, quantised differently; only a file without `output` ties them.
    _write_config(header.metadata, target, tied="lm_head.weight" not in weights)
    _write_tokenizer(header.metadata, target)
    progress(total, total)


def _write_config(metadata: dict[str, Any], target: Path, *, tied: bool) -> None:
    from transformers import Qwen2Config

    tokens = metadata["tokenizer.ggml.tokens"]
    eos, pad = metadata["tokenizer.ggml.eos_token_id"], metadata.get("tokenizer.ggml.padding_token_id")
    config = Qwen2Config(
        vocab_size=len(tokens),
        hidden_size=metadata["qwen2.embedding_length"],
        intermediate_size=metadata["qwen2.feed_forward_length"],
        num_hidden_layers=metadata["qwen2.block_count"],
        num_attention_heads=metadata["qwen2.attention.head_count"],
        num_key_value_heads=metadata["qwen2.attention.head_count_kv"],
        max_position_embeddings=metadata["qwen2.context_length"],
        rms_norm_eps=metadata["qwen2.attention.layer_norm_rms_epsilon"],
        rope_parameters={"rope_theta": metadata["qwen2.rope.freq_base"], "rope_type": "default"},
        tie_word_embeddings=tied,
        bos_token_id=metadata.get("tokenizer.ggml.bos_token_id"),
        eos_token_id=eos,
        pad_token_id=pad,
        architectures=["Qwen2ForCausalLM"],
        dtype="bfloat16",
    )
    (target / "config.json").write_text(config.to_json_string(use_diff=True))
    # Chat turns end by one token, documents by the other (the padding token of this family): both end a solution.
    ends = [eos] if pad in (None, eos) else [eos, pad]
    generation = {"bos_token_id": config.bos_token_id, "eos_token_id": ends, "pad_token_id": pad}
    (target / "generation_config.json").write_text(json.dumps(generation, indent=2) + "\n")


def _write_tokenizer(metadata: dict[str, Any], target: Path) -> None:
    from tokenizers import AddedToken, Regex, Tokenizer, decoders, pre_tokenizers, processors
    from tokenizers.models import BPE

    if (metadata.get("tokenizer.ggml.model"), metadata.get("tokenizer.ggml.pre")) != ("gpt2", "qwen2"):
        raise GgufError("the tokenizer of this GGUF file is not the one of qwen2")
    tokens = metadata["tokenizer.ggml.tokens"]
    merges = [tuple(merge.split(" ", 1)) for merge in metadata["tokenizer.ggml.merges"]]
    vocabulary = {token: number for number, token in enumerate(tokens)}
    tokenizer = Tokenizer(BPE(vocabulary, merges, continuing_subword_prefix="", end_of_word_suffix=""))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(QWEN2_SPLIT), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="$A:0", pair="$A:0 $B:1", special_tokens=[]
    )
    kinds = metadata["tokenizer.ggml.token_type"]
    for token, kind in zip(tokens, kinds, strict=True):
        if kind in (_CONTROL_TOKEN, _USER_TOKEN):
            added = AddedToken(token, special=kind == _CONTROL_TOKEN, normalized=False)
            (tokenizer.add_special_tokens if added.special else tokenizer.add_tokens)([added])
    tokenizer.save(str(target / "tokenizer.json"))
    named = {"bos_token": "bos", "eos_token": "eos", "pad_token": "padding"}
    config: dict[str, Any] = {
        "tokenizer_class": "Qwen2Tokenizer",
        "add_prefix_space": None,
        "unk_token": None,
    }
    for key, short in named.items():
        number = metadata.get(f"tokenizer.ggml.{short}_token_id")
        config[key] = None if number is None else tokens[number]
    (target / "tokenizer_config.json").write_text(json.dumps(config, indent=2) + "\n")
    if template := metadata.get("tokenizer.chat_template"):
        (target / "chat_template.jinja").write_text(template)
