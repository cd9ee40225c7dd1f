# SPDX-License-Identifier: Apache-2.0
"""StarCoder2 (Lozhkov et al., 2024): layer norms, a plain feed-forward layer, biases and a window.

Legend: T tokens, D hidden size.
"""

from __future__ import annotations

from attrs import frozen
from torch import Tensor

from tramontane import nn
from tramontane.batch import Ctx
from tramontane.build import Builder
from tramontane.config import RopeConfig, only, rope_field


@frozen(kw_only=True)
class Starcoder2Config:
    """What ``config.json`` says."""

    vocab_size: int
    hidden_size: int
    intermediate_size: int
    num_hidden_layers: int
    num_attention_heads: int
    num_key_value_heads: int
    head_dim: int | None = None
    norm_epsilon: float = 1e-5
    norm_type: str = only("layer_norm")
    hidden_act: str = "gelu_pytorch_tanh"
    mlp_type: str = only("default")
    max_position_embeddings: int = 4096
    sliding_window: int | None = None
    use_bias: bool = True
    tie_word_embeddings: bool = True
    rope: RopeConfig = rope_field()

    @property
    def heads(self) -> nn.Heads:
        """Query heads, key/value heads and their width."""
        dim = self.head_dim or self.hidden_size // self.num_attention_heads
        return nn.Heads(self.num_attention_heads, self.num_key_value_heads, dim)


class Block(nn.Module):
    """Pre-norm attention and feed-forward."""

    def __init__(self, c: Starcoder2Config, b: Builder) -> None:
        hidden, bias = c.hidden_size, c.use_bias
        self.attn_norm = b.layer_norm("input_layernorm", hidden, c.norm_epsilon)
        self.attn = b.attention(
            "self_attn", hidden, c.heads, rope=c.rope, bias=bias, out_bias=bias, window=c.sliding_window
        )
        self.mlp_norm = b.layer_norm("post_attention_layernorm", hidden, c.norm_epsilon)
        names = ("c_fc", "c_proj")
        self.mlp = b.mlp("mlp", hidden, c.intermediate_size, act=c.hidden_act, bias=bias, names=names)

    def forward(self, x_TD: Tensor, residual_TD: Tensor | None, ctx: Ctx) -> tuple[Tensor, Tensor]:
        h_TD, residual_TD = self.attn_norm(x_TD, residual_TD)
        h_TD, residual_TD = self.mlp_norm(self.attn(h_TD, ctx), residual_TD)
        return self.mlp(h_TD), residual_TD


class Model(nn.Decoder):
    """Token ids to logits."""

    def __init__(self, c: Starcoder2Config, b: Builder) -> None:
        embedding = b.embedding("model.embed_tokens", c.vocab_size, c.hidden_size)
        super().__init__(
            embedding,
            [Block(c, b.at(f"model.layers.{i}")) for i in range(c.num_hidden_layers)],
            b.layer_norm("model.norm", c.hidden_size, c.norm_epsilon),
            b.head("lm_head", c.hidden_size, c.vocab_size, tied=embedding if c.tie_word_embeddings else None),
        )
