# SPDX-License-Identifier: Apache-2.0
"""Tiny Gemma configurations for the conformance kit."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tramontane.testing.samples import sample

Samples = Mapping[str, dict[str, Any]]
GELU = "gelu_pytorch_tanh"


def gemma() -> Samples:
    """Name -> content of ``config.json``."""

    def make(**changes: Any) -> dict[str, Any]:
        return sample("GemmaForCausalLM", "gemma", **{"hidden_act": GELU, "tie_word_embeddings": True, **changes})

    return {
        "one_key_head": make(num_key_value_heads=1),
        "wide_heads_biases": make(
            hidden_act="gelu",
            attention_bias=True,
            hidden_size=72,
            num_attention_heads=6,
            num_key_value_heads=3,
            head_dim=20,
        ),
    }


def gemma2() -> Samples:
    """Name -> content of ``config.json``. The window is shorter than the kit's prompts, the caps bite."""

    def make(**changes: Any) -> dict[str, Any]:
        settings = {
            "hidden_activation": GELU,
            "sliding_window": 9,
            "query_pre_attn_scalar": 24,
            "attn_logit_softcapping": 1.5,
            "final_logit_softcapping": 2.0,
            "num_hidden_layers": 4,
            "tie_word_embeddings": True,
        }
        return sample("Gemma2ForCausalLM", "gemma2", **{**settings, **changes})

    types = ["full_attention", "sliding_attention", "sliding_attention", "full_attention"]
    return {
        "alternating": make(),
        "no_caps_untied": make(tie_word_embeddings=False, layer_types=types)
        | {"attn_logit_softcapping": None, "final_logit_softcapping": None},
        "odd_heads": make(hidden_size=72, num_attention_heads=6, num_key_value_heads=2, head_dim=28, sliding_window=20),
    }


def gemma3() -> Samples:
    """Name -> content of ``config.json``, with both spellings of the two ropes."""

    def make(**changes: Any) -> dict[str, Any]:
        settings = {
            "hidden_activation": GELU,
            "sliding_window": 8,
            "query_pre_attn_scalar": 24,
            "num_hidden_layers": 4,
            "tie_word_embeddings": True,
        }
        return sample("Gemma3ForCausalLM", "gemma3_text", **{**settings, **changes})

    scaled = {"rope_type": "linear", "factor": 8.0}
    return {
        "two_ropes": make(
            layer_types=["sliding_attention", "full_attention", "sliding_attention", "full_attention"],
            rope_parameters={
                "full_attention": {"rope_theta": 50000.0, **scaled},
                "sliding_attention": {"rope_theta": 1000.0, "rope_type": "default"},
            },
        ),
        "older_spelling": make(
            sliding_window_pattern=3, rope_theta=100000.0, rope_local_base_freq=5000.0, rope_scaling=scaled
        ),
        "untied_capped": make(
            sliding_window_pattern=2,
            tie_word_embeddings=False,
            final_logit_softcapping=2.0,
            hidden_size=72,
            num_attention_heads=6,
            num_key_value_heads=3,
            head_dim=24,
        ),
    }
