# SPDX-License-Identifier: Apache-2.0
"""Checkpoints with random weights in the shapes of published models: what speed is measured on.

``python -m tramontane.testing.shapes qwen3-0.6b DIRECTORY`` writes one. Values are drawn small and random, never zero:
zeros make some kernels look faster than they are.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

_QWEN3: dict[str, Any] = {
    "architectures": ["Qwen3ForCausalLM"],
    "model_type": "qwen3",
    "vocab_size": 151936,
    "hidden_size": 1024,
    "intermediate_size": 3072,
    "num_hidden_layers": 28,
    "num_attention_heads": 16,
    "num_key_value_heads": 8,
    "head_dim": 128,
    "rms_norm_eps": 1e-6,
    "rope_theta": 1000000.0,
    "max_position_embeddings": 40960,
    "tie_word_embeddings": True,
    "hidden_act": "silu",
    "torch_dtype": "bfloat16",
}
SHAPES: dict[str, dict[str, Any]] = {
    "qwen3-0.6b": _QWEN3,
    "qwen3-0.6b-short": {**_QWEN3, "num_hidden_layers": 8, "vocab_size": 8192},
    "llama-3.2-1b": {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "vocab_size": 128256,
        "hidden_size": 2048,
        "intermediate_size": 8192,
        "num_hidden_layers": 16,
        "num_attention_heads": 32,
        "num_key_value_heads": 8,
        "head_dim": 64,
        "rms_norm_eps": 1e-5,
        "rope_theta": 500000.0,
        "max_position_embeddings": 131072,
        "tie_word_embeddings": True,
        "hidden_act": "silu",
        "torch_dtype": "bfloat16",
        "rope_scaling": {
            "rope_type": "llama3",
            "factor": 32.0,
            "low_freq_factor": 1.0,
            "high_freq_factor": 4.0,
            "original_max_position_embeddings": 8192,
        },
    },
    "llama-3.1-8b": {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "vocab_size": 128256,
        "hidden_size": 4096,
        "intermediate_size": 14336,
        "num_hidden_layers": 32,
        "num_attention_heads": 32,
        "num_key_value_heads": 8,
        "head_dim": 128,
        "rms_norm_eps": 1e-5,
        "rope_theta": 500000.0,
        "max_position_embeddings": 131072,
        "tie_word_embeddings": False,
        "hidden_act": "silu",
        "torch_dtype": "bfloat16",
        "rope_scaling": {
            "rope_type": "llama3",
            "factor": 8.0,
            "low_freq_factor": 1.0,
            "high_freq_factor": 4.0,
            "original_max_position_embeddings": 8192,
        },
    },
}
"""Name -> content of ``config.json``, from the published models; a short one has their matrices, but fewer of them."""


def write(name: str, directory: Path) -> Path:
    """Write a checkpoint of the named shape in bfloat16, unless it is there; returns its directory."""
    target = directory / name
    if not (target / "model.safetensors").is_file():
        target.mkdir(parents=True, exist_ok=True)
        config = SHAPES[name]
        (target / "config.json").write_text(json.dumps(config, indent=1))
        unfinished = target / "unfinished"
        save_file(dict(_tensors(config)), unfinished, metadata={"format": "pt"})
        unfinished.rename(target / "model.safetensors")
    return target


def _tensors(c: dict[str, Any]) -> Iterator[tuple[str, Tensor]]:
    generator = torch.Generator().manual_seed(0)
    hidden, inner, dim = c["hidden_size"], c["intermediate_size"], c["head_dim"]
    queries, keys = c["num_attention_heads"] * dim, c["num_key_value_heads"] * dim

    def draw(*shape: int) -> Tensor:
        return (torch.randn(shape, generator=generator) * 0.02).to(torch.bfloat16)

    yield "model.embed_tokens.weight", draw(c["vocab_size"], hidden)
    for layer in range(c["num_hidden_layers"]):
        at = f"model.layers.{layer}"
        for part, shape in {
            "self_attn.q_proj": (queries, hidden),
            "self_attn.k_proj": (keys, hidden),
            "self_attn.v_proj": (keys, hidden),
            "self_attn.o_proj": (hidden, queries),
            "mlp.gate_proj": (inner, hidden),
            "mlp.up_proj": (inner, hidden),
            "mlp.down_proj": (hidden, inner),
        }.items():
            yield f"{at}.{part}.weight", draw(*shape)
        norms = ["input_layernorm", "post_attention_layernorm"]
        for norm in norms:
            yield f"{at}.{norm}.weight", 1 + draw(hidden)
        if c["model_type"] == "qwen3":
            for norm in ("self_attn.q_norm", "self_attn.k_norm"):
                yield f"{at}.{norm}.weight", 1 + draw(dim)
    yield "model.norm.weight", 1 + draw(hidden)
    if not c["tie_word_embeddings"]:
        yield "lm_head.weight", draw(c["vocab_size"], hidden)


if __name__ == "__main__":
    print(write(sys.argv[1], Path(sys.argv[2])))
