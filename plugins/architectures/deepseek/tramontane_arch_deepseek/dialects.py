# SPDX-License-Identifier: Apache-2.0
"""What GGUF calls the tensors and settings of DeepSeek V2 and V3; it has one name for both."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tramontane.checkpoint import Checkpoint
from tramontane.config import read_config
from tramontane.dialects import Dialect
from tramontane.weightmap import Join, Rename, Rule, Spell, Transpose, Unstack, WeightMap
from tramontane_arch_deepseek.config import DeepseekV2Config, DeepseekV3Config

NAME = "deepseek2"
LAYER = "model.layers.{i}"
MODULES = {
    "model.embed_tokens": "token_embd",
    "model.norm": "output_norm",
    "lm_head": "output",
    f"{LAYER}.input_layernorm": "blk.{i}.attn_norm",
    f"{LAYER}.self_attn.q_proj": "blk.{i}.attn_q",
    f"{LAYER}.self_attn.q_a_proj": "blk.{i}.attn_q_a",
    f"{LAYER}.self_attn.q_a_layernorm": "blk.{i}.attn_q_a_norm",
    f"{LAYER}.self_attn.q_b_proj": "blk.{i}.attn_q_b",
    f"{LAYER}.self_attn.kv_a_proj_with_mqa": "blk.{i}.attn_kv_a_mqa",
    f"{LAYER}.self_attn.kv_a_layernorm": "blk.{i}.attn_kv_a_norm",
    f"{LAYER}.self_attn.kv_b_proj": "blk.{i}.attn_kv_b",
    f"{LAYER}.self_attn.o_proj": "blk.{i}.attn_output",
    f"{LAYER}.post_attention_layernorm": "blk.{i}.ffn_norm",
    f"{LAYER}.mlp.gate": "blk.{i}.ffn_gate_inp",
    f"{LAYER}.mlp.gate.e_score_correction": "blk.{i}.exp_probs_b",
    **{f"{LAYER}.mlp.{part}_proj": f"blk.{{i}}.ffn_{part}" for part in ("gate", "up", "down")},
    **{f"{LAYER}.mlp.experts.{part}_proj": f"blk.{{i}}.ffn_{part}_exps" for part in ("gate", "up", "down")},
    **{f"{LAYER}.mlp.shared_experts.{part}_proj": f"blk.{{i}}.ffn_{part}_shexp" for part in ("gate", "up", "down")},
}
SETTINGS = {
    "attention.q_lora_rank": "q_lora_rank",
    "attention.kv_lora_rank": "kv_lora_rank",
    "rope.dimension_count": "qk_rope_head_dim",
    "leading_dense_block_count": "first_k_dense_replace",
    "expert_feed_forward_length": "moe_intermediate_size",
    "expert_count": "n_routed_experts",
    "expert_used_count": "num_experts_per_tok",
    "expert_shared_count": "n_shared_experts",
    "expert_weights_scale": "routed_scaling_factor",
    "expert_weights_norm": "norm_topk_prob",
    "expert_group_count": "n_group",
    "expert_group_used_count": "topk_group",
}
SOFTMAX, SIGMOID = 1, 2
"""How experts are scored, by GGUF's numbers."""
BY_HEAD = "latent_by_head"
"""Set where the two halves of ``kv_b_proj`` are tensors of their own, a matrix a head, the keys' transposed."""
LOG = 0.1
"""GGUF has YaRN's ``mscale_all_dim`` as the factor of the logarithm."""


def names(config: Mapping[str, Any]) -> WeightMap:
    """GGUF's names. The correction of routing scores is a bias there."""
    correction = Spell(f"{LAYER}.mlp.gate", {".e_score_correction_bias": ".e_score_correction.bias"})
    return WeightMap([correction, *(_by_head(config) if config.get(BY_HEAD) else ()), Rename(MODULES)])


