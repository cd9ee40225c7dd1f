# SPDX-License-Identifier: Apache-2.0
"""What GGUF calls a SmolLM3's tensors. That every fourth layer has no positions, its files never state."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tramontane.checkpoint import Checkpoint
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


def biases(checkpoint: Checkpoint, config: Mapping[str, Any]) -> Mapping[str, Any]:
    """Only the tensors say whether there are biases."""
    return {
        "attention_bias": "blk.0.attn_q.bias" in checkpoint.tensors,
        "mlp_bias": "blk.0.ffn_down.bias" in checkpoint.tensors,
    }


GGUF = Dialect(
    name="smollm3",
    architecture="SmolLM3ForCausalLM",
    names=names,
    constants={"no_rope_layer_interval": 4},
    read=biases,
)
