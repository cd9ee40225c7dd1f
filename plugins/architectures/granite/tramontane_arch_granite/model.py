# SPDX-License-Identifier: Apache-2.0
"""Granite 3 (IBM, 2024): Llama with fixed factors on embeddings, scores, sub-layers and logits (Yang et al., 2022).

Legend: T tokens, D hidden size.
"""

from __future__ import annotations

from attrs import frozen
from torch import Tensor

from tramontane import nn, ops
from tramontane.batch import Ctx
from tramontane.build import Builder
from tramontane.config import RopeConfig, rope_field


@frozen(kw_only=True)
class GraniteConfig:
    """What ``config.json`` says."""

    vocab_size: int
    hidden_size: int
    intermediate_size: int
    num_hidden_layers: int
    num_attention_heads: int
    num_key_value_heads: int | None = None
    head_dim: int | None = None
    embedding_multiplier: float = 1.0
    attention_multiplier: float = 1.0
    residual_multiplier: float = 1.0
    logits_scaling: float = 1.0
    rms_norm_eps: float = 1e-6
    hidden_act: str = "silu"
    max_position_embeddings: int = 2048
    attention_bias: bool = False
    mlp_bias: bool = False
    tie_word_embeddings: bool = False
    rope: RopeConfig = rope_field()

    @property
    def heads(self) -> nn.Heads:
        """Query heads, key/value heads and their width."""
        dim = self.head_dim or self.hidden_size // self.num_attention_heads
        return nn.Heads(self.num_attention_heads, self.num_key_value_heads or self.num_attention_heads, dim)

    def feed_forward(self, b: Builder) -> nn.Module:
        """A block's second half."""
        return b.gated_mlp("mlp", self.hidden_size, self.intermediate_size, act=self.hidden_act, bias=self.mlp_bias)


class Block(nn.Module):
    """Pre-norm attention and feed-forward; what each adds is scaled."""

    def __init__(self, c: GraniteConfig, b: Builder) -> None:
        a, heads, bias = b.at("self_attn"), c.heads, c.attention_bias
        self.attn_norm = b.rms_norm("input_layernorm", c.hidden_size, c.rms_norm_eps)
        self.attn = nn.Attention(
            a.merged("qkv_proj", c.hidden_size, heads.projections, bias=bias),
            a.cached_attention(heads, scale=c.attention_multiplier),
            a.linear("o_proj", heads.width, c.hidden_size, bias=bias, split="in"),
            heads,
            rope=a.rope(c.rope, heads.dim),
        )
        self.mlp_norm = b.rms_norm("post_attention_layernorm", c.hidden_size, c.rms_norm_eps)
        self.mlp = c.feed_forward(b)
        self.scale = b.op(ops.Scale(c.residual_multiplier))

    def forward(self, x_TD: Tensor, residual_TD: Tensor | None, ctx: Ctx) -> tuple[Tensor, Tensor]:
        h_TD, residual_TD = self.attn_norm(x_TD, residual_TD)
        h_TD, residual_TD = self.mlp_norm(self.scale(self.attn(h_TD, ctx)), residual_TD)
        return self.scale(self.mlp(h_TD)), residual_TD


class Model(nn.Decoder):
    """Token ids to logits."""

    def __init__(self, c: GraniteConfig, b: Builder) -> None:
        embedding = b.embedding("model.embed_tokens", c.vocab_size, c.hidden_size, scale=c.embedding_multiplier)
        tied = embedding if c.tie_word_embeddings else None
        super().__init__(
            embedding,
            [Block(c, b.at(f"model.layers.{i}")) for i in range(c.num_hidden_layers)],
            b.rms_norm("model.norm", c.hidden_size, c.rms_norm_eps),
            b.head("lm_head", c.hidden_size, c.vocab_size, tied=tied, scale=1 / c.logits_scaling),
        )
