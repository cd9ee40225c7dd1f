# SPDX-License-Identifier: Apache-2.0
"""What GGUF calls the tensors and settings of Command R and A."""

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
    f"{LAYER}.self_attn.q_norm": "blk.{i}.attn_q_norm",
    f"{LAYER}.self_attn.k_norm": "blk.{i}.attn_k_norm",
    f"{LAYER}.self_attn.o_proj": "blk.{i}.attn_output",
    f"{LAYER}.mlp.gate_proj": "blk.{i}.ffn_gate",
    f"{LAYER}.mlp.up_proj": "blk.{i}.ffn_up",
    f"{LAYER}.mlp.down_proj": "blk.{i}.ffn_down",
}


def optional(checkpoint: Checkpoint, config: Mapping[str, Any]) -> Mapping[str, Any]:
    """Only the tensors say whether there are biases, and norms of queries and keys."""
    return {
        "attention_bias": "blk.0.attn_q.bias" in checkpoint.tensors,
        "use_qk_norm": "blk.0.attn_q_norm.weight" in checkpoint.tensors,
    }


def _dialect(name: str, architecture: str) -> Dialect:
    return Dialect(
        name=name,
        architecture=architecture,
        names=WeightMap([Rename(MODULES)]),
        settings={f"{name}.attention.layer_norm_epsilon": "layer_norm_eps", f"{name}.logit_scale": "logit_scale"},
        read=optional,
    )


GGUF = _dialect("command-r", "CohereForCausalLM")
GGUF_2 = _dialect("cohere2", "Cohere2ForCausalLM")
