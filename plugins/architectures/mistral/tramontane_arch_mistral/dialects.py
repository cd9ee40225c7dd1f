# SPDX-License-Identifier: Apache-2.0
"""What GGUF calls a Mistral's tensors and settings. It calls the architecture ``llama``, which such files then load as:
they state no window (``--arch mistral`` asks for this one)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tramontane.dialects import Dialect
from tramontane.weightmap import Rename, WeightMap, pairs_side_by_side

LAYER = "model.layers.{i}"
MODULES = {
    "model.embed_tokens": "token_embd",
    "model.norm": "output_norm",
    "lm_head": "output",
    f"{LAYER}.input_layernorm": "blk.{i}.attn_norm",
    f"{LAYER}.self_attn.q_proj": "blk.{i}.attn_q",
    f"{LAYER}.self_attn.k_proj": "blk.{i}.attn_k",
    f"{LAYER}.self_attn.v_proj": "blk.{i}.attn_v",
    f"{LAYER}.self_attn.o_proj": "blk.{i}.attn_output",
    f"{LAYER}.post_attention_layernorm": "blk.{i}.ffn_norm",
    f"{LAYER}.mlp.gate_proj": "blk.{i}.ffn_gate",
    f"{LAYER}.mlp.up_proj": "blk.{i}.ffn_up",
    f"{LAYER}.mlp.down_proj": "blk.{i}.ffn_down",
}


def names(config: Mapping[str, Any]) -> WeightMap:
    """GGUF's names and order of rows."""
    return WeightMap([*pairs_side_by_side(config), Rename(MODULES)])


GGUF = Dialect(name="llama", architecture="MistralForCausalLM", names=names)
