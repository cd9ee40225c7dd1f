# SPDX-License-Identifier: Apache-2.0
"""Small configurations to vary: what the ``samples`` of an architecture record are usually built from."""

from __future__ import annotations

from typing import Any

BASE: dict[str, Any] = {
    "vocab_size": 211,
    "hidden_size": 64,
    "intermediate_size": 112,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "max_position_embeddings": 256,
    "rms_norm_eps": 1e-5,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 0,
    "torch_dtype": "float32",
}
"""Keys that most decoder configurations share; sizes that are no powers of two where nothing forces them."""


def sample(architecture: str, model_type: str, **changes: Any) -> dict[str, Any]:
    """Content of a tiny ``config.json``; a change to ``None`` removes the key."""
    made = {"architectures": [architecture], "model_type": model_type, **BASE, **changes}
    return {key: value for key, value in made.items() if value is not None}
