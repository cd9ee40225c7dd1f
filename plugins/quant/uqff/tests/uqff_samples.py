# SPDX-License-Identifier: Apache-2.0
"""A tiny Llama whose weights follow from a formula, saved as the usual safetensors or, layer by layer, as UQFF."""

from __future__ import annotations

import base64
import json
import math
import struct
from collections.abc import Iterable, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from tramontane_quant_uqff.names import DTYPES, VERSION_KEYS

SIZE = 64
VOCABULARY = 96
CONFIG = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "hidden_size": SIZE,
    "intermediate_size": 2 * SIZE,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 2,
    "vocab_size": VOCABULARY,
    "max_position_embeddings": 64,
    "rms_norm_eps": 1e-5,
    "rope_theta": 10000.0,
    "rope_scaling": None,
    "hidden_act": "silu",
    "attention_bias": False,
    "mlp_bias": False,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "tie_word_embeddings": False,
    "torch_dtype": "float32",
    "use_cache": True,
}
MODULES = {
    "self_attn.q_proj": (SIZE, SIZE),
    "self_attn.k_proj": (SIZE, SIZE),
    "self_attn.v_proj": (SIZE, SIZE),
    "self_attn.o_proj": (SIZE, SIZE),
    "mlp.gate_proj": (2 * SIZE, SIZE),
    "mlp.up_proj": (2 * SIZE, SIZE),
    "mlp.down_proj": (SIZE, 2 * SIZE),
}
U32 = struct.Struct("<I").pack


def weight(rows: int, columns: int, seed: int = 1) -> Tensor:
    """float32 [rows, columns], the same everywhere."""
    values = [math.sin(1.7 * seed + 12.9898 * i) * math.cos(0.37 * i + seed) * 0.3 for i in range(rows * columns)]
    return torch.tensor(values, dtype=torch.float32).view(rows, columns)


LAYER = weight(SIZE, SIZE, 2)
"""The weight of the layer that was recorded: ``model.layers.0.self_attn.k_proj``."""


def layers() -> dict[str, Tensor]:
    """The weights of the model that are quantized, in the order of old files."""
    found = {"lm_head": weight(VOCABULARY, SIZE, 90)}
    for block in range(2):
        for number, (name, shape) in enumerate(MODULES.items(), 1):
            found[f"model.layers.{block}.{name}"] = weight(*shape, seed=10 * block + number)
    return found


def others(*, embedding: bool = True) -> dict[str, Tensor]:
    """The other tensors."""
    norms = ["model.norm"]
    norms += [f"model.layers.{i}.{n}" for i in range(2) for n in ("input_layernorm", "post_attention_layernorm")]
    found = {f"{name}.weight": torch.ones(SIZE) for name in norms}
    return found | ({"model.embed_tokens.weight": weight(VOCABULARY, SIZE, 91)} if embedding else {})


def save_model(folder: Path, config: Mapping[str, object] | None = None) -> Path:
    """The model in the usual layout, with a tokenizer of single letters."""
    folder.mkdir(parents=True, exist_ok=True)
    tensors = {f"{name}.weight": value for name, value in layers().items()} | others()
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    beside(folder, config)
    return folder


def beside(folder: Path, config: Mapping[str, object] | None = None) -> None:
    """Configuration and tokenizer."""
    words = ["<unk>", "<s>", "</s>", *(chr(33 + i) for i in range(VOCABULARY - 3))]
    tokenizer = {
        "version": "1.0",
        "added_tokens": [],
        "model": {"type": "BPE", "vocab": {w: i for i, w in enumerate(words)}, "merges": [], "unk_token": "<unk>"},
    }
    settings = {"tokenizer_class": "LlamaTokenizer", "bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}
    for name, content in (
        ("config.json", CONFIG if config is None else config),
        ("tokenizer.json", tokenizer),
        ("tokenizer_config.json", settings),
        ("generation_config.json", {"bos_token_id": 1, "eos_token_id": 2}),
    ):
        (folder / name).write_text(json.dumps(content))


def versions(major: int = 1, minor: int = 2, patch: int = 0) -> dict[str, Tensor]:
    """What says the version."""
    numbers = (torch.tensor(number, dtype=torch.uint32) for number in (major, minor, patch))
    return dict(zip(VERSION_KEYS, numbers, strict=True))


def unquant(name: str, value: Tensor) -> dict[str, Tensor]:
    """A layer as plain numbers."""
    return {f"{name}.weight": value, f"{name}.weight.format": torch.tensor(1, dtype=torch.uint8)}


def save_uqff(folder: Path, special: Mapping[str, Mapping[str, Tensor]] | None = None, stem: str = "q8_0") -> Path:
    """The model as UQFF 1.2; layers in ``special`` (name -> field -> tensor) are stored so, the others plain."""
    folder.mkdir(parents=True, exist_ok=True)
    tensors = versions()
    for name, value in layers().items():
        fields = (special or {}).get(name)
        tensors |= unquant(name, value) if fields is None else {f"{name}.{one}": t for one, t in fields.items()}
    save_file(tensors, folder / f"{stem}-0.uqff")
    save_file(others(), folder / "residual.safetensors")
    beside(folder)
    return folder / f"{stem}-0.uqff"


@cache
def _recordings() -> dict[str, dict[str, dict[str, list[Any]]]]:
    """``tools/record.py`` makes them."""
    return json.loads((Path(__file__).parent / "recorded.json").read_text())


def recorded(version: str, kind: str) -> dict[str, Tensor]:
    """Fields of :data:`LAYER` as mistral.rs wrote them."""
    found = {}
    for name, (dtype, shape, data) in _recordings()[version][kind].items():
        raw = torch.frombuffer(bytearray(base64.b64decode(data)), dtype=torch.uint8)
        found[name] = raw.view(getattr(torch, dtype)).view(shape)
    return found


def blob(kind: int, *parts: bytes, version: int = 0x000200) -> bytes:
    """A layer of the old versions."""
    return U32(version) + bytes([kind]) + b"".join(parts)


def packed(tensor: Tensor) -> bytes:
    """A tensor within such a layer."""
    code = next(number for number, dtype in DTYPES.items() if dtype == tensor.dtype)
    raw = tensor.contiguous().flatten().view(torch.uint8).numpy().tobytes()
    return b"".join((U32(len(raw)), U32(code), sizes(tensor.shape), raw))


def sizes(shape: Iterable[int]) -> bytes:
    """A shape within such a layer."""
    shape = tuple(shape)
    return U32(len(shape)) + b"".join(map(U32, shape))


def save_old(
    folder: Path, blobs: Mapping[int, bytes] | None = None, config: Mapping[str, object] | None = None
) -> Path:
    """The model as UQFF 0.2; layers with a number in ``blobs`` are stored so, the others plain."""
    folder.mkdir(parents=True, exist_ok=True)
    plain = {number: blob(1, b"\0", packed(value)) for number, value in enumerate(layers().values())}
    stored = {str(number): one for number, one in (plain | dict(blobs or {})).items()}
    save_file({k: torch.frombuffer(bytearray(v), dtype=torch.uint8) for k, v in stored.items()}, folder / "old-0.uqff")
    save_file(others(), folder / "residual.safetensors")
    beside(folder, config)
    return folder / "old-0.uqff"
