# SPDX-License-Identifier: Apache-2.0
"""Qwen 2, 2.5 and 3 (Yang et al., 2024, 2025).

Llama with biased queries, keys and values (2) or with norms of queries and keys (3), and an optional window on the
upper layers.

Legend: T tokens, D hidden size.
"""

from __future__ import annotations

from attrs import frozen
from torch import Tensor

from tramontane import nn
from tramontane.batch import Ctx
from tramontane.build import Builder
from tramontane.config import RopeConfig, layer_types_field, rope_field


@frozen(kw_only=True)
class QwenConfig:
    """What ``config.json`` says in all generations."""

    vocab_size: int
    hidden_size: int
    intermediate_size: int
    num_hidden_layers: int
    num_attention_heads: int
    num_key_value_heads: int | None = None
    head_dim: int | None = None
    rms_norm_eps: float = 1e-6
    hidden_act: str = "silu"
    max_position_embeddings: int = 2048
    attention_bias: bool = False
    use_sliding_window: bool = False
    sliding_window: int | None = None
    max_window_layers: int = 28
    layer_types: tuple[str, ...] | None = layer_types_field()
    tie_word_embeddings: bool = False
    rope: RopeConfig = rope_field()

    @property
    def heads(self) -> nn.Heads:
        """Query heads, key/value heads and their width."""
        dim = self.head_dim or self.hidden_size // self.num_attention_heads
        return nn.Heads(self.num_attention_heads, self.num_key_value_heads or self.num_attention_heads, dim)

    def window(self, layer: int) -> int | None:
        """Tokens that the layer sees; ``None`` for all."""
        types = self.layer_types
        windowed = self.windowed(layer) if types is None else types[layer] == "sliding_attention"
        return self.sliding_window if self.use_sliding_window and windowed else None

    def windowed(self, layer: int) -> bool:
        """Whether the layer has a window, in a file that has one and states no types."""
        return layer >= self.max_window_layers

    def attention(self, b: Builder, layer: int) -> nn.Attention:
        """Attention of one layer; generations differ in biases and norms."""
        raise NotImplementedError


@frozen(kw_only=True)
class Qwen2Config(QwenConfig):
    """Queries, keys and values have biases."""

    def attention(self, b: Builder, layer: int) -> nn.Attention:
        """See :meth:`QwenConfig.attention`."""
        window = self.window(layer)
        return b.attention("self_attn", self.hidden_size, self.heads, rope=self.rope, bias=True, window=window)


@frozen(kw_only=True)
class Qwen3Config(QwenConfig):
    """Queries and keys are normed head by head."""

    def attention(self, b: Builder, layer: int) -> nn.Attention:
        """See :meth:`QwenConfig.attention`."""
        return b.attention(
            "self_attn",
            self.hidden_size,
            self.heads,
            rope=self.rope,
            qk_norm=self.rms_norm_eps,
            bias=self.attention_bias,
            out_bias=self.attention_bias,
            window=self.window(layer),
        )


class Block(nn.Module):
    """Pre-norm attention and feed-forward."""

    def __init__(self, c: QwenConfig, b: Builder, layer: int) -> None:
        self.attn_norm = b.rms_norm("input_layernorm", c.hidden_size, c.rms_norm_eps)
        self.attn = c.attention(b, layer)
        self.mlp_norm = b.rms_norm("post_attention_layernorm", c.hidden_size, c.rms_norm_eps)
        self.mlp = self.feed_forward(c, b, layer)

    def feed_forward(self, c: QwenConfig, b: Builder, layer: int) -> nn.Module:
        """The layer's second half."""
        return b.gated_mlp("mlp", c.hidden_size, c.intermediate_size, act=c.hidden_act)

    def forward(self, x_TD: Tensor, residual_TD: Tensor | None, ctx: Ctx) -> tuple[Tensor, Tensor]:
        h_TD, residual_TD = self.attn_norm(x_TD, residual_TD)
        h_TD, residual_TD = self.mlp_norm(self.attn(h_TD, ctx), residual_TD)
        return self.mlp(h_TD), residual_TD


class Model(nn.Decoder):
    """Token ids to logits."""

    block = Block

    def __init__(self, c: QwenConfig, b: Builder) -> None:
        embedding = b.embedding("model.embed_tokens", c.vocab_size, c.hidden_size)
        super().__init__(
            embedding,
            [self.block(c, b.at(f"model.layers.{i}"), i) for i in range(c.num_hidden_layers)],
            b.rms_norm("model.norm", c.hidden_size, c.rms_norm_eps),
            b.head("lm_head", c.hidden_size, c.vocab_size, tied=embedding if c.tie_word_embeddings else None),
        )
