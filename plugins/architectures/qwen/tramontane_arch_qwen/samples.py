# SPDX-License-Identifier: Apache-2.0
"""Tiny Qwen configurations for the conformance kit."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tramontane.testing.samples import sample


def samples() -> Mapping[str, dict[str, Any]]:
    """Name -> content of ``config.json``."""

    def qwen3(**changes: Any) -> dict[str, Any]:
        return sample("Qwen3ForCausalLM", "qwen3", **changes)

    return {
        "grouped": qwen3(tie_word_embeddings=True),
        "biases_wide_heads": qwen3(attention_bias=True, num_attention_heads=6, num_key_value_heads=3, head_dim=40),
        "upper_windows": qwen3(use_sliding_window=True, sliding_window=8, max_window_layers=1, num_hidden_layers=4),
    }
