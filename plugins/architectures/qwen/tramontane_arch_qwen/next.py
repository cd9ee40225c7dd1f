# SPDX-License-Identifier: Apache-2.0
"""Qwen3-Next (Qwen team, 2025): three of four layers carry a state by the gated delta rule, the fourth attends with a
gate on its output; a large mixture of small experts in every layer.

Legend: T tokens, D hidden size, H heads, K head dimension, C channels of the convolution, V value dimension.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from attrs import frozen
from torch import Tensor

from tramontane import nn, ops
from tramontane.batch import Ctx
from tramontane.build import Builder
from tramontane.cache.spec import CacheKind, CacheSpec
from tramontane.config import RopeConfig, layer_types_field, read_config, rope_field
from tramontane.weightmap import Rule, Split, Squeeze, WeightMap, stacked_experts
from tramontane_arch_qwen.moe import Qwen2MoeConfig

LINEAR, FULL = "linear_attention", "full_attention"
EXTRA = (r"mtp\..*",)
"""A layer that drafts tokens; it is not run."""


@frozen(kw_only=True)
class Qwen3NextConfig(Qwen2MoeConfig):
    """What ``config.json`` says."""

    linear_conv_kernel_dim: int = 4
    linear_key_head_dim: int = 128
    linear_value_head_dim: int = 128
    linear_num_key_heads: int = 16
    linear_num_value_heads: int = 32
    full_attention_interval: int = 4
    norm_topk_prob: bool = True
    layer_types: tuple[str, ...] | None = layer_types_field((LINEAR, FULL))
    rope: RopeConfig = rope_field(partial=0.25)

    def kind(self, layer: int) -> str:
        """Which of the two kinds a layer is."""
        if self.layer_types is not None:
            return self.layer_types[layer]
        return LINEAR if (layer + 1) % self.full_attention_interval else FULL

    @property
    def rule(self) -> ops.GatedDelta:
        """The gated delta rule of a linear layer."""
        return ops.GatedDelta(
            key_heads=self.linear_num_key_heads,
            value_heads=self.linear_num_value_heads,
            key_dim=self.linear_key_head_dim,
            value_dim=self.linear_value_head_dim,
        )


class DeltaNet(nn.Module):
    """Linear attention with a state: a short convolution over queries, keys and values, then the gated delta rule."""

    def __init__(self, c: Qwen3NextConfig, b: Builder) -> None:
        self.op = rule = c.rule
        self.keys, self.values = rule.key_heads * rule.key_dim, rule.value_heads * rule.value_dim
        self.channels, heads = 2 * self.keys + self.values, rule.value_heads
        state = ((heads, rule.key_dim, rule.value_dim), torch.float32)
        past = ((self.channels, c.linear_conv_kernel_dim - 1), b.dtype)
        self.inputs = b.merged("in_proj", c.hidden_size, parts(c))
        self.conv = b.op(
            ops.CausalConv(c.linear_conv_kernel_dim, c.hidden_act),
            b.at("conv1d").cache(CacheSpec(kind=CacheKind.STATE, states=(past,))),
            b.param("conv1d", (self.channels, c.linear_conv_kernel_dim)),
        )
        self.rule = b.op(
            rule,
            b.cache(CacheSpec(kind=CacheKind.STATE, states=(state,))),
            *(b.param(name, (heads,), field="", dtype=torch.float32) for name in ("A_log", "dt_bias")),
        )
        self.norm = b.norm("norm", rule.value_dim, c.rms_norm_eps)
        self.act, self.multiply = b.op(ops.Activate("silu")), b.op(ops.Multiply())
        self.out = b.linear("out_proj", self.values, c.hidden_size, split="in")

    def forward(self, x_TD: Tensor, ctx: Ctx) -> Tensor:
        heads = (self.op.value_heads, self.op.value_dim)
        sizes = [self.channels, self.values, heads[0], heads[0]]
        mixed_TC, gate, write_TH, keep_TH = self.inputs.joined(x_TD).split(sizes, dim=-1)
        q, k, v = self.conv(mixed_TC, ctx=ctx).split([self.keys, self.keys, self.values], dim=-1)
        y_THV = self.norm(self.rule(q, k, v, write_TH, keep_TH, ctx=ctx).unflatten(-1, heads))
        return self.out(self.multiply(y_THV, self.act(gate.unflatten(-1, heads))).flatten(-2))


class GatedAttention(nn.Module):
    """Attention with norms of queries and keys and a gate on what it gives."""

    def __init__(self, c: Qwen3NextConfig, b: Builder) -> None:
        self.heads = heads = c.heads
        sizes = {"q_proj.query": heads.width, "q_proj.gate": heads.width, **heads.projections}
        del sizes["q_proj"]
        self.qkv = b.merged("qkv_proj", c.hidden_size, sizes, bias=c.attention_bias)
        self.q_norm = b.norm("q_norm", heads.dim, c.rms_norm_eps, offset=1.0)
        self.k_norm = b.norm("k_norm", heads.dim, c.rms_norm_eps, offset=1.0)
        self.rope = b.rope(c.rope, heads.dim)
        self.core = b.cached_attention(heads)
        self.sigmoid, self.multiply = b.op(ops.Activate("sigmoid")), b.op(ops.Multiply())
        self.out = b.linear("o_proj", heads.width, c.hidden_size, bias=c.attention_bias, split="in")

    def forward(self, x_TD: Tensor, ctx: Ctx) -> Tensor:
        q, gate, k, v = self.qkv(x_TD)
        q_THK = self.q_norm(q.unflatten(-1, (self.heads.query, self.heads.dim)))
        k_TGK = self.k_norm(k.unflatten(-1, (self.heads.kv, self.heads.dim)))
        v_TGK = v.unflatten(-1, (self.heads.kv, self.heads.dim))
        y = self.core(*self.rope(q_THK, k_TGK, ctx), v_TGK, ctx)
        return self.out(self.multiply(y, self.sigmoid(gate)))


class Block(nn.Module):
    """Pre-norm attention of either kind, and mixture."""

    def __init__(self, c: Qwen3NextConfig, b: Builder, layer: int) -> None:
        hidden, eps = c.hidden_size, c.rms_norm_eps
        linear = c.kind(layer) == LINEAR
        self.attn_norm = b.rms_norm("input_layernorm", hidden, eps, offset=1.0)
        self.attn = DeltaNet(c, b.at("linear_attn")) if linear else GatedAttention(c, b.at("self_attn"))
        self.mlp_norm = b.rms_norm("post_attention_layernorm", hidden, eps, offset=1.0)
        dense = not c.mixes(layer)
        self.mlp = b.gated_mlp("mlp", hidden, c.intermediate_size, act=c.hidden_act) if dense else c.mixture(b)

    def forward(self, x_TD: Tensor, residual_TD: Tensor | None, ctx: Ctx) -> tuple[Tensor, Tensor]:
        h_TD, residual_TD = self.attn_norm(x_TD, residual_TD)
        h_TD, residual_TD = self.mlp_norm(self.attn(h_TD, ctx), residual_TD)
        return self.mlp(h_TD), residual_TD


class Model(nn.Decoder):
    """Token ids to logits."""

    def __init__(self, c: Qwen3NextConfig, b: Builder) -> None:
        embedding = b.embedding("model.embed_tokens", c.vocab_size, c.hidden_size)
        super().__init__(
            embedding,
            [Block(c, b.at(f"model.layers.{i}"), i) for i in range(c.num_hidden_layers)],
            b.rms_norm("model.norm", c.hidden_size, c.rms_norm_eps, offset=1.0),
            b.head("lm_head", c.hidden_size, c.vocab_size, tied=embedding if c.tie_word_embeddings else None),
        )


# --- what is stored fused ---------------------------------------------------------------------------------------------


def parts(c: Qwen3NextConfig) -> dict[str, int]:
    """The inputs of a linear layer -> features."""
    rule = c.rule
    keys, values = rule.key_heads * rule.key_dim, rule.value_heads * rule.value_dim
    heads = {"in_proj_ba.b": rule.value_heads, "in_proj_ba.a": rule.value_heads}
    return {f"in_proj_qkvz.{one}": size for one, size in zip("qkvz", (keys, keys, values, values), strict=True)} | heads


def weight_map(config: Mapping[str, Any]) -> WeightMap:
    """Inputs of linear layers are stored by key head, queries and gates by head, experts one by one."""
    c = read_config(Qwen3NextConfig, config)
    rules: list[Rule] = [
        *by_heads(c),
        alternating("linear_attn", "in_proj_qkvz", parts(c), c.linear_num_key_heads),
        Squeeze("{p...}.linear_attn.conv1d", dim=1),
        *stacked_experts(c.num_experts),
    ]
    return WeightMap(rules, ignore=(*WeightMap().ignore, *EXTRA))


def by_heads(c: Qwen3NextConfig) -> tuple[Rule, ...]:
    """Fusions that every format has: the delta rule's gates by key head, queries and gates of attention by head."""
    queries = dict.fromkeys(("q_proj.query", "q_proj.gate"), c.heads.width)
    return (
        alternating("linear_attn", "in_proj_ba", parts(c), c.linear_num_key_heads),
        alternating("self_attn", "q_proj", queries, c.heads.query),
    )


def alternating(module: str, fused: str, sizes: Mapping[str, int], groups: int) -> Split:
    """``fused`` holds, group after group, a share of each of its parts."""
    mine = {name: size // groups for name, size in sizes.items() if name.startswith(f"{fused}.")}
    stride, start, ranges = sum(mine.values()), 0, {}
    for name, share in mine.items():
        ranges[f"{{p...}}.{module}.{name}"] = tuple(
            (stride * group + start, stride * group + start + share) for group in range(groups)
        )
        start += share
    return Split(f"{{p...}}.{module}.{fused}", ranges)
