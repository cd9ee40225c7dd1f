# SPDX-License-Identifier: Apache-2.0
"""Tiny Qwen configurations for the conformance kit."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tramontane.testing.samples import sample

Samples = Mapping[str, dict[str, Any]]
MIXED = ["sliding_attention", "full_attention", "sliding_attention"]
MOE = {"num_experts": 8, "num_experts_per_tok": 2, "moe_intermediate_size": 40}
DELTA = {
    "shared_expert_intermediate_size": 56,
    "linear_num_key_heads": 2,
    "linear_num_value_heads": 4,
    "linear_key_head_dim": 16,
    "linear_value_head_dim": 12,
    "linear_conv_kernel_dim": 4,
}


def qwen2() -> Samples:
    """Name -> content of ``config.json``."""

    def make(**changes: Any) -> dict[str, Any]:
        return sample("Qwen2ForCausalLM", "qwen2", head_dim=None, **changes)

    return {
        "upper_windows_tied": make(
            use_sliding_window=True,
            sliding_window=8,
            max_window_layers=1,
            num_hidden_layers=4,
            tie_word_embeddings=True,
        ),
        "plain_odd_heads": make(hidden_size=72, num_attention_heads=6, num_key_value_heads=3),
        "stated_types": make(use_sliding_window=True, sliding_window=20, layer_types=MIXED),
        "yarn": make(
            rope_parameters={
                "rope_theta": 10000.0,
                "rope_type": "yarn",
                "factor": 4.0,
                "original_max_position_embeddings": 32,
            }
        ),
    }


def qwen3() -> Samples:
    """Name -> content of ``config.json``."""

    def make(**changes: Any) -> dict[str, Any]:
        return sample("Qwen3ForCausalLM", "qwen3", **changes)

    return {
        "upper_windows": make(use_sliding_window=True, sliding_window=8, max_window_layers=1, num_hidden_layers=4),
        "grouped_tied": make(tie_word_embeddings=True),
        "biases_wide_heads": make(
            attention_bias=True, hidden_size=96, num_attention_heads=6, num_key_value_heads=3, head_dim=40
        ),
    }


def qwen2moe() -> Samples:
    """Name -> content of ``config.json``."""

    def make(**changes: Any) -> dict[str, Any]:
        made = sample("Qwen2MoeForCausalLM", "qwen2_moe", shared_expert_intermediate_size=56, **{**MOE, **changes})
        return {key: value for key, value in made.items() if key != "head_dim"}

    return {
        "windows": make(use_sliding_window=True, sliding_window=8, max_window_layers=3),
        "dense_layers_normalized": make(
            mlp_only_layers=[0], decoder_sparse_step=2, num_hidden_layers=4, norm_topk_prob=True, qkv_bias=False
        ),
        "odd_experts": make(
            num_experts=7,
            num_experts_per_tok=3,
            hidden_size=72,
            num_attention_heads=6,
            num_key_value_heads=3,
            tie_word_embeddings=True,
        ),
    }


def qwen3moe() -> Samples:
    """Name -> content of ``config.json``."""

    def make(**changes: Any) -> dict[str, Any]:
        return sample("Qwen3MoeForCausalLM", "qwen3_moe", **{**MOE, "norm_topk_prob": True, **changes})

    return {
        "plain": make(),
        "windows_biases": make(use_sliding_window=True, sliding_window=9, attention_bias=True),
        "dense_layers": make(
            mlp_only_layers=[1],
            norm_topk_prob=False,
            num_experts=5,
            num_experts_per_tok=3,
            num_attention_heads=6,
            num_key_value_heads=2,
            head_dim=24,
        ),
    }


def qwen3next() -> Samples:
    """Name -> content of ``config.json``."""

    def make(**changes: Any) -> dict[str, Any]:
        return sample("Qwen3NextForCausalLM", "qwen3_next", **{**MOE, **DELTA, "norm_topk_prob": True, **changes})

    return {
        "every_third_attends": make(full_attention_interval=3),
        "stated_types_dense_layers_tied": make(
            layer_types=["full_attention", "linear_attention", "linear_attention"],
            mlp_only_layers=[1],
            attention_bias=True,
            num_attention_heads=6,
            num_key_value_heads=2,
            head_dim=24,
            linear_num_key_heads=3,
            linear_num_value_heads=3,
            linear_key_head_dim=20,
            linear_conv_kernel_dim=3,
            partial_rotary_factor=0.5,
            tie_word_embeddings=True,
        ),
    }
