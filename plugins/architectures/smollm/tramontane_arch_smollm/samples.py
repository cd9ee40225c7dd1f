# SPDX-License-Identifier: Apache-2.0
"""Tiny SmolLM3 configurations for the conformance kit."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tramontane.testing.samples import sample


def samples() -> Mapping[str, dict[str, Any]]:
    """Name -> content of ``config.json``."""

    def make(**changes: Any) -> dict[str, Any]:
        return sample("SmolLM3ForCausalLM", "smollm3", **changes)

    return {
        "every_third_without_positions_tied": make(no_rope_layer_interval=3, num_hidden_layers=4),
        "stated_layers_windows": make(
            no_rope_layers=[1, 0, 1, 0],
            num_hidden_layers=4,
            use_sliding_window=True,
            sliding_window=9,
            tie_word_embeddings=False,
        ),
        "odd_heads_biases_yarn": make(
            num_attention_heads=6,
            num_key_value_heads=3,
            head_dim=24,
            hidden_size=72,
            attention_bias=True,
            mlp_bias=True,
            no_rope_layer_interval=2,
            rope_parameters={
                "rope_theta": 50000.0,
                "rope_type": "yarn",
                "factor": 4.0,
                "original_max_position_embeddings": 32,
            },
        ),
    }
