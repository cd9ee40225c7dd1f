# SPDX-License-Identifier: Apache-2.0
"""Tiny gpt-oss configurations for the conformance kit."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tramontane.testing.samples import sample


def samples() -> Mapping[str, dict[str, Any]]:
    """Name -> content of ``config.json``. Windows are shorter than the kit's prompts, the gate's limit bites."""

    def make(**changes: Any) -> dict[str, Any]:
        settings = {
            "num_local_experts": 6,
            "num_experts_per_tok": 2,
            "intermediate_size": 48,
            "sliding_window": 9,
            "swiglu_limit": 0.7,
            "attention_bias": True,
            "num_hidden_layers": 4,
        }
        return sample("GptOssForCausalLM", "gpt_oss", **{**settings, **changes})

    yarn = {
        "rope_type": "yarn",
        "rope_theta": 150000.0,
        "factor": 8.0,
        "original_max_position_embeddings": 32,
        "beta_fast": 32.0,
        "beta_slow": 1.0,
        "truncate": False,
    }
    plain = {"rope_type": "default", "rope_theta": 10000.0}
    return {
        "alternating_yarn": make(rope_parameters=yarn),
        "stated_types": make(
            rope_parameters=plain,
            sliding_window=20,
            attention_bias=False,
            layer_types=["full_attention", "sliding_attention", "sliding_attention", "full_attention"],
        ),
        "odd_heads_tied": make(
            rope_parameters=plain,
            tie_word_embeddings=True,
            hidden_size=72,
            num_attention_heads=6,
            num_key_value_heads=3,
            head_dim=20,
            num_local_experts=5,
            num_experts_per_tok=3,
        ),
    }
