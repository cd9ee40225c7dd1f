# SPDX-License-Identifier: Apache-2.0
"""The rule of formats that store the two features that rotary embedding turns together side by side."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tramontane.weightmap.rules import Permute


def pairs_side_by_side(config: Mapping[str, Any]) -> tuple[Permute, ...]:
    """Rows of queries and keys, for models that keep the two half a head apart.

    Args:
        config: ``num_attention_heads`` and ``num_key_value_heads`` (the same, where it is not stated).
    """
    queries = config["num_attention_heads"]
    heads = {"q_proj": queries, "k_proj": config.get("num_key_value_heads") or queries}
    return tuple(
        Permute(f"{{p...}}.self_attn.{name}", shape=(count, -1, 2), order=(0, 2, 1)) for name, count in heads.items()
    )
