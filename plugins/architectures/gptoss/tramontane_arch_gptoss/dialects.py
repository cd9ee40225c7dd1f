# SPDX-License-Identifier: Apache-2.0
"""What GGUF calls the tensors and settings of gpt-oss; gate and up are tensors of their own there."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tramontane.checkpoint import Checkpoint
from tramontane.dialects import Dialect
from tramontane.weightmap import Rename, Spell, WeightMap

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
    f"{LAYER}.self_attn.sinks": "blk.{i}.attn_sinks",
    f"{LAYER}.post_attention_layernorm": "blk.{i}.post_attention_norm",
    f"{LAYER}.mlp.router": "blk.{i}.ffn_gate_inp",
    **{f"{LAYER}.mlp.experts.{part}_proj": f"blk.{{i}}.ffn_{part}_exps" for part in ("gate", "up", "down")},
}
WIDTH = "gpt-oss.expert_feed_forward_length"


def read(checkpoint: Checkpoint, config: Mapping[str, Any]) -> Mapping[str, Any]:
    """All layers are experts of one width; the ramp of the stretch is not cut to whole dimensions."""
    scaling = config.get("rope_scaling")
    found: dict[str, Any] = {"attention_bias": "blk.0.attn_q.bias" in checkpoint.tensors}
    if WIDTH in checkpoint.metadata:
        found["intermediate_size"] = checkpoint.metadata[WIDTH]
    return found if scaling is None else {**found, "rope_scaling": {**scaling, "truncate": False}}


def write(config: Mapping[str, Any]) -> Mapping[str, Any]:
    """See :func:`read`."""
    return {WIDTH: config["intermediate_size"]}


GGUF = Dialect(
    name="gpt-oss",
    architecture="GptOssForCausalLM",
    names=WeightMap([Spell(f"{LAYER}.self_attn.sinks", {"": ".weight"}), Rename(MODULES)]),
    settings={
        "gpt-oss.expert_count": "num_local_experts",
        "gpt-oss.expert_used_count": "num_experts_per_tok",
    },
    read=read,
    write=write,
)
