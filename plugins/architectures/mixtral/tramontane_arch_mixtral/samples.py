# SPDX-License-Identifier: Apache-2.0
"""Tiny Mixtral configurations for the conformance kit."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tramontane.testing.samples import sample


def samples() -> Mapping[str, dict[str, Any]]:
    """Name -> content of ``config.json``."""

    def make(**changes: Any) -> dict[str, Any]:
        made = {"num_local_experts": 4, "num_experts_per_tok": 2, "head_dim": None, **changes}
        return sample("MixtralForCausalLM", "mixtral", **made)

    return {
        "plain": make(),
        "window_odd_heads_tied": make(
            sliding_window=9,
            hidden_size=72,
            num_attention_heads=6,
            num_key_value_heads=3,
            num_local_experts=7,
            num_experts_per_tok=3,
            tie_word_embeddings=True,
        ),
    }
