# SPDX-License-Identifier: Apache-2.0
"""Phi-1.5 and Phi-2 (Li et al., 2023): attention and feed-forward side by side after one layer norm, biases everywhere.

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
class PhiConfig:
    """What ``config.json`` says."""

    vocab_size: int
    hidden_size: int
    intermediate_size: int
    num_hidden_layers: int
    num_attention_heads: int
    num_key_value_heads: int | None = None
    head_dim: int | None = None
    layer_norm_eps: float = 1e-5
    hidden_act: str = "gelu_new"
    max_position_embeddings: int = 2048
    qk_layernorm: bool = False
    tie_word_embeddings: bool = False
    rope: RopeConfig = rope_field(partial=0.5)

    @property
    def heads(self) -> nn.Heads:
        """Query heads, key/value heads and their width."""
        dim = self.head_dim or self.hidden_size // self.num_attention_heads
        return nn.Heads(self.num_attention_heads, self.num_key_value_heads or self.num_attention_heads, dim)


class Block(nn.Module):
    """One norm, then attention and feed-forward in parallel."""

    def __init__(self, c: PhiConfig, b: Builder) -> None:
        a, heads = b.at("self_attn"), c.heads
        self.norm = b.layer_norm("input_layernorm", c.hidden_size, c.layer_norm_eps)
        self.attn = nn.Attention(
            a.merged("qkv_proj", c.hidden_size, heads.projections, bias=True),
            a.cached_attention(heads),
            a.linear("dense", heads.width, c.hidden_size, bias=True, split="in"),
            heads,
            rope=a.rope(c.rope, heads.dim),
            q_norm=a.plain_layer_norm("q_layernorm", heads.dim, eps=c.layer_norm_eps) if c.qk_layernorm else None,
            k_norm=a.plain_layer_norm("k_layernorm", heads.dim, eps=c.layer_norm_eps) if c.qk_layernorm else None,
        )
        names = ("fc1", "fc2")
        self.mlp = b.mlp("mlp", c.hidden_size, c.intermediate_size, act=c.hidden_act, bias=True, names=names)
        self.add = b.op(ops.Add())

    def forward(self, x_TD: Tensor, residual_TD: Tensor | None, ctx: Ctx) -> tuple[Tensor, Tensor]:
        h_TD, residual_TD = self.norm(x_TD, residual_TD)
        return self.add(self.attn(h_TD, ctx), self.mlp(h_TD)), residual_TD


class Model(nn.Decoder):
    """Token ids to logits; the head has a bias too."""

    def __init__(self, c: PhiConfig, b: Builder) -> None:
        embedding = b.embedding("model.embed_tokens", c.vocab_size, c.hidden_size)
        tied = embedding if c.tie_word_embeddings else None
        super().__init__(
            embedding,
            [Block(c, b.at(f"model.layers.{i}")) for i in range(c.num_hidden_layers)],
            b.layer_norm("model.final_layernorm", c.hidden_size, c.layer_norm_eps),
            b.head("lm_head", c.hidden_size, c.vocab_size, tied=tied, bias=True),
        )
