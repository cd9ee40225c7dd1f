# SPDX-License-Identifier: Apache-2.0
"""Tiny GLM configurations for the conformance kit."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tramontane.testing.samples import sample

Samples = Mapping[str, dict[str, Any]]


def glm() -> Samples:
    """Name -> content of ``config.json``."""
    return _variants("GlmForCausalLM", "glm")


def glm4() -> Samples:
    """Name -> content of ``config.json``."""
    return _variants("Glm4ForCausalLM", "glm4")


def _variants(architecture: str, model_type: str) -> Samples:
    def make(**changes: Any) -> dict[str, Any]:
        return sample(architecture, model_type, attention_bias=True, **changes)

    return {
        "half_turned": make(),
        "odd_heads_tied_no_bias": make(
            num_attention_heads=6, num_key_value_heads=3, head_dim=24, hidden_size=72, tie_word_embeddings=True
        )
        | {"attention_bias": False},
        "all_turned_yarn": make(
            rope_parameters={
                "rope_theta": 10000.0,
                "partial_rotary_factor": 1.0,
                "rope_type": "yarn",
                "factor": 4.0,
                "original_max_position_embeddings": 32,
            }
        ),
    }
