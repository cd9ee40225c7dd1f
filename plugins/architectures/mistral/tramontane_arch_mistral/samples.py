# SPDX-License-Identifier: Apache-2.0
"""Tiny Mistral configurations for the conformance kit."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tramontane.testing.samples import sample


def samples() -> Mapping[str, dict[str, Any]]:
    """Name -> content of ``config.json``. The window is shorter than the kit's prompts."""
    return {
        "window": sample("MistralForCausalLM", "mistral", sliding_window=9),
        "full": sample("MistralForCausalLM", "mistral", sliding_window=None),
        "window_odd": sample(
            "MistralForCausalLM",
            "mistral",
            sliding_window=20,
            num_attention_heads=6,
            num_key_value_heads=2,
            head_dim=20,
        ),
    }
