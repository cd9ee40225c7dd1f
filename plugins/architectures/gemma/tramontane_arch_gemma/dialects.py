# SPDX-License-Identifier: Apache-2.0
"""What GGUF calls the tensors and settings of the Gemma models. It stores norm weights with their one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tramontane.checkpoint import Checkpoint
from tramontane.config import read_config
from tramontane.dialects import Dialect
from tramontane.weightmap import Convert, Rename, WeightMap, plus
from tramontane_arch_gemma.gemma3 import Gemma3Config

LAYER = "model.layers.{i}"
NORMS = {
    "model.norm": "output_norm",
    f"{LAYER}.input_layernorm": "blk.{i}.attn_norm",
    f"{LAYER}.self_attn.q_norm": "blk.{i}.attn_q_norm",
    f"{LAYER}.self_attn.k_norm": "blk.{i}.attn_k_norm",
}
FIRST_NORMS = {**NORMS, f"{LAYER}.post_attention_layernorm": "blk.{i}.ffn_norm"}
LATER_NORMS = {
    **NORMS,
    f"{LAYER}.post_attention_layernorm": "blk.{i}.post_attention_norm",
    f"{LAYER}.pre_feedforward_layernorm": "blk.{i}.ffn_norm",
    f"{LAYER}.post_feedforward_layernorm": "blk.{i}.post_ffw_norm",
}
MATRICES = {
    "model.embed_tokens": "token_embd",
    "lm_head": "output",
    f"{LAYER}.self_attn.q_proj": "blk.{i}.attn_q",
    f"{LAYER}.self_attn.k_proj": "blk.{i}.attn_k",
    f"{LAYER}.self_attn.v_proj": "blk.{i}.attn_v",
    f"{LAYER}.self_attn.o_proj": "blk.{i}.attn_output",
    f"{LAYER}.mlp.gate_proj": "blk.{i}.ffn_gate",
    f"{LAYER}.mlp.up_proj": "blk.{i}.ffn_up",
    f"{LAYER}.mlp.down_proj": "blk.{i}.ffn_down",
}
SCALED_BY_WIDTH = {"gemma2": 46, "gemma3": 62}
"""Layers of the largest model of a generation, which scales scores by hidden size over heads, not by a head's width."""


def _names(norms: Mapping[str, str]) -> WeightMap:
    return WeightMap([*(Convert(module, values=plus(-1)) for module in norms), Rename({**norms, **MATRICES})])


def _scalar(name: str, config: Mapping[str, Any]) -> float:
    heads, width = config["num_attention_heads"], config["hidden_size"]
    if config["num_hidden_layers"] == SCALED_BY_WIDTH[name]:
        return float(width / heads)
    return float(config.get("head_dim") or width // heads)


def second(checkpoint: Checkpoint, config: Mapping[str, Any]) -> Mapping[str, Any]:
    """The scale of scores goes by the model's size."""
    return {"query_pre_attn_scalar": _scalar("gemma2", config)}


def third(checkpoint: Checkpoint, config: Mapping[str, Any]) -> Mapping[str, Any]:
    """As in the second generation; only full layers are stretched."""
    return {"query_pre_attn_scalar": _scalar("gemma3", config), "attn_logit_softcapping": None}


def third_settings(config: Mapping[str, Any]) -> Mapping[str, Any]:
    """The base of windowed layers, however the configuration spells it."""
    return {"gemma3.rope.freq_base_swa": read_config(Gemma3Config, config).window_rope.theta}


GELU = {"hidden_activation": "gelu_pytorch_tanh"}
GGUF = Dialect(name="gemma", architecture="GemmaForCausalLM", names=_names(FIRST_NORMS), constants=GELU)
GGUF2 = Dialect(
    name="gemma2",
    architecture="Gemma2ForCausalLM",
    names=_names(LATER_NORMS),
    settings={
        "gemma2.attn_logit_softcapping": "attn_logit_softcapping",
        "gemma2.final_logit_softcapping": "final_logit_softcapping",
    },
    constants=GELU,
    read=second,
)
GGUF3 = Dialect(
    name="gemma3",
    architecture="Gemma3ForCausalLM",
    names=_names(LATER_NORMS),
    settings={
        "gemma3.rope.freq_base_swa": "rope_local_base_freq",
        "gemma3.final_logit_softcapping": "final_logit_softcapping",
        "gemma3.attention.sliding_window_pattern": "sliding_window_pattern",
    },
    constants=GELU,
    read=third,
    write=third_settings,
)
