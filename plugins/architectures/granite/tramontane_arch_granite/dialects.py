# SPDX-License-Identifier: Apache-2.0
"""What GGUF calls a Granite's tensors and settings."""

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
}
DENSE = {f"{LAYER}.mlp.{part}_proj": f"blk.{{i}}.ffn_{part}" for part in ("gate", "up", "down")}
EXPERTS = {
    f"{LAYER}.block_sparse_moe.router": "blk.{i}.ffn_gate_inp",
    **{
        f"{LAYER}.block_sparse_moe.experts.{part}_proj": f"blk.{{i}}.ffn_{part}_exps" for part in ("gate", "up", "down")
    },
}
FACTORS = {
    "embedding_scale": "embedding_multiplier",
    "attention.scale": "attention_multiplier",
    "residual_scale": "residual_multiplier",
    "logit_scale": "logits_scaling",
}


def names(config: Mapping[str, Any]) -> WeightMap:
    """GGUF's names and order of rows."""
    second_half = EXPERTS if config.get("num_local_experts") else DENSE
    return WeightMap([*pairs_side_by_side(config), Rename(MODULES | second_half)])


def biases(checkpoint: Checkpoint, config: Mapping[str, Any]) -> Mapping[str, Any]:
    """Only the tensors say whether there are biases."""
    return {
        "attention_bias": "blk.0.attn_q.bias" in checkpoint.tensors,
        "mlp_bias": "blk.0.ffn_down.bias" in checkpoint.tensors,
    }


GGUF = Dialect(
    name="granite",
    architecture="GraniteForCausalLM",
    names=names,
    settings={f"granite.{theirs}": ours for theirs, ours in FACTORS.items()},
    read=biases,
)
GGUF_MOE = Dialect(
    name="granitemoe",
    architecture="GraniteMoeForCausalLM",
    names=names,
    settings={
        **{f"granitemoe.{theirs}": ours for theirs, ours in FACTORS.items()},
        "granitemoe.expert_count": "num_local_experts",
        "granitemoe.expert_used_count": "num_experts_per_tok",
    },
    read=biases,
)
