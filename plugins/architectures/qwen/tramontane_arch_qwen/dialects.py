# SPDX-License-Identifier: Apache-2.0
"""What GGUF calls the tensors and settings of the Qwen models."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tramontane.checkpoint import Checkpoint
from tramontane.dialects import Dialect
from tramontane.weightmap import Rename, WeightMap

LAYER = "model.layers.{i}"
COMMON = {
    "model.embed_tokens": "token_embd",
    "model.norm": "output_norm",
    "lm_head": "output",
    f"{LAYER}.input_layernorm": "blk.{i}.attn_norm",
    f"{LAYER}.self_attn.q_proj": "blk.{i}.attn_q",
    f"{LAYER}.self_attn.k_proj": "blk.{i}.attn_k",
    f"{LAYER}.self_attn.v_proj": "blk.{i}.attn_v",
    f"{LAYER}.self_attn.o_proj": "blk.{i}.attn_output",
    f"{LAYER}.self_attn.q_norm": "blk.{i}.attn_q_norm",
    f"{LAYER}.self_attn.k_norm": "blk.{i}.attn_k_norm",
    f"{LAYER}.post_attention_layernorm": "blk.{i}.ffn_norm",
    f"{LAYER}.mlp.gate_proj": "blk.{i}.ffn_gate",
    f"{LAYER}.mlp.up_proj": "blk.{i}.ffn_up",
    f"{LAYER}.mlp.down_proj": "blk.{i}.ffn_down",
}
EXPERTS = {
    f"{LAYER}.mlp.gate": "blk.{i}.ffn_gate_inp",
    f"{LAYER}.mlp.shared_expert_gate": "blk.{i}.ffn_gate_inp_shexp",
    **{f"{LAYER}.mlp.experts.{part}_proj": f"blk.{{i}}.ffn_{part}_exps" for part in ("gate", "up", "down")},
    **{f"{LAYER}.mlp.shared_expert.{part}_proj": f"blk.{{i}}.ffn_{part}_shexp" for part in ("gate", "up", "down")},
}
DENSE = WeightMap([Rename(COMMON)])
MIXED = WeightMap([Rename({**COMMON, **EXPERTS})])


def _counts(name: str) -> dict[str, str]:
    return {
        f"{name}.expert_count": "num_experts",
        f"{name}.expert_used_count": "num_experts_per_tok",
        f"{name}.expert_feed_forward_length": "moe_intermediate_size",
    }


def biases(checkpoint: Checkpoint, config: Mapping[str, Any]) -> Mapping[str, Any]:
    """Only the tensors say whether there are biases."""
    return {"attention_bias": "blk.0.attn_q.bias" in checkpoint.tensors}


def widths(checkpoint: Checkpoint, config: Mapping[str, Any]) -> Mapping[str, Any]:
    """The first files state one width for all experts: the shared one's, and of the others as a share of it."""
    wide, used = config.get("intermediate_size"), config.get("num_experts_per_tok")
    found: dict[str, Any] = {"qkv_bias": "blk.0.attn_q.bias" in checkpoint.tensors}
    if wide and used:
        usual = {"moe_intermediate_size": wide // used, "shared_expert_intermediate_size": wide}
        found |= {key: value for key, value in usual.items() if key not in config}
    return found


GGUF2 = Dialect(name="qwen2", architecture="Qwen2ForCausalLM", names=DENSE)
GGUF3 = Dialect(name="qwen3", architecture="Qwen3ForCausalLM", names=DENSE, read=biases)
GGUF2_MOE = Dialect(
    name="qwen2moe",
    architecture="Qwen2MoeForCausalLM",
    names=MIXED,
    settings={
        **_counts("qwen2moe"),
        "qwen2moe.expert_shared_feed_forward_length": "shared_expert_intermediate_size",
    },
    read=widths,
)
GGUF3_MOE = Dialect(
    name="qwen3moe",
    architecture="Qwen3MoeForCausalLM",
    names=MIXED,
    settings=_counts("qwen3moe"),
    constants={"norm_topk_prob": True},
    read=biases,
)
