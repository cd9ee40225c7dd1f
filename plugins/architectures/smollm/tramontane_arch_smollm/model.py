# SPDX-License-Identifier: Apache-2.0
"""SmolLM3 (Hugging Face, 2025): Llama in which some layers know no positions (Yang et al., 2025).

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
class SmolLM3Config:
    """What ``config.json`` says."""

    vocab_size: int
    hidden_size: int
    intermediate_size: int
    num_hidden_layers: int
    num_attention_heads: int
    num_key_value_heads: int | None = None
    head_dim: int | None = None
    rms_norm_eps: float = 1e-6
    hidden_act: str = "silu"
    max_position_embeddings: int = 32768
    no_rope_layers: tuple[int, ...] | None = None
    no_rope_layer_interval: int = 4
    use_sliding_window: bool = False
    sliding_window: int | None = None
    layer_types: tuple[str, ...] | None = layer_types_field()
    attention_bias: bool = False
    mlp_bias: bool = False
    tie_word_embeddings: bool = True
    rope: RopeConfig = rope_field(theta=2_000_000.0)

    @property
    def heads(self) -> nn.Heads:
        """Query heads, key/value heads and their width."""
        dim = self.head_dim or self.hidden_size // self.num_attention_heads
        return nn.Heads(self.num_attention_heads, self.num_key_value_heads or self.num_attention_heads, dim)

    def turned(self, layer: int) -> bool:
        """Whether the layer has positions. (A 0 in ``no_rope_layers`` says that it has none.)"""
        stated = self.no_rope_layers
        return bool((layer + 1) % self.no_rope_layer_interval) if stated is None else bool(stated[layer])

    def window(self, layer: int) -> int | None:
        """Tokens that the layer sees; ``None`` for all."""
        types = self.layer_types
        windowed = not self.turned(layer) if types is None else types[layer] == "sliding_attention"
        return self.sliding_window if self.use_sliding_window and windowed else None


class Block(nn.Module):
    """Pre-norm attention and gated feed-forward."""

    def __init__(self, c: SmolLM3Config, b: Builder, layer: int) -> None:
        hidden, rope, bias = c.hidden_size, c.rope if c.turned(layer) else None, c.attention_bias
        self.attn_norm = b.rms_norm("input_layernorm", hidden, c.rms_norm_eps)
        self.attn = b.attention(
            "self_attn", hidden, c.heads, rope=rope, bias=bias, out_bias=bias, window=c.window(layer)
        )
        self.mlp_norm = b.rms_norm("post_attention_layernorm", hidden, c.rms_norm_eps)
        self.mlp = b.gated_mlp("mlp", hidden, c.intermediate_size, act=c.hidden_act, bias=c.mlp_bias)

    def forward(self, x_TD: Tensor, residual_TD: Tensor | None, ctx: Ctx) -> tuple[Tensor, Tensor]:
        h_TD, residual_TD = self.attn_norm(x_TD, residual_TD)
        h_TD, residual_TD = self.mlp_norm(self.attn(h_TD, ctx), residual_TD)
        return self.mlp(h_TD), residual_TD


class Model(nn.Decoder):
    """Token ids to logits."""

    def __init__(self, c: SmolLM3Config, b: Builder) -> None:
        embedding = b.embedding("model.embed_tokens", c.vocab_size, c.hidden_size)
        super().__init__(
            embedding,
            [Block(c, b.at(f"model.layers.{i}"), i) for i in range(c.num_hidden_layers)],
            b.rms_norm("model.norm", c.hidden_size, c.rms_norm_eps),
            b.head("lm_head", c.hidden_size, c.vocab_size, tied=embedding if c.tie_word_embeddings else None),
        )
