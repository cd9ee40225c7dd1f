# SPDX-License-Identifier: Apache-2.0
"""Mixtral (Jiang et al., 2024): Mistral with a mixture of experts in every layer.

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
from tramontane.config import RopeConfig, rope_field
from tramontane.weightmap import Rename, WeightMap, fused_experts, renamed_experts, stacked_experts

STORED = {"gate_proj": "w1", "up_proj": "w3", "down_proj": "w2"}
"""What the parts of an expert are called in files."""


@frozen(kw_only=True)
class MixtralConfig:
    """What ``config.json`` says."""

    vocab_size: int
    hidden_size: int
    intermediate_size: int
    num_hidden_layers: int
    num_attention_heads: int
    num_key_value_heads: int | None = None
    head_dim: int | None = None
    num_local_experts: int = 8
    num_experts_per_tok: int = 2
    rms_norm_eps: float = 1e-5
    hidden_act: str = "silu"
    max_position_embeddings: int = 131072
    sliding_window: int | None = None
    tie_word_embeddings: bool = False
    rope: RopeConfig = rope_field(theta=1_000_000.0)

    @property
    def heads(self) -> nn.Heads:
        """Query heads, key/value heads and their width."""
        dim = self.head_dim or self.hidden_size // self.num_attention_heads
        return nn.Heads(self.num_attention_heads, self.num_key_value_heads or self.num_attention_heads, dim)


class Block(nn.Module):
    """Pre-norm attention and mixture; a token's weights are a softmax over the logits of its own experts."""

    def __init__(self, c: MixtralConfig, b: Builder) -> None:
        routing = ops.Router(top_k=c.num_experts_per_tok, normalize=True)
        width, count = c.intermediate_size, c.num_local_experts
        self.attn_norm = b.rms_norm("input_layernorm", c.hidden_size, c.rms_norm_eps)
        self.attn = b.attention("self_attn", c.hidden_size, c.heads, rope=c.rope, window=c.sliding_window)
        self.mlp_norm = b.rms_norm("post_attention_layernorm", c.hidden_size, c.rms_norm_eps)
        self.mlp = b.moe("block_sparse_moe", c.hidden_size, width, count, routing, act=c.hidden_act)

    def forward(self, x_TD: Tensor, residual_TD: Tensor | None, ctx: Ctx) -> tuple[Tensor, Tensor]:
        h_TD, residual_TD = self.attn_norm(x_TD, residual_TD)
        h_TD, residual_TD = self.mlp_norm(self.attn(h_TD, ctx), residual_TD)
        return self.mlp(h_TD), residual_TD


class Model(nn.Decoder):
    """Token ids to logits."""

    def __init__(self, c: MixtralConfig, b: Builder) -> None:
        embedding = b.embedding("model.embed_tokens", c.vocab_size, c.hidden_size)
        super().__init__(
            embedding,
            [Block(c, b.at(f"model.layers.{i}")) for i in range(c.num_hidden_layers)],
            b.rms_norm("model.norm", c.hidden_size, c.rms_norm_eps),
            b.head("lm_head", c.hidden_size, c.vocab_size, tied=embedding if c.tie_word_embeddings else None),
        )


def weight_map(config: Mapping[str, Any]) -> tuple[WeightMap, ...]:
    """Experts are stored one by one, or stacked under other names (as transformers 5 has them in memory, or by MLX)."""
    module = Rename({"{p...}.block_sparse_moe.{m...}": "{p...}.mlp.{m...}"})
    one_by_one = stacked_experts(config["num_local_experts"], STORED)
    fused = (module, *fused_experts(config["intermediate_size"]))
    return WeightMap(one_by_one), WeightMap(fused), WeightMap(renamed_experts())
