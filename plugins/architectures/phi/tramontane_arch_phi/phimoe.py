# SPDX-License-Identifier: Apache-2.0
"""Phi-3.5-MoE (Abdin et al., 2024): layer norms, biases, and a mixture routed by SparseMixer (Liu et al., 2023).

Legend: T tokens, D hidden size.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from attrs import frozen
from torch import Tensor

from tramontane import nn, ops
from tramontane.batch import Ctx
from tramontane.build import Builder
from tramontane.config import RopeConfig, only, rope_field
from tramontane.weightmap import Rename, WeightMap, fused_experts, stacked_experts

STORED = {"gate_proj": "w1", "up_proj": "w3", "down_proj": "w2"}
"""What the parts of an expert are called in files."""


@frozen(kw_only=True)
class PhimoeConfig:
    """What ``config.json`` says."""

    vocab_size: int
    hidden_size: int
    intermediate_size: int
    num_hidden_layers: int
    num_attention_heads: int
    num_key_value_heads: int
    head_dim: int | None = None
    num_local_experts: int
    num_experts_per_tok: int = only(2)
    router_jitter_noise: float = 0.01
    rms_norm_eps: float = 1e-5
    hidden_act: str = "silu"
    max_position_embeddings: int = 131072
    sliding_window: int | None = None
    attention_bias: bool = False
    lm_head_bias: bool = False
    tie_word_embeddings: bool = False
    rope: RopeConfig = rope_field(theta=1_000_000.0)

    @property
    def heads(self) -> nn.Heads:
        """Query heads, key/value heads and their width."""
        dim = self.head_dim or self.hidden_size // self.num_attention_heads
        return nn.Heads(self.num_attention_heads, self.num_key_value_heads, dim)

    @property
    def routing(self) -> ops.Router:
        """How a token's experts are chosen."""
        return ops.Router(top_k=2, scoring="sparsemixer", jitter=self.router_jitter_noise)


class Block(nn.Module):
    """Pre-norm attention and mixture."""

    def __init__(self, c: PhimoeConfig, b: Builder) -> None:
        hidden, bias = c.hidden_size, c.attention_bias
        self.attn_norm = b.layer_norm("input_layernorm", hidden, c.rms_norm_eps)
        self.attn = b.attention(
            "self_attn", hidden, c.heads, rope=c.rope, bias=bias, out_bias=bias, window=c.sliding_window
        )
        self.mlp_norm = b.layer_norm("post_attention_layernorm", hidden, c.rms_norm_eps)
        self.mlp = b.moe(
            "block_sparse_moe", hidden, c.intermediate_size, c.num_local_experts, c.routing, act=c.hidden_act
        )

    def forward(self, x_TD: Tensor, residual_TD: Tensor | None, ctx: Ctx) -> tuple[Tensor, Tensor]:
        h_TD, residual_TD = self.attn_norm(x_TD, residual_TD)
        h_TD, residual_TD = self.mlp_norm(self.attn(h_TD, ctx), residual_TD)
        return self.mlp(h_TD), residual_TD


class Model(nn.Decoder):
    """Token ids to logits."""

    def __init__(self, c: PhimoeConfig, b: Builder) -> None:
        embedding = b.embedding("model.embed_tokens", c.vocab_size, c.hidden_size)
        tied = embedding if c.tie_word_embeddings else None
        super().__init__(
            embedding,
            [Block(c, b.at(f"model.layers.{i}")) for i in range(c.num_hidden_layers)],
            b.layer_norm("model.norm", c.hidden_size, c.rms_norm_eps),
            b.head("lm_head", c.hidden_size, c.vocab_size, tied=tied, bias=c.lm_head_bias),
        )


def weight_map(config: Mapping[str, Any]) -> tuple[WeightMap, ...]:
    """Experts are stored one by one, or (transformers 5) stacked under other names."""
    module = Rename(
        {"{p...}.block_sparse_moe.gate": "{p...}.mlp.router", "{p...}.block_sparse_moe.{m...}": "{p...}.mlp.{m...}"}
    )
    return (
        WeightMap(stacked_experts(config["num_local_experts"], STORED)),
        WeightMap((module, *fused_experts(config["intermediate_size"]))),
    )
