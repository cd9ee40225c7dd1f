# SPDX-License-Identifier: Apache-2.0
"""Gemma 2 (Gemma Team, 2024): norms on both sides of each half of a block, windows on every other layer, capped scores.

Gemma 3's blocks are these too; what differs is in its configuration.

Legend: T tokens, D hidden size.
"""

from __future__ import annotations

from typing import ClassVar

from attrs import frozen
from torch import Tensor

from tramontane import nn
from tramontane.batch import Ctx
from tramontane.build import Builder
from tramontane.config import RopeConfig, layer_types_field
from tramontane_arch_gemma import gemma


@frozen(kw_only=True)
class Gemma2Config(gemma.GemmaConfig):
    """What ``config.json`` says."""

    qk_norm: ClassVar[bool] = False
    """Queries and keys are normed head by head."""

    query_pre_attn_scalar: float = 256
    sliding_window: int = 4096
    layer_types: tuple[str, ...] | None = layer_types_field()
    attn_logit_softcapping: float | None = 50.0
    final_logit_softcapping: float | None = 30.0

    def windowed(self, layer: int) -> bool:
        """Whether the layer sees a window only; every other one does where the file does not say."""
        return layer % 2 == 0 if self.layer_types is None else self.layer_types[layer] == "sliding_attention"

    def rope_of(self, layer: int) -> RopeConfig:
        """The rotary embedding of a layer."""
        return self.rope


class Attention(nn.Attention):
    """Grouped attention with a scale of its own, capped scores and, in Gemma 3, norms of queries and keys."""

    def __init__(self, c: Gemma2Config, b: Builder, layer: int) -> None:
        heads, bias, eps = c.heads, c.attention_bias, c.rms_norm_eps
        window = c.sliding_window if c.windowed(layer) else None
        scale = c.query_pre_attn_scalar**-0.5
        super().__init__(
            b.merged("qkv_proj", c.hidden_size, heads.projections, bias=bias),
            b.cached_attention(heads, scale=scale, window=window, softcap=c.attn_logit_softcapping),
            b.linear("o_proj", heads.width, c.hidden_size, bias=bias, split="in"),
            heads,
            rope=b.rope(c.rope_of(layer), heads.dim),
            q_norm=b.norm("q_norm", heads.dim, eps, offset=1.0) if c.qk_norm else None,
            k_norm=b.norm("k_norm", heads.dim, eps, offset=1.0) if c.qk_norm else None,
        )


class Block(nn.Module):
    """Attention and feed-forward, each between two norms."""

    def __init__(self, c: Gemma2Config, b: Builder, layer: int) -> None:
        size, eps = c.hidden_size, c.rms_norm_eps
        self.attn_norm = b.rms_norm("input_layernorm", size, eps, offset=1.0)
        self.attn = Attention(c, b.at("self_attn"), layer)
        self.after_attn = b.norm("post_attention_layernorm", size, eps, offset=1.0)
        self.mlp_norm = b.rms_norm("pre_feedforward_layernorm", size, eps, offset=1.0)
        self.mlp = b.gated_mlp("mlp", size, c.intermediate_size, act=c.act)
        self.after_mlp = b.norm("post_feedforward_layernorm", size, eps, offset=1.0)

    def forward(self, x_TD: Tensor, residual_TD: Tensor | None, ctx: Ctx) -> tuple[Tensor, Tensor]:
        h_TD, residual_TD = self.attn_norm(x_TD, residual_TD)
        h_TD, residual_TD = self.mlp_norm(self.after_attn(self.attn(h_TD, ctx)), residual_TD)
        return self.after_mlp(self.mlp(h_TD)), residual_TD


class Model(gemma.Model):
    """Token ids to logits."""

    def layer(self, c: Gemma2Config, b: Builder, number: int) -> nn.Module:  # type: ignore[override]
        """One block."""
        return Block(c, b, number)
