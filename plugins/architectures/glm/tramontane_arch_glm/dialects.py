# SPDX-License-Identifier: Apache-2.0
"""What GGUF calls a GLM-4's tensors and settings: the first generation is ``chatglm`` there, the 0414 one ``glm4``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tramontane.checkpoint import Checkpoint
from tramontane.config import read_config
from tramontane.dialects import Dialect
from tramontane.weightmap import Rename, Rule, WeightMap, fused_parts
from tramontane_arch_glm.model import GlmConfig, weight_map

LAYER = "model.layers.{i}"
MODULES = {
    "model.embed_tokens": "token_embd",
    "model.norm": "output_norm",
    "lm_head": "output",
    f"{LAYER}.input_layernorm": "blk.{i}.attn_norm",
    f"{LAYER}.self_attn.qkv_proj": "blk.{i}.attn_qkv",
    f"{LAYER}.self_attn.q_proj": "blk.{i}.attn_q",
    f"{LAYER}.self_attn.k_proj": "blk.{i}.attn_k",
    f"{LAYER}.self_attn.v_proj": "blk.{i}.attn_v",
    f"{LAYER}.self_attn.o_proj": "blk.{i}.attn_output",
    f"{LAYER}.post_self_attn_layernorm": "blk.{i}.post_attention_norm",
    f"{LAYER}.post_attention_layernorm": "blk.{i}.ffn_norm",
    f"{LAYER}.mlp.gate_up_proj": "blk.{i}.ffn_up",
    f"{LAYER}.mlp.down_proj": "blk.{i}.ffn_down",
    f"{LAYER}.post_mlp_layernorm": "blk.{i}.post_ffw_norm",
}
FUSED = "qkv_fused"
"""Set where queries, keys and values are one tensor: files made from THUDM's own checkpoints."""


def names(config: Mapping[str, Any]) -> WeightMap:
    """GGUF's names; gate and up are one tensor."""
    rules: list[Rule] = [*weight_map(config).rules, Rename(MODULES)]
    if config.get(FUSED):
        rules.insert(0, fused_parts("qkv_proj", read_config(GlmConfig, config).heads.projections))
    return WeightMap(rules)


def optional(checkpoint: Checkpoint, config: Mapping[str, Any]) -> Mapping[str, Any]:
    """What the tensors say, and that a file which states no share of each head turns all of it."""
    first = "blk.0.attn_q", "blk.0.attn_qkv"
    return {
        "attention_bias": any(f"{name}.bias" in checkpoint.tensors for name in first),
        FUSED: f"{first[1]}.weight" in checkpoint.tensors,
        "partial_rotary_factor": config.get("partial_rotary_factor", 1.0),
    }


GGUF = Dialect(name="chatglm", architecture="GlmForCausalLM", names=names, read=optional)
GGUF_0414 = Dialect(name="glm4", architecture="Glm4ForCausalLM", names=names, read=optional)
