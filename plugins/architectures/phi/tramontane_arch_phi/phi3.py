# SPDX-License-Identifier: Apache-2.0
"""Phi-3, 3.5, 4 and 4-mini (Abdin et al., 2024): Llama, with projections that are stored fused, a window, and LongRoPE.

Legend: T tokens, D hidden size.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from attrs import frozen
from torch import Tensor

from tramontane import nn
from tramontane.batch import Ctx
from tramontane.build import Builder
from tramontane.config import RopeConfig, only, read_config, rope_field
from tramontane.weightmap import WeightMap, fused_parts


@frozen(kw_only=True)
class Phi3Config:
    """What ``config.json`` says."""

    vocab_size: int
    hidden_size: int
    intermediate_size: int
    num_hidden_layers: int
    num_attention_heads: int
    num_key_value_heads: int | None = None
    head_dim: int | None = None
    rms_norm_eps: float = 1e-5
    hidden_act: str = "silu"
    max_position_embeddings: int = 4096
    sliding_window: int | None = None
    attention_bias: bool = only(False)
    mlp_bias: bool = only(False)
    lm_head_bias: bool = only(False)
    tie_word_embeddings: bool = False
    rope: RopeConfig = rope_field()

    @property
    def heads(self) -> nn.Heads:
        """Query heads, key/value heads and their width."""
        dim = self.head_dim or self.hidden_size // self.num_attention_heads
        return nn.Heads(self.num_attention_heads, self.num_key_value_heads or self.num_attention_heads, dim)


class Block(nn.Module):
    """Pre-norm attention and gated feed-forward."""

    def __init__(self, c: Phi3Config, b: Builder) -> None:
        self.attn_norm = b.rms_norm("input_layernorm", c.hidden_size, c.rms_norm_eps)
        self.attn = b.attention("self_attn", c.hidden_size, c.heads, rope=c.rope, window=c.sliding_window)
        self.mlp_norm = b.rms_norm("post_attention_layernorm", c.hidden_size, c.rms_norm_eps)
        self.mlp = b.gated_mlp("mlp", c.hidden_size, c.intermediate_size, act=c.hidden_act)

    def forward(self, x_TD: Tensor, residual_TD: Tensor | None, ctx: Ctx) -> tuple[Tensor, Tensor]:
        h_TD, residual_TD = self.attn_norm(x_TD, residual_TD)
        h_TD, residual_TD = self.mlp_norm(self.attn(h_TD, ctx), residual_TD)
        return self.mlp(h_TD), residual_TD


class Model(nn.Decoder):
    """Token ids to logits."""

    def __init__(self, c: Phi3Config, b: Builder) -> None:
        embedding = b.embedding("model.embed_tokens", c.vocab_size, c.hidden_size)
        super().__init__(
            embedding,
            [Block(c, b.at(f"model.layers.{i}")) for i in range(c.num_hidden_layers)],
            b.rms_norm("model.norm", c.hidden_size, c.rms_norm_eps),
            b.head("lm_head", c.hidden_size, c.vocab_size, tied=embedding if c.tie_word_embeddings else None),
        )


def weight_map(config: Mapping[str, Any]) -> WeightMap:
    """Queries, keys and values are stored as one, gate and up as well."""
    c = read_config(Phi3Config, config)
    halves = {"gate_proj": c.intermediate_size, "up_proj": c.intermediate_size}
    return WeightMap((fused_parts("qkv_proj", c.heads.projections), fused_parts("gate_up_proj", halves)))
