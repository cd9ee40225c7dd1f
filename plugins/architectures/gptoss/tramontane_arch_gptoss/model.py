# SPDX-License-Identifier: Apache-2.0
"""gpt-oss (OpenAI, 2025): learned sinks in attention, windows on every other layer, biased experts with a clamped gate.

Legend: T tokens, D hidden size.
"""

from __future__ import annotations

from attrs import frozen
from torch import Tensor

from tramontane import nn, ops
from tramontane.batch import Ctx
from tramontane.build import Builder
from tramontane.config import RopeConfig, layer_types_field, only, renamed, rope_field


@frozen(kw_only=True)
class GptOssConfig:
    """What ``config.json`` says."""

    vocab_size: int
    hidden_size: int
    intermediate_size: int
    num_hidden_layers: int
    num_attention_heads: int
    num_key_value_heads: int
    head_dim: int = 64
    num_local_experts: int = renamed("num_local_experts", "num_experts", default=128)
    num_experts_per_tok: int = renamed("num_experts_per_tok", "experts_per_token", default=4)
    sliding_window: int = 128
    layer_types: tuple[str, ...] | None = layer_types_field()
    swiglu_alpha: float = 1.702
    swiglu_limit: float = 7.0
    hidden_act: str = only("silu")
    rms_norm_eps: float = 1e-5
    max_position_embeddings: int = 131_072
    attention_bias: bool = True
    tie_word_embeddings: bool = False
    rope: RopeConfig = rope_field(theta=150_000.0)

    @property
    def heads(self) -> nn.Heads:
        """Query heads, key/value heads and their width."""
        return nn.Heads(self.num_attention_heads, self.num_key_value_heads, self.head_dim)

    def window(self, layer: int) -> int | None:
        """Tokens that the layer sees; ``None`` for all."""
        types = self.layer_types
        windowed = layer % 2 == 0 if types is None else types[layer] == "sliding_attention"
        return self.sliding_window if windowed else None


class Attention(nn.Attention):
    """Grouped attention; each head may give a part of its weight to a sink instead of any token."""

    def __init__(self, c: GptOssConfig, b: Builder, layer: int) -> None:
        heads, bias = c.heads, c.attention_bias
        sinks = b.param("sinks", (heads.query,), field="", split="out")
        super().__init__(
            b.merged("qkv_proj", c.hidden_size, heads.projections, bias=bias),
            b.cached_attention(heads, window=c.window(layer), sinks=sinks),
            b.linear("o_proj", heads.width, c.hidden_size, bias=bias, split="in"),
            heads,
            rope=b.rope(c.rope, heads.dim),
        )


class Block(nn.Module):
    """Pre-norm attention and experts."""

    def __init__(self, c: GptOssConfig, b: Builder, layer: int) -> None:
        size, width, count, mlp = c.hidden_size, c.intermediate_size, c.num_local_experts, b.at("mlp")
        gate = ops.ClampedSwiglu(c.swiglu_alpha, c.swiglu_limit)
        routing = ops.Router(top_k=c.num_experts_per_tok, normalize=True, bias=True)
        self.attn_norm = b.rms_norm("input_layernorm", size, c.rms_norm_eps, late_cast=True)
        self.attn = Attention(c, b.at("self_attn"), layer)
        self.mlp_norm = b.rms_norm("post_attention_layernorm", size, c.rms_norm_eps, late_cast=True)
        self.mlp = nn.Moe(
            mlp.router("router", size, count, routing), mlp.experts("experts", size, width, count, gate, bias=True)
        )

    def forward(self, x_TD: Tensor, residual_TD: Tensor | None, ctx: Ctx) -> tuple[Tensor, Tensor]:
        h_TD, residual_TD = self.attn_norm(x_TD, residual_TD)
        h_TD, residual_TD = self.mlp_norm(self.attn(h_TD, ctx), residual_TD)
        return self.mlp(h_TD), residual_TD


class Model(nn.Decoder):
    """Token ids to logits."""

    def __init__(self, c: GptOssConfig, b: Builder) -> None:
        embedding = b.embedding("model.embed_tokens", c.vocab_size, c.hidden_size)
        super().__init__(
            embedding,
            [Block(c, b.at(f"model.layers.{i}"), i) for i in range(c.num_hidden_layers)],
            b.rms_norm("model.norm", c.hidden_size, c.rms_norm_eps, late_cast=True),
            b.head("lm_head", c.hidden_size, c.vocab_size, tied=embedding if c.tie_word_embeddings else None),
        )
