# SPDX-License-Identifier: Apache-2.0
"""What foreign formats call a Llama's tensors and settings."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tramontane.checkpoint import Checkpoint
from tramontane.dialects import Dialect
from tramontane.weightmap import Rename, WeightMap, pairs_side_by_side

LAYER = "model.layers.{i}"
GGUF_MODULES = {
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
META_MODULES = {
    "model.embed_tokens": "tok_embeddings",
    "model.norm": "norm",
    "lm_head": "output",
    f"{LAYER}.input_layernorm": "layers.{i}.attention_norm",
    f"{LAYER}.self_attn.q_proj": "layers.{i}.attention.wq",
    f"{LAYER}.self_attn.k_proj": "layers.{i}.attention.wk",
    f"{LAYER}.self_attn.v_proj": "layers.{i}.attention.wv",
    f"{LAYER}.self_attn.o_proj": "layers.{i}.attention.wo",
    f"{LAYER}.post_attention_layernorm": "layers.{i}.ffn_norm",
    f"{LAYER}.mlp.gate_proj": "layers.{i}.feed_forward.w1",
    f"{LAYER}.mlp.up_proj": "layers.{i}.feed_forward.w3",
    f"{LAYER}.mlp.down_proj": "layers.{i}.feed_forward.w2",
}
COMPUTED = (r"rope_(freqs|factors_(long|short))\.weight", r"(blk|layers)\.\d+\..*(rot_embd|rope\.freqs).*")
"""Stored tensors that the configuration covers."""


def gguf_names(config: Mapping[str, Any]) -> WeightMap:
    """GGUF's names and order of rows."""
    return WeightMap([*pairs_side_by_side(config), Rename(GGUF_MODULES)], ignore=COMPUTED)


def meta_names(config: Mapping[str, Any]) -> WeightMap:
    """The names of Meta's own files, which ggjt kept, and their order of rows."""
    return WeightMap([*pairs_side_by_side(config), Rename(META_MODULES)], ignore=COMPUTED)


def biases(checkpoint: Checkpoint, config: Mapping[str, Any]) -> Mapping[str, Any]:
    """Only the tensors say whether there are biases."""
    return {
        "attention_bias": "blk.0.attn_q.bias" in checkpoint.tensors,
        "mlp_bias": "blk.0.ffn_down.bias" in checkpoint.tensors,
    }


GGUF = Dialect(name="llama", architecture="LlamaForCausalLM", names=gguf_names, read=biases)
GGJT = Dialect(name="llama", architecture="LlamaForCausalLM", names=meta_names)
