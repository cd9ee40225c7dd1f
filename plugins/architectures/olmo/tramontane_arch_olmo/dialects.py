# SPDX-License-Identifier: Apache-2.0
"""What GGUF calls an OLMo 2's tensors."""

from __future__ import annotations

from tramontane.dialects import Dialect
from tramontane.weightmap import Rename, WeightMap

LAYER = "model.layers.{i}"
MODULES = {
    "model.embed_tokens": "token_embd",
    "model.norm": "output_norm",
    "lm_head": "output",
    f"{LAYER}.self_attn.q_proj": "blk.{i}.attn_q",
    f"{LAYER}.self_attn.k_proj": "blk.{i}.attn_k",
    f"{LAYER}.self_attn.v_proj": "blk.{i}.attn_v",
    f"{LAYER}.self_attn.q_norm": "blk.{i}.attn_q_norm",
    f"{LAYER}.self_attn.k_norm": "blk.{i}.attn_k_norm",
    f"{LAYER}.self_attn.o_proj": "blk.{i}.attn_output",
    f"{LAYER}.post_attention_layernorm": "blk.{i}.post_attention_norm",
    f"{LAYER}.mlp.gate_proj": "blk.{i}.ffn_gate",
    f"{LAYER}.mlp.up_proj": "blk.{i}.ffn_up",
    f"{LAYER}.mlp.down_proj": "blk.{i}.ffn_down",
    f"{LAYER}.post_feedforward_layernorm": "blk.{i}.post_ffw_norm",
}

GGUF = Dialect(name="olmo2", architecture="Olmo2ForCausalLM", names=WeightMap([Rename(MODULES)]))
