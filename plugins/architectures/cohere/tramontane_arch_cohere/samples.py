# SPDX-License-Identifier: Apache-2.0
"""Tiny Command R and A configurations for the conformance kit."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tramontane.testing.samples import sample

Samples = Mapping[str, dict[str, Any]]


def cohere() -> Samples:
    """Name -> content of ``config.json``."""

    def make(**changes: Any) -> dict[str, Any]:
        return _plain("CohereForCausalLM", "cohere", **changes)

    return {
        "tied": make(),
        "normed_odd_heads_biases": make(
            hidden_size=72,
            num_attention_heads=6,
            num_key_value_heads=3,
            use_qk_norm=True,
            attention_bias=True,
            tie_word_embeddings=False,
            logit_scale=0.5,
        ),
    }


def cohere2() -> Samples:
    """Name -> content of ``config.json``."""

    def make(**changes: Any) -> dict[str, Any]:
        return _plain("Cohere2ForCausalLM", "cohere2", **changes)

    return {
        "windows_tied": make(sliding_window=9, num_hidden_layers=4),
        "stated_types_odd_heads": make(
            sliding_window=20,
            layer_types=["full_attention", "sliding_attention", "full_attention"],
            hidden_size=72,
            num_attention_heads=6,
            num_key_value_heads=2,
            tie_word_embeddings=False,
            attention_bias=True,
        ),
        "every_second": make(sliding_window=12, sliding_window_pattern=2),
    }


def _plain(architecture: str, model_type: str, **changes: Any) -> dict[str, Any]:
    usual = {"head_dim": None, "rms_norm_eps": None, "layer_norm_eps": 1e-5, "logit_scale": 0.25}
    return sample(architecture, model_type, **{**usual, **changes})