def _by_head(config: Mapping[str, Any]) -> list[Rule]:
    heads, at = config["num_attention_heads"], f"{LAYER}.self_attn"
    parts: dict[str, int] = {}
    for head in range(heads):
        parts[f"{at}.k_b.{head}"] = config["qk_nope_head_dim"]
        parts[f"{at}.v_b.{head}"] = config["v_head_dim"]
    return [
        Join(f"{at}.kv_b_proj", parts),
        Transpose(f"{at}.k_b.{{e}}"),
        *(Unstack(f"blk.{{i}}.attn_{half}_b", f"{at}.{half}_b.{{e}}", heads) for half in ("k", "v")),
    ]


def read(checkpoint: Checkpoint, config: Mapping[str, Any]) -> Mapping[str, Any]:
    """Widths of heads, how experts are chosen, and the factors of YaRN."""
    stated = checkpoint.metadata
    by_head = "blk.0.attn_k_b.weight" in checkpoint.tensors
    which = "_mla" if f"{NAME}.attention.key_length_mla" in stated else ""
    width, rope = stated.get(f"{NAME}.attention.key_length{which}"), config.get("qk_rope_head_dim")
    third = stated.get(f"{NAME}.expert_gating_func") == SIGMOID
    grouped = (config.get("n_group") or 1) > 1
    found: dict[str, Any] = {
        BY_HEAD: by_head,
        "partial_rotary_factor": 1.0,
        "v_head_dim": stated.get(f"{NAME}.attention.value_length{which}"),
        "scoring_func": "sigmoid" if third else "softmax",
        "topk_method": _method(checkpoint, grouped),
        "attention_bias": "blk.0.attn_output.bias" in checkpoint.tensors,
        "architectures": ["DeepseekV3ForCausalLM" if third else "DeepseekV2ForCausalLM"],
    }
    if isinstance(width, int) and isinstance(rope, int):
        found["qk_nope_head_dim"] = width - rope
    if "blk.0.attn_q.weight" in checkpoint.tensors:
        found["q_lora_rank"] = None
    log = stated.get(f"{NAME}.rope.scaling.yarn_log_multiplier")
    scaling = config.get("rope_scaling")
    if isinstance(log, float) and scaling:
        found["rope_scaling"] = {**scaling, "mscale": log / LOG, "mscale_all_dim": log / LOG}
    return found


def _method(checkpoint: Checkpoint, grouped: bool) -> str:
    if any(name.endswith(".exp_probs_b.bias") for name in checkpoint.tensors):
        return "noaux_tc"
    return "group_limited_greedy" if grouped else "greedy"


def write(cls: type[DeepseekV2Config], config: Mapping[str, Any]) -> Mapping[str, Any]:
    """The inverse of :func:`read`; with ``kv_b_proj`` as it is."""
    c = read_config(cls, config)
    found: dict[str, Any] = {
        "attention.key_length": c.qk_nope_head_dim + c.qk_rope_head_dim,
        "attention.value_length": c.v_head_dim,
        "attention.head_count_kv": c.num_attention_heads,
        "attention.kv_lora_rank": c.kv_lora_rank,
        "rope.dimension_count": c.qk_rope_head_dim,
        "leading_dense_block_count": c.first_k_dense_replace,
        "expert_weights_scale": c.weight_factor,
        "expert_weights_norm": c.norm_topk_prob,
        "expert_gating_func": SIGMOID if c.scoring_func == "sigmoid" else SOFTMAX,
        "expert_shared_count": c.n_shared_experts or 0,
    }
    if c.rope.mscale_all_dim and c.rope.kind == "yarn":
        found["rope.scaling.yarn_log_multiplier"] = LOG * c.rope.mscale_all_dim
    return {f"{NAME}.{key}": value for key, value in found.items()}


def write_second(config: Mapping[str, Any]) -> Mapping[str, Any]:
    """See :func:`write`."""
    return write(DeepseekV2Config, config)


def write_third(config: Mapping[str, Any]) -> Mapping[str, Any]:
    """See :func:`write`."""
    return write(DeepseekV3Config, config)


KEYS = {f"{NAME}.{theirs}": ours for theirs, ours in SETTINGS.items()}
GGUF2 = Dialect(
    name=NAME, architecture="DeepseekV2ForCausalLM", names=names, settings=KEYS, read=read, write=write_second
)
GGUF3 = Dialect(
    name=NAME, architecture="DeepseekV3ForCausalLM", names=names, settings=KEYS, read=read, write=write_third
)
