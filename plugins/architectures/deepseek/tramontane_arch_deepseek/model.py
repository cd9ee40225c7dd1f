# SPDX-License-Identifier: Apache-2.0
"""DeepSeek V2 and V3: multi-head latent attention, shared and routed experts behind some dense layers.

Legend: T tokens, D hidden size, H heads, N unrotated and P rotated features of a head, R rank of the latent, Q rank of
the queries.
"""

from __future__ import annotations

from attrs import frozen
from torch import Tensor

from tramontane import nn
from tramontane.batch import Ctx
from tramontane.build import Builder
from tramontane_arch_deepseek.config import DeepseekV2Config

LATENT_EPS = 1e-6
"""Of the norms of latents: not the configuration's."""


@frozen
class Widths:
    """How the features of a head and of the latent are divided."""

    heads: int
    nope: int
    rope: int
    rank: int


class LatentAttention(nn.Module):
    """Queries, perhaps through a low rank; keys and values through a latent that all heads share."""

    def __init__(self, c: DeepseekV2Config, b: Builder) -> None:
        self.widths = w = Widths(c.num_attention_heads, c.qk_nope_head_dim, c.qk_rope_head_dim, c.kv_lora_rank)
        down = {"kv_a_proj_with_mqa": w.rank + w.rope}
        if c.q_lora_rank is None:
            self.q_norm, self.q = None, b.linear("q_proj", c.hidden_size, w.heads * (w.nope + w.rope), split="out")
        else:
            down = {"q_a_proj": c.q_lora_rank, **down}
            self.q_norm = b.norm("q_a_layernorm", c.q_lora_rank, LATENT_EPS)
            self.q = b.linear("q_b_proj", c.q_lora_rank, w.heads * (w.nope + w.rope), split="out")
        self.down = b.merged("qkv_a_proj", c.hidden_size, down, bias=c.attention_bias, split=None)
        self.latent_norm = b.norm("kv_a_layernorm", w.rank, LATENT_EPS)
        self.rope = b.rope(c.rope, w.rope, interleaved=c.rope_interleave)
        self.core = b.latent_attention(
            "kv_b_proj",
            heads=w.heads,
            nope_dim=w.nope,
            rope_dim=w.rope,
            rank=w.rank,
            value_dim=c.v_head_dim,
            scale=c.scale,
        )
        self.out = b.linear("o_proj", w.heads * c.v_head_dim, c.hidden_size, bias=c.attention_bias, split="in")

    def forward(self, x_TD: Tensor, ctx: Ctx) -> Tensor:
        w = self.widths
        if self.q_norm is None:
            (down_TC,) = self.down(x_TD)
            q = self.q(x_TD)
        else:
            q_TQ, down_TC = self.down(x_TD)
            q = self.q(self.q_norm(q_TQ))
        q_THN, q_THP = q.unflatten(-1, (-1, w.nope + w.rope)).split((w.nope, w.rope), dim=-1)
        latent_TR, k_TP = down_TC.split((w.rank, w.rope), dim=-1)
        q_THP, k_T1P = self.rope(q_THP, k_TP.unsqueeze(1), ctx)
        return self.out(self.core(q_THN, q_THP, self.latent_norm(latent_TR), k_T1P, ctx))


class Block(nn.Module):
    """Pre-norm attention and feed-forward or experts."""

    def __init__(self, c: DeepseekV2Config, b: Builder, layer: int) -> None:
        self.attn_norm = b.rms_norm("input_layernorm", c.hidden_size, c.rms_norm_eps)
        self.attn = LatentAttention(c, b.at("self_attn"))
        self.mlp_norm = b.rms_norm("post_attention_layernorm", c.hidden_size, c.rms_norm_eps)
        self.mlp = _experts(c, b) if c.mixes(layer) else _dense(c, b, "mlp", c.intermediate_size)

    def forward(self, x_TD: Tensor, residual_TD: Tensor | None, ctx: Ctx) -> tuple[Tensor, Tensor]:
        h_TD, residual_TD = self.attn_norm(x_TD, residual_TD)
        h_TD, residual_TD = self.mlp_norm(self.attn(h_TD, ctx), residual_TD)
        return self.mlp(h_TD), residual_TD


def _dense(c: DeepseekV2Config, b: Builder, name: str, width: int) -> nn.GatedMlp:
    return b.gated_mlp(name, c.hidden_size, width, act=c.hidden_act, bias=c.mlp_bias)


def _experts(c: DeepseekV2Config, b: Builder) -> nn.Module:
    """Routed experts, beside as many shared ones as there are, which are stored as one wide layer."""
    routed = b.moe("mlp", c.hidden_size, c.moe_intermediate_size, c.n_routed_experts or 0, c.routing, act=c.hidden_act)
    if not c.n_shared_experts:
        return routed
    return b.with_shared(routed, _dense(c, b.at("mlp"), "shared_experts", c.moe_intermediate_size * c.n_shared_experts))


class Model(nn.Decoder):
    """Token ids to logits."""

    def __init__(self, c: DeepseekV2Config, b: Builder) -> None:
        embedding = b.embedding("model.embed_tokens", c.vocab_size, c.hidden_size)
        super().__init__(
            embedding,
            [Block(c, b.at(f"model.layers.{i}"), i) for i in range(c.num_hidden_layers)],
            b.rms_norm("model.norm", c.hidden_size, c.rms_norm_eps),
            b.head("lm_head", c.hidden_size, c.vocab_size, tied=embedding if c.tie_word_embeddings else None),
        )
