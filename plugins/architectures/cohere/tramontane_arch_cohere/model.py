# SPDX-License-Identifier: Apache-2.0
"""Command R and A (Cohere, 2024 and 2025): attention and feed-forward side by side after one layer norm without shift.

The second generation has windows on most layers; those that see everything know no positions.

Legend: T tokens, D hidden size.
"""

from __future__ import annotations

from attrs import frozen
from torch import Tensor

from tramontane import nn, ops
from tramontane.batch import Ctx
from tramontane.build import Builder
from tramontane.config import RopeConfig, layer_types_field, only, rope_field


@frozen(kw_only=True)
class CohereConfig:
    """What ``config.json`` says in the first generation."""

    vocab_size: int
    hidden_size: int
    intermediate_size: int
    num_hidden_layers: int
    num_attention_heads: int
    num_key_value_heads: int | None = None
    head_dim: int | None = None
    layer_norm_eps: float = 1e-5
    hidden_act: str = "silu"
    max_position_embeddings: int = 8192
    logit_scale: float = 0.0625
    use_qk_norm: bool = False
    attention_bias: bool = False
    tie_word_embeddings: bool = True
    rope: RopeConfig = rope_field(theta=500_000.0)

    @property
    def heads(self) -> nn.Heads:
        """Query heads, key/value heads and their width."""
        dim = self.head_dim or self.hidden_size // self.num_attention_heads
        return nn.Heads(self.num_attention_heads, self.num_key_value_heads or self.num_attention_heads, dim)

    def window(self, layer: int) -> int | None:
        """Tokens that the layer sees; ``None`` for all."""
        return None

    def turned(self, layer: int) -> bool:
        """Whether the layer has positions."""
        return True


@frozen(kw_only=True)
class Cohere2Config(CohereConfig):
    """What the second generation adds."""

    sliding_window: int | None = 4096
    sliding_window_pattern: int = 4
    layer_types: tuple[str, ...] | None = layer_types_field()
    order_of_interleaved_layers: str = only("local_attn_first")
    position_embedding_type: str = only("rope_gptj")
    use_parallel_block: bool = only(True)
    use_qk_norm: bool = only(False)
    rope: RopeConfig = rope_field()

    def window(self, layer: int) -> int | None:
        """See :meth:`CohereConfig.window`."""
        types = self.layer_types
        last = (layer + 1) % self.sliding_window_pattern == 0
        return None if (last if types is None else types[layer] == "full_attention") else self.sliding_window

    def turned(self, layer: int) -> bool:
        """See :meth:`CohereConfig.turned`."""
        return self.window(layer) is not None


class Block(nn.Module):
    """One norm, then attention and gated feed-forward in parallel."""

    def __init__(self, c: CohereConfig, b: Builder, layer: int) -> None:
        a, heads, bias, eps = b.at("self_attn"), c.heads, c.attention_bias, c.layer_norm_eps
        self.norm = b.layer_norm("input_layernorm", c.hidden_size, eps, bias=False)
        norms = {}
        if c.use_qk_norm:  # each head has weights of its own
            norms["q_norm"] = a.plain_layer_norm("q_norm", heads.query, heads.dim, eps=eps, bias=False)
            norms["k_norm"] = a.plain_layer_norm("k_norm", heads.kv, heads.dim, eps=eps, bias=False)
        self.attn = nn.Attention(
            a.merged("qkv_proj", c.hidden_size, heads.projections, bias=bias),
            a.cached_attention(heads, window=c.window(layer)),
            a.linear("o_proj", heads.width, c.hidden_size, bias=bias, split="in"),
            heads,
            rope=a.rope(c.rope, heads.dim, interleaved=True) if c.turned(layer) else None,
            **norms,
        )
        self.mlp = b.gated_mlp("mlp", c.hidden_size, c.intermediate_size, act=c.hidden_act)
        self.add = b.op(ops.Add())

    def forward(self, x_TD: Tensor, residual_TD: Tensor | None, ctx: Ctx) -> tuple[Tensor, Tensor]:
        h_TD, residual_TD = self.norm(x_TD, residual_TD)
        return self.add(self.attn(h_TD, ctx), self.mlp(h_TD)), residual_TD


class Model(nn.Decoder):
    """Token ids to logits."""

    def __init__(self, c: CohereConfig, b: Builder) -> None:
        embedding = b.embedding("model.embed_tokens", c.vocab_size, c.hidden_size)
        tied = embedding if c.tie_word_embeddings else None
        super().__init__(
            embedding,
            [Block(c, b.at(f"model.layers.{i}"), i) for i in range(c.num_hidden_layers)],
            b.layer_norm("model.norm", c.hidden_size, c.layer_norm_eps, bias=False),
            b.head("lm_head", c.hidden_size, c.vocab_size, tied=tied, scale=c.logit_scale),
        )
