# SPDX-License-Identifier: Apache-2.0
"""GLM-4 (GLM team, 2024): half of each head turned in neighbouring pairs, biased queries, keys and values; since
0414 also norms of what each sub-layer adds.

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
from tramontane.config import RopeConfig, rope_field
from tramontane.weightmap import WeightMap, fused_parts


@frozen(kw_only=True)
class GlmConfig:
    """What ``config.json`` says in both generations."""

    vocab_size: int
    hidden_size: int
    intermediate_size: int
    num_hidden_layers: int
    num_attention_heads: int
    num_key_value_heads: int
    head_dim: int | None = None
    rms_norm_eps: float = 1.5625e-7
    hidden_act: str = "silu"
    max_position_embeddings: int = 131072
    attention_bias: bool = True
    tie_word_embeddings: bool = False
    rope: RopeConfig = rope_field(partial=0.5)

    @property
    def heads(self) -> nn.Heads:
        """Query heads, key/value heads and their width."""
        dim = self.head_dim or self.hidden_size // self.num_attention_heads
        return nn.Heads(self.num_attention_heads, self.num_key_value_heads, dim)


class Block(nn.Module):
    """Pre-norm attention and gated feed-forward."""

    def __init__(self, c: GlmConfig, b: Builder) -> None:
        a, heads = b.at("self_attn"), c.heads
        self.attn_norm = b.rms_norm("input_layernorm", c.hidden_size, c.rms_norm_eps)
        self.attn = nn.Attention(
            a.merged("qkv_proj", c.hidden_size, heads.projections, bias=c.attention_bias),
            a.cached_attention(heads),
            a.linear("o_proj", heads.width, c.hidden_size, split="in"),
            heads,
            rope=a.rope(c.rope, heads.dim, interleaved=True),
        )
        self.mlp_norm = b.rms_norm("post_attention_layernorm", c.hidden_size, c.rms_norm_eps)
        self.mlp = b.gated_mlp("mlp", c.hidden_size, c.intermediate_size, act=c.hidden_act)

    def forward(self, x_TD: Tensor, residual_TD: Tensor | None, ctx: Ctx) -> tuple[Tensor, Tensor]:
        h_TD, residual_TD = self.attn_norm(x_TD, residual_TD)
        h_TD, residual_TD = self.mlp_norm(self.attn(h_TD, ctx), residual_TD)
        return self.mlp(h_TD), residual_TD


class SandwichBlock(Block):
    """With norms of what attention and feed-forward add."""

    def __init__(self, c: GlmConfig, b: Builder) -> None:
        super().__init__(c, b)
        self.after_attn = b.norm("post_self_attn_layernorm", c.hidden_size, c.rms_norm_eps)
        self.after_mlp = b.norm("post_mlp_layernorm", c.hidden_size, c.rms_norm_eps)

    def forward(self, x_TD: Tensor, residual_TD: Tensor | None, ctx: Ctx) -> tuple[Tensor, Tensor]:
        h_TD, residual_TD = self.attn_norm(x_TD, residual_TD)
        h_TD, residual_TD = self.mlp_norm(self.after_attn(self.attn(h_TD, ctx)), residual_TD)
        return self.after_mlp(self.mlp(h_TD)), residual_TD


class Model(nn.Decoder):
    """Token ids to logits."""

    block = Block

    def __init__(self, c: GlmConfig, b: Builder) -> None:
        embedding = b.embedding("model.embed_tokens", c.vocab_size, c.hidden_size)
        super().__init__(
            embedding,
            [self.block(c, b.at(f"model.layers.{i}")) for i in range(c.num_hidden_layers)],
            b.rms_norm("model.norm", c.hidden_size, c.rms_norm_eps),
            b.head("lm_head", c.hidden_size, c.vocab_size, tied=embedding if c.tie_word_embeddings else None),
        )


class SandwichModel(Model):
    """The 0414 generation."""

    block = SandwichBlock


def weight_map(config: Mapping[str, Any]) -> WeightMap:
    """Gate and up are stored as one."""
    width = config["intermediate_size"]
    return WeightMap((fused_parts("gate_up_proj", {"gate_proj": width, "up_proj": width}),))
