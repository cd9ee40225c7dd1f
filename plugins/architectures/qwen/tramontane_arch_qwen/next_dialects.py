# SPDX-License-Identifier: Apache-2.0
"""What GGUF calls the tensors and settings of Qwen3-Next.

It stores most norm weights with their one, and decays as they are used.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tramontane.checkpoint import Checkpoint
from tramontane.config import read_config
from tramontane.dialects import Dialect
from tramontane.weightmap import LOG_OF_NEGATIVE, Convert, Rename, Rule, Split, WeightMap, plus
from tramontane_arch_qwen.next import Qwen3NextConfig, alternating, by_heads, parts

LAYER, NAME = "model.layers.{i}", "qwen3next"
NORMS = {
    "model.norm": "output_norm",
    f"{LAYER}.input_layernorm": "blk.{i}.attn_norm",
    f"{LAYER}.self_attn.q_norm": "blk.{i}.attn_q_norm",
    f"{LAYER}.self_attn.k_norm": "blk.{i}.attn_k_norm",
    f"{LAYER}.post_attention_layernorm": "blk.{i}.post_attention_norm",
}
OTHERS = {
    "model.embed_tokens": "token_embd",
    "lm_head": "output",
    f"{LAYER}.self_attn.q_proj": "blk.{i}.attn_q",
    f"{LAYER}.self_attn.k_proj": "blk.{i}.attn_k",
    f"{LAYER}.self_attn.v_proj": "blk.{i}.attn_v",
    f"{LAYER}.self_attn.o_proj": "blk.{i}.attn_output",
    f"{LAYER}.linear_attn.in_proj_qkvz": "blk.{i}.ssm_in",
    f"{LAYER}.linear_attn.in_proj_qkv": "blk.{i}.attn_qkv",
    f"{LAYER}.linear_attn.in_proj_qkvz.z": "blk.{i}.attn_gate",
    f"{LAYER}.linear_attn.in_proj_ba": "blk.{i}.ssm_ba",
    f"{LAYER}.linear_attn.conv1d": "blk.{i}.ssm_conv1d",
    f"{LAYER}.linear_attn.A_log": "blk.{i}.ssm_a",
    f"{LAYER}.linear_attn.dt_bias": "blk.{i}.ssm_dt.bias",
    f"{LAYER}.linear_attn.norm": "blk.{i}.ssm_norm",
    f"{LAYER}.linear_attn.out_proj": "blk.{i}.ssm_out",
    f"{LAYER}.mlp.gate": "blk.{i}.ffn_gate_inp",
    f"{LAYER}.mlp.shared_expert_gate": "blk.{i}.ffn_gate_inp_shexp",
    **{f"{LAYER}.mlp.{part}_proj": f"blk.{{i}}.ffn_{part}" for part in ("gate", "up", "down")},
    **{f"{LAYER}.mlp.experts.{part}_proj": f"blk.{{i}}.ffn_{part}_exps" for part in ("gate", "up", "down")},
    **{f"{LAYER}.mlp.shared_expert.{part}_proj": f"blk.{{i}}.ffn_{part}_shexp" for part in ("gate", "up", "down")},
}
FUSED = "inputs_fused"
"""Set where all inputs of linear layers are one tensor, as in the first files."""


def names(config: Mapping[str, Any]) -> WeightMap:
    """GGUF's names, fusions and values."""
    c = read_config(Qwen3NextConfig, config)
    sizes, module = parts(c), "{p...}.linear_attn"
    rules: list[Rule] = [Convert(norm, values=plus(-1)) for norm in NORMS]
    rules += [Convert(f"{module}.A_log", values=LOG_OF_NEGATIVE, fields=("",)), *by_heads(c)]
    if config.get(FUSED):
        rules.append(alternating("linear_attn", "in_proj_qkvz", sizes, c.linear_num_key_heads))
    else:
        inputs = {f"{module}.in_proj_qkvz.{one}": sizes[f"in_proj_qkvz.{one}"] for one in "qkv"}
        rules.append(Split(f"{module}.in_proj_qkv", inputs))
    return WeightMap([*rules, Rename({**NORMS, **OTHERS})])


def optional(checkpoint: Checkpoint, config: Mapping[str, Any]) -> Mapping[str, Any]:
    """The width of value heads from that of all of them; what only the tensors say."""
    inner, heads = checkpoint.metadata.get(f"{NAME}.ssm.inner_size"), config.get("linear_num_value_heads")
    return {
        **({"linear_value_head_dim": inner // heads} if inner and heads else {}),
        "attention_bias": any(name.endswith(".attn_q.bias") for name in checkpoint.tensors),
        FUSED: any(name.endswith(".ssm_in.weight") for name in checkpoint.tensors),
    }


def inner_size(config: Mapping[str, Any]) -> Mapping[str, Any]:
    """The inverse of :func:`optional`."""
    return {f"{NAME}.ssm.inner_size": config["linear_value_head_dim"] * config["linear_num_value_heads"]}


GGUF = Dialect(
    name=NAME,
    architecture="Qwen3NextForCausalLM",
    names=names,
    settings={
        f"{NAME}.{theirs}": ours
        for theirs, ours in {
            "expert_count": "num_experts",
            "expert_used_count": "num_experts_per_tok",
            "expert_feed_forward_length": "moe_intermediate_size",
            "expert_shared_feed_forward_length": "shared_expert_intermediate_size",
            "full_attention_interval": "full_attention_interval",
            "ssm.conv_kernel": "linear_conv_kernel_dim",
            "ssm.state_size": "linear_key_head_dim",
            "ssm.group_count": "linear_num_key_heads",
            "ssm.time_step_rank": "linear_num_value_heads",
        }.items()
    },
    constants={"norm_topk_prob": True},
    read=optional,
    write=inner_size,
)
