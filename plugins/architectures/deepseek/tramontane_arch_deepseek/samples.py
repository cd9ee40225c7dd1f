# SPDX-License-Identifier: Apache-2.0
"""Tiny DeepSeek configurations for the conformance kit."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tramontane.testing.samples import sample

Samples = Mapping[str, dict[str, Any]]
LATENT = {"kv_lora_rank": 28, "qk_nope_head_dim": 20, "qk_rope_head_dim": 8, "v_head_dim": 12}
EXPERTS = {"n_routed_experts": 8, "num_experts_per_tok": 3, "moe_intermediate_size": 40, "first_k_dense_replace": 1}
YARN = {
    "rope_type": "yarn",
    "rope_theta": 10000.0,
    "factor": 4.0,
    "original_max_position_embeddings": 32,
    "beta_fast": 32,
    "beta_slow": 1,
}


def _make(version: int, **changes: Any) -> dict[str, Any]:
    settings = {"num_key_value_heads": 4, "head_dim": None, **LATENT, **EXPERTS}
    made = sample(f"DeepseekV{version}ForCausalLM", f"deepseek_v{version}", **{**settings, **changes})
    return made | {key: None for key in ("q_lora_rank",) if changes.get(key, 0) is None}


def v2() -> Samples:
    """Name -> content of ``config.json``."""
    return {
        "groups_yarn": _make(
            2,
            q_lora_rank=24,
            n_shared_experts=2,
            topk_method="group_limited_greedy",
            n_group=4,
            topk_group=2,
            routed_scaling_factor=4.0,
            rope_parameters=YARN | {"mscale": 0.707, "mscale_all_dim": 0.707},
        ),
        "plain_queries": _make(2, q_lora_rank=None, n_shared_experts=1, attention_bias=True, mlp_bias=True),
        "odd_heads_tied": _make(
            2,
            q_lora_rank=None,
            n_shared_experts=1,
            hidden_size=72,
            num_attention_heads=6,
            num_key_value_heads=6,
            n_routed_experts=7,
            tie_word_embeddings=True,
        ),
    }


def v3() -> Samples:
    """Name -> content of ``config.json``."""
    return {
        "groups_yarn": _make(
            3, q_lora_rank=24, n_group=4, topk_group=2, rope_parameters=YARN | {"mscale": 1.0, "mscale_all_dim": 1.0}
        ),
        "one_group_biases": _make(
            3,
            q_lora_rank=24,
            n_group=1,
            topk_group=1,
            attention_bias=True,
            rope_interleave=False,
            n_shared_experts=2,
            routed_scaling_factor=1.5,
        ),
        "plain_queries_tied": _make(
            3,
            q_lora_rank=None,
            n_group=2,
            topk_group=1,
            norm_topk_prob=False,
            hidden_size=72,
            num_attention_heads=6,
            num_key_value_heads=6,
            tie_word_embeddings=True,
            rope_parameters=YARN | {"mscale": 0.5, "mscale_all_dim": 1.0},
        ),
    }
