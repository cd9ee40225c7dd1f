# SPDX-License-Identifier: Apache-2.0
"""Tiny Phi configurations for the conformance kit: each turns on what the others leave off."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tramontane.testing.samples import sample

Samples = Mapping[str, dict[str, Any]]


def phi() -> Samples:
    """Name -> content of ``config.json``."""

    def make(**changes: Any) -> dict[str, Any]:
        plain = {"head_dim": None, "rms_norm_eps": None, "layer_norm_eps": 1e-5, "hidden_act": "gelu_new"}
        return sample("PhiForCausalLM", "phi", **plain, **changes)

    return {
        "half_turned": make(num_key_value_heads=4),
        "grouped_tied_normed_heads": make(
            num_attention_heads=6,
            num_key_value_heads=3,
            hidden_size=72,
            partial_rotary_factor=0.34,
            qk_layernorm=True,
            tie_word_embeddings=True,
        ),
        "two_fifths_turned": make(num_key_value_heads=None, hidden_size=80, partial_rotary_factor=0.4),
    }


def longrope(pairs: int, trained: int, **settings: Any) -> dict[str, Any]:
    """Settings of LongRoPE with other stretches for each pair."""
    return {
        "rope_type": "longrope",
        "rope_theta": 10000.0,
        "short_factor": [1.0 + 0.03 * i for i in range(pairs)],
        "long_factor": [1.1 + 0.4 * i for i in range(pairs)],
        "original_max_position_embeddings": trained,
        **settings,
    }


def phi3() -> Samples:
    """Name -> content of ``config.json``."""

    def make(**changes: Any) -> dict[str, Any]:
        return sample("Phi3ForCausalLM", "phi3", **{"head_dim": None, **changes})

    return {
        "window_longrope": make(sliding_window=9, rope_parameters=longrope(8, 32), original_max_position_embeddings=32),
        "longrope_short_partial_tied": make(
            rope_parameters=longrope(6, 160, partial_rotary_factor=0.75),
            original_max_position_embeddings=160,
            tie_word_embeddings=True,
        ),
        "plain_odd_heads": make(hidden_size=72, num_attention_heads=6, num_key_value_heads=3),
    }


def phimoe() -> Samples:
    """Name -> content of ``config.json``.

    Where transformers runs past the trained length it takes the long attention factor and still the short stretches
    (4.46 to 5.23; the published code takes the long ones), so the one sample that does has equal stretches.
    """

    def make(architecture: str = "PhimoeForCausalLM", **changes: Any) -> dict[str, Any]:
        made = {"num_local_experts": 4, "num_experts_per_tok": 2, "router_jitter_noise": 0.3, "head_dim": None}
        return sample(architecture, "phimoe", **{**made, **changes})

    same = [1.0 + 0.2 * i for i in range(8)]
    long = longrope(8, 32, short_mscale=1.05, long_mscale=1.24, short_factor=same, long_factor=same)
    return {
        "biases_past_trained": make(attention_bias=True, lm_head_bias=True, rope_parameters=long),
        "short_window_odd": make(
            rope_parameters=longrope(6, 160, short_mscale=1.05, long_mscale=1.24),
            sliding_window=11,
            hidden_size=72,
            num_attention_heads=6,
            num_key_value_heads=2,
            num_local_experts=7,
            router_jitter_noise=0.01,
        ),
        "published_name_all_experts_tied": make(
            "PhiMoEForCausalLM", tie_word_embeddings=True, num_local_experts=2, router_jitter_noise=0.01
        ),
    }
