# SPDX-License-Identifier: Apache-2.0
"""Tiny Granite configurations for the conformance kit."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tramontane.testing.samples import sample

Samples = Mapping[str, dict[str, Any]]
FACTORS = {
    "embedding_multiplier": 3.0,
    "attention_multiplier": 0.2,
    "residual_multiplier": 0.6,
    "logits_scaling": 2.5,
}


def granite() -> Samples:
    """Name -> content of ``config.json``."""

    def make(**changes: Any) -> dict[str, Any]:
        return sample("GraniteForCausalLM", "granite", **{**FACTORS, "head_dim": None, **changes})

    return {
        "factors_tied": make(tie_word_embeddings=True),
        "factors_odd_heads_biases": make(
            hidden_size=72,
            num_attention_heads=6,
            num_key_value_heads=3,
            attention_bias=True,
            mlp_bias=True,
            residual_multiplier=0.22,
        ),
    }


def granitemoe() -> Samples:
    """Name -> content of ``config.json``."""

    def make(**changes: Any) -> dict[str, Any]:
        made = {**FACTORS, "num_local_experts": 6, "num_experts_per_tok": 2, "intermediate_size": 40, "head_dim": None}
        return sample("GraniteMoeForCausalLM", "granitemoe", **{**made, **changes})

    return {
        "factors_tied": make(tie_word_embeddings=True),
        "odd_heads_biases": make(
            hidden_size=72,
            num_attention_heads=6,
            num_key_value_heads=2,
            num_local_experts=5,
            num_experts_per_tok=3,
            attention_bias=True,
        ),
    }
