# SPDX-License-Identifier: Apache-2.0
"""Gemma (Gemma Team, 2024): Llama with scaled embeddings and norm weights that are stored minus one.

Legend: T tokens, D hidden size.
"""

from __future__ import annotations

from attrs import frozen
from torch import Tensor

from tramontane import nn
from tramontane.batch import Ctx
from tramontane.build import Builder
from tramontane.config import RopeConfig, only, renamed, rope_field


@frozen(kw_only=True)
class GemmaConfig:
    """What ``config.json`` says."""

    vocab_size: int
    hidden_size: int
    intermediate_size: int
    num_hidden_layers: int
    num_attention_heads: int
    num_key_value_heads: int
    head_dim: int = 256
    rms_norm_eps: float = 1e-6
    activation: str = renamed("hidden_activation", "hidden_act", default="gelu_pytorch_tanh")
    max_position_embeddings: int = 8192
    attention_bias: bool = False
    use_bidirectional_attention: bool | None = only(False, None)
    tie_word_embeddings: bool = True
    final_logit_softcapping: float | None = None
    rope: RopeConfig = rope_field()

    @property
    def heads(self) -> nn.Heads:
        """Query heads, key/value heads and their width."""
        return nn.Heads(self.num_attention_heads, self.num_key_value_heads, self.head_dim)

    @property
    def act(self) -> str:
        """The activation; the first files say ``gelu`` and mean its approximation by tanh."""
        return "gelu_pytorch_tanh" if self.activation == "gelu" else self.activation


class Block(nn.Module):
    """Pre-norm attention and gated feed-forward."""

    def __init__(self, c: GemmaConfig, b: Builder) -> None:
        bias = c.attention_bias
        self.attn_norm = b.rms_norm("input_layernorm", c.hidden_size, c.rms_norm_eps, offset=1.0)
        self.attn = b.attention("self_attn", c.hidden_size, c.heads, rope=c.rope, bias=bias, out_bias=bias)
        self.mlp_norm = b.rms_norm("post_attention_layernorm", c.hidden_size, c.rms_norm_eps, offset=1.0)
        self.mlp = b.gated_mlp("mlp", c.hidden_size, c.intermediate_size, act=c.act)

    def forward(self, x_TD: Tensor, residual_TD: Tensor | None, ctx: Ctx) -> tuple[Tensor, Tensor]:
        h_TD, residual_TD = self.attn_norm(x_TD, residual_TD)
        h_TD, residual_TD = self.mlp_norm(self.attn(h_TD, ctx), residual_TD)
        return self.mlp(h_TD), residual_TD


class Model(nn.Decoder):
    """Token ids to logits."""

    def __init__(self, c: GemmaConfig, b: Builder) -> None:
        embedding = b.embedding("model.embed_tokens", c.vocab_size, c.hidden_size, scale=c.hidden_size**0.5)
        tied = embedding if c.tie_word_embeddings else None
        super().__init__(
            embedding,
            [self.layer(c, b.at(f"model.layers.{i}"), i) for i in range(c.num_hidden_layers)],
            b.rms_norm("model.norm", c.hidden_size, c.rms_norm_eps, offset=1.0),
            b.head("lm_head", c.hidden_size, c.vocab_size, tied=tied, softcap=c.final_logit_softcapping),
        )

    def layer(self, c: GemmaConfig, b: Builder, number: int) -> nn.Module:
        """One block."""
        return Block(c, b)
