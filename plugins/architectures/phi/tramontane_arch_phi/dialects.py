# SPDX-License-Identifier: Apache-2.0
"""What GGUF calls the tensors and settings of the Phi models."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tramontane.checkpoint import Checkpoint
from tramontane.config import read_config
from tramontane.dialects import Dialect
from tramontane.weightmap import Rename, Rule, WeightMap, fused_parts
from tramontane_arch_phi import phi3
from tramontane_arch_phi.model import PhiConfig
from tramontane_arch_phi.phimoe import PhimoeConfig

LAYER = "model.layers.{i}"
COMMON = {
    "model.embed_tokens": "token_embd",
    "lm_head": "output",
    f"{LAYER}.input_layernorm": "blk.{i}.attn_norm",
    f"{LAYER}.self_attn.qkv_proj": "blk.{i}.attn_qkv",
    f"{LAYER}.self_attn.q_proj": "blk.{i}.attn_q",
    f"{LAYER}.self_attn.k_proj": "blk.{i}.attn_k",
    f"{LAYER}.self_attn.v_proj": "blk.{i}.attn_v",
}
PHI2 = {
    **COMMON,
    "model.final_layernorm": "output_norm",
    f"{LAYER}.self_attn.dense": "blk.{i}.attn_output",
    f"{LAYER}.mlp.fc1": "blk.{i}.ffn_up",
    f"{LAYER}.mlp.fc2": "blk.{i}.ffn_down",
}
LATER = {
    **COMMON,
    "model.norm": "output_norm",
    f"{LAYER}.self_attn.o_proj": "blk.{i}.attn_output",
    f"{LAYER}.post_attention_layernorm": "blk.{i}.ffn_norm",
}
PHI3 = {**LATER, f"{LAYER}.mlp.gate_up_proj": "blk.{i}.ffn_up", f"{LAYER}.mlp.down_proj": "blk.{i}.ffn_down"}
PHIMOE = {
    **LATER,
    f"{LAYER}.block_sparse_moe.gate": "blk.{i}.ffn_gate_inp",
    **{
        f"{LAYER}.block_sparse_moe.experts.{part}_proj": f"blk.{{i}}.ffn_{part}_exps" for part in ("gate", "up", "down")
    },
}
FACTORS = (r"rope_factors_(long|short)\.weight",)
"""Stored tensors that the configuration covers."""
FUSED = "qkv_fused"
"""Set where queries, keys and values are one tensor."""


def phi2_names(config: Mapping[str, Any]) -> WeightMap:
    """GGUF's names for Phi-1.5 and 2."""
    return WeightMap([*_fused(PhiConfig, config), Rename(PHI2)])


def phi3_names(config: Mapping[str, Any]) -> WeightMap:
    """GGUF's names for Phi-3 and 4: fused as in the published checkpoints."""
    return WeightMap([*phi3.weight_map(config).rules, Rename(PHI3)], ignore=FACTORS)


def phimoe_names(config: Mapping[str, Any]) -> WeightMap:
    """GGUF's names for Phi-3.5-MoE."""
    return WeightMap([*_fused(PhimoeConfig, config), Rename(PHIMOE)], ignore=FACTORS)


def _fused(cls: type[PhiConfig] | type[PhimoeConfig], config: Mapping[str, Any]) -> list[Rule]:
    return [fused_parts("qkv_proj", read_config(cls, config).heads.projections)] if config.get(FUSED) else []


def qkv(checkpoint: Checkpoint, config: Mapping[str, Any]) -> Mapping[str, Any]:
    """Only the tensors say whether queries, keys and values are one; all of a head is turned where nothing is said."""
    fused = "blk.0.attn_qkv.weight" in checkpoint.tensors
    return {FUSED: fused, "partial_rotary_factor": config.get("partial_rotary_factor", 1.0)}


def biases(checkpoint: Checkpoint, config: Mapping[str, Any]) -> Mapping[str, Any]:
    """Only the tensors say whether there are biases."""
    first = "blk.0.attn_q.bias", "blk.0.attn_qkv.bias"
    return {
        **qkv(checkpoint, config),
        "attention_bias": any(name in checkpoint.tensors for name in first),
        "lm_head_bias": "output.bias" in checkpoint.tensors,
    }


GGUF_PHI2 = Dialect(
    name="phi2",
    architecture="PhiForCausalLM",
    names=phi2_names,
    settings={"phi2.attention.layer_norm_epsilon": "layer_norm_eps"},
    read=qkv,
)
GGUF_PHI3 = Dialect(name="phi3", architecture="Phi3ForCausalLM", names=phi3_names)
GGUF_PHIMOE = Dialect(
    name="phimoe",
    architecture="PhimoeForCausalLM",
    names=phimoe_names,
    settings={"phimoe.expert_count": "num_local_experts", "phimoe.expert_used_count": "num_experts_per_tok"},
    read=biases,
)
