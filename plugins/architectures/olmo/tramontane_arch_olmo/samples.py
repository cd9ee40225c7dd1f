# SPDX-License-Identifier: Apache-2.0
"""Tiny OLMo 2 configurations for the conformance kit."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tramontane.testing.samples import sample


def samples() -> Mapping[str, dict[str, Any]]:
    """Name -> content of ``config.json``."""

    def make(**changes: Any) -> dict[str, Any]:
        return sample("Olmo2ForCausalLM", "olmo2", head_dim=None, **changes)

    return {
        "grouped": make(),
        "odd_heads_tied_biases": make(
            hidden_size=72,
            num_attention_heads=6,
            num_key_value_heads=3,
            attention_bias=True,
            tie_word_embeddings=True,
        ),
        "all_heads_linear": make(
            num_key_value_heads=4,
            rope_parameters={"rope_theta": 500000.0, "rope_type": "linear", "factor": 4.0},
        ),
    }
