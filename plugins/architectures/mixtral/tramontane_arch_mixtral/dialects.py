# SPDX-License-Identifier: Apache-2.0
"""What GGUF calls a Mixtral's tensors and settings: a Llama with experts."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tramontane.checkpoint import Checkpoint
from tramontane.dialects import Dialect
from tramontane.weightmap import Rename, Rule, Stack, WeightMap, pairs_side_by_side

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
    f"{LAYER}.block_sparse_moe.gate": "blk.{i}.ffn_gate_inp",
    f"{LAYER}.block_sparse_moe.experts.gate_proj": "blk.{i}.ffn_gate_exps",
    f"{LAYER}.block_sparse_moe.experts.up_proj": "blk.{i}.ffn_up_exps",
    f"{LAYER}.block_sparse_moe.experts.down_proj": "blk.{i}.ffn_down_exps",
}
APART = "experts_apart"
"""Set where a file holds experts one by one, as the first ones did."""


def names(config: Mapping[str, Any]) -> WeightMap:
    """GGUF's names and order of rows."""
    rules: list[Rule] = [*pairs_side_by_side(config), Rename(MODULES)]
    if config.get(APART):
        count = config["num_local_experts"]
        rules += [
            Stack(f"blk.{{i}}.ffn_{part}_exps", f"blk.{{i}}.ffn_{part}.{{e}}", count) for part in ("gate", "up", "down")
        ]
    return WeightMap(rules)


def experts(checkpoint: Checkpoint, config: Mapping[str, Any]) -> Mapping[str, Any]:
    """Only the tensors say how experts are stored."""
    return {APART: "blk.0.ffn_gate.0.weight" in checkpoint.tensors}


GGUF = Dialect(
    name="llama",
    architecture="MixtralForCausalLM",
    names=names,
    settings={"llama.expert_count": "num_local_experts", "llama.expert_used_count": "num_experts_per_tok"},
    read=experts,
)
