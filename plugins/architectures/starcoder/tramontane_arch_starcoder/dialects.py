# SPDX-License-Identifier: Apache-2.0
"""What GGUF calls a StarCoder2's tensors and settings."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tramontane.checkpoint import Checkpoint
from tramontane.dialects import Dialect
from tramontane.weightmap import Rename, WeightMap

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
    f"{LAYER}.mlp.c_fc": "blk.{i}.ffn_up",
    f"{LAYER}.mlp.c_proj": "blk.{i}.ffn_down",
}


def biases(checkpoint: Checkpoint, config: Mapping[str, Any]) -> Mapping[str, Any]:
    """Only the tensors say whether there are biases."""
    return {"use_bias": "blk.0.attn_q.bias" in checkpoint.tensors}


GGUF = Dialect(
    name="starcoder2",
    architecture="Starcoder2ForCausalLM",
    names=WeightMap([Rename(MODULES)]),
    settings={"starcoder2.attention.layer_norm_epsilon": "norm_epsilon"},
    read=biases,
)
