# SPDX-License-Identifier: Apache-2.0
"""Tiny Llama configurations for the conformance kit: each turns on what the others leave off."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tramontane.testing.samples import sample


def samples() -> Mapping[str, dict[str, Any]]:
    """Name -> content of ``config.json``."""

    def llama(**changes: Any) -> dict[str, Any]:
        return sample("LlamaForCausalLM", "llama", **changes)

    def scaled(**settings: Any) -> dict[str, Any]:
        return llama(rope_parameters={"rope_theta": 10000.0, **settings}, num_hidden_layers=2)

    return {
        "grouped": llama(),
        "multi_head_tied_biases": llama(
            num_key_value_heads=4, tie_word_embeddings=True, attention_bias=True, mlp_bias=True, num_hidden_layers=2
        ),
        "odd_heads": llama(num_attention_heads=6, num_key_value_heads=3, head_dim=24, hidden_size=72),
        "rope_linear": scaled(rope_type="linear", factor=4.0),
        "rope_dynamic": scaled(rope_type="dynamic", factor=2.0) | {"max_position_embeddings": 40},
        "rope_yarn": scaled(rope_type="yarn", factor=4.0, original_max_position_embeddings=32),
        "rope_llama3": scaled(
            rope_type="llama3",
            factor=8.0,
            low_freq_factor=1.0,
            high_freq_factor=4.0,
            original_max_position_embeddings=64,
        ),
        "rope_old_spelling": llama(rope_theta=500000.0, rope_scaling={"type": "linear", "factor": 2.0}),
    }
