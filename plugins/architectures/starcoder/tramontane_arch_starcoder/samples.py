# SPDX-License-Identifier: Apache-2.0
"""Tiny StarCoder2 configurations for the conformance kit."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tramontane.testing.samples import sample


def samples() -> Mapping[str, dict[str, Any]]:
    """Name -> content of ``config.json``."""

    def make(**changes: Any) -> dict[str, Any]:
        plain = {"head_dim": None, "rms_norm_eps": None, "norm_epsilon": 1e-5, "hidden_act": "gelu_pytorch_tanh"}
        return sample("Starcoder2ForCausalLM", "starcoder2", **plain, **changes)

    return {
        "window_tied": make(sliding_window=9),
        "odd_heads_no_bias": make(
            hidden_size=72, num_attention_heads=6, num_key_value_heads=2, use_bias=False, tie_word_embeddings=False
        ),
    }
