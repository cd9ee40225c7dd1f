# SPDX-License-Identifier: Apache-2.0
"""Qwen2-MoE and Qwen3-MoE: Qwen with a mixture of experts in (most) layers, in Qwen2 beside a gated shared one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from attrs import frozen

from tramontane import nn, ops
from tramontane.build import Builder
from tramontane.config import renamed
from tramontane.weightmap import WeightMap, renamed_experts, stacked_experts
from tramontane_arch_qwen.model import Block, Model, Qwen3Config, QwenConfig

COUNT = ("num_experts", "num_local_experts")
"""Keys that state how many experts a layer has."""


@frozen(kw_only=True)
class MoeConfig(QwenConfig):
    """What the mixtures add."""

    num_experts: int = renamed(*COUNT)
    num_experts_per_tok: int
    moe_intermediate_size: int
    norm_topk_prob: bool = False
    decoder_sparse_step: int = 1
    mlp_only_layers: tuple[int, ...] = ()

    def mixes(self, layer: int) -> bool:
        """Whether the layer has experts."""
        return layer not in self.mlp_only_layers and (layer + 1) % self.decoder_sparse_step == 0

    def mixture(self, b: Builder) -> nn.Module:
        """The experts of one layer."""
        routing = ops.Router(top_k=self.num_experts_per_tok, normalize=self.norm_topk_prob)
        width, count = self.moe_intermediate_size, self.num_experts
        return b.moe("mlp", self.hidden_size, width, count, routing, act=self.hidden_act)


@frozen(kw_only=True)
class Qwen2MoeConfig(MoeConfig):
    """Qwen2-MoE (Qwen1.5-MoE-A2.7B, Qwen2-57B-A14B)."""

    shared_expert_intermediate_size: int
    qkv_bias: bool = True

    def windowed(self, layer: int) -> bool:
        """See :meth:`QwenConfig.windowed`."""
        return layer % 2 == 0 and layer < self.max_window_layers

    def attention(self, b: Builder, layer: int) -> nn.Attention:
        """See :meth:`QwenConfig.attention`."""
        heads, window = self.heads, self.window(layer)
        return b.attention("self_attn", self.hidden_size, heads, rope=self.rope, bias=self.qkv_bias, window=window)

    def mixture(self, b: Builder) -> nn.Module:
        """Beside the routed experts a shared one, times the sigmoid of its gate."""
        hidden, mlp = self.hidden_size, b.at("mlp")
        shared = mlp.gated_mlp("shared_expert", hidden, self.shared_expert_intermediate_size, act=self.hidden_act)
        routed = MoeConfig.mixture(self, b)
        return mlp.with_shared(routed, shared, mlp.linear("shared_expert_gate", hidden, 1))


@frozen(kw_only=True)
class Qwen3MoeConfig(MoeConfig, Qwen3Config):
    """Qwen3-MoE (Qwen3-30B-A3B, Qwen3-235B-A22B)."""

    def windowed(self, layer: int) -> bool:
        """See :meth:`QwenConfig.windowed`."""
        return True


class MoeBlock(Block):
    """A block whose second half may be a mixture."""

    def feed_forward(self, c: MoeConfig, b: Builder, layer: int) -> nn.Module:  # type: ignore[override]
        """See :meth:`Block.feed_forward`."""
        return c.mixture(b) if c.mixes(layer) else Block.feed_forward(self, c, b, layer)


class MoeModel(Model):
    """Token ids to logits."""

    block = MoeBlock


def weight_map(config: Mapping[str, Any]) -> tuple[WeightMap, ...]:
    """Experts are stored one by one, or (by MLX) stacked under another name."""
    one_by_one = stacked_experts(next(config[key] for key in COUNT if key in config))
    return WeightMap(one_by_one), WeightMap(renamed_experts())
