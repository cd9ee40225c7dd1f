# SPDX-License-Identifier: Apache-2.0
"""OLMo 2 (OLMo team, 2024): norms after each sub-layer and none before, queries and keys normed over all heads at once.

Legend: T tokens, D hidden size, H query heads, G key/value heads, K head dimension.
"""

from __future__ import annotations

from attrs import frozen
from torch import Tensor

from tramontane import nn, ops
from tramontane.batch import Ctx
from tramontane.build import Builder
from tramontane.config import RopeConfig, only, rope_field


@frozen(kw_only=True)
class Olmo2Config:
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
    max_position_embeddings: int = 2048
    attention_bias: bool = False
    sliding_window: int | None = only(None)
    tie_word_embeddings: bool = False
    rope: RopeConfig = rope_field()

    @property
    def heads(self) -> nn.Heads:
        """Query heads, key/value heads and their width."""
        dim = self.head_dim or self.hidden_size // self.num_attention_heads
        return nn.Heads(self.num_attention_heads, self.num_key_value_heads or self.num_attention_heads, dim)


class Attention(nn.Module):
    """Attention with norms over the whole of the queries and of the keys."""

    def __init__(self, c: Olmo2Config, b: Builder) -> None:
        self.heads = heads = c.heads
        self.qkv = b.merged("qkv_proj", c.hidden_size, heads.projections, bias=c.attention_bias)
        self.q_norm = b.norm("q_norm", heads.query * heads.dim, c.rms_norm_eps, late_cast=True)
        self.k_norm = b.norm("k_norm", heads.kv * heads.dim, c.rms_norm_eps, late_cast=True)
        self.rope = b.rope(c.rope, heads.dim)
        self.core = b.cached_attention(heads)
        self.out = b.linear("o_proj", heads.width, c.hidden_size, bias=c.attention_bias, split="in")

    def forward(self, x_TD: Tensor, ctx: Ctx) -> Tensor:
        q, k, v = self.qkv(x_TD)
        q_THK = self.q_norm(q).unflatten(-1, (self.heads.query, self.heads.dim))
        k_TGK = self.k_norm(k).unflatten(-1, (self.heads.kv, self.heads.dim))
        v_TGK = v.unflatten(-1, (self.heads.kv, self.heads.dim))
        return self.out(self.core(*self.rope(q_THK, k_TGK, ctx), v_TGK, ctx))


class Block(nn.Module):
    """Attention and gated feed-forward, each followed by its norm."""

    def __init__(self, c: Olmo2Config, b: Builder) -> None:
        self.attn = Attention(c, b.at("self_attn"))
        self.attn_norm = b.norm("post_attention_layernorm", c.hidden_size, c.rms_norm_eps, late_cast=True)
        self.mlp = b.gated_mlp("mlp", c.hidden_size, c.intermediate_size, act=c.hidden_act)
        self.mlp_norm = b.norm("post_feedforward_layernorm", c.hidden_size, c.rms_norm_eps, late_cast=True)
        self.add = b.op(ops.Add())

    def forward(self, x_TD: Tensor, residual_TD: Tensor | None, ctx: Ctx) -> tuple[Tensor, Tensor]:
        stream_TD = x_TD if residual_TD is None else self.add(x_TD, residual_TD)
        stream_TD = self.add(self.attn_norm(self.attn(stream_TD, ctx)), stream_TD)
        return self.mlp_norm(self.mlp(stream_TD)), stream_TD


class Model(nn.Decoder):
    """Token ids to logits."""

    def __init__(self, c: Olmo2Config, b: Builder) -> None:
        embedding = b.embedding("model.embed_tokens", c.vocab_size, c.hidden_size)
        super().__init__(
            embedding,
            [Block(c, b.at(f"model.layers.{i}")) for i in range(c.num_hidden_layers)],
            b.rms_norm("model.norm", c.hidden_size, c.rms_norm_eps, late_cast=True),
            b.head("lm_head", c.hidden_size, c.vocab_size, tied=embedding if c.tie_word_embeddings else None),
        )
