# SPDX-License-Identifier: Apache-2.0
"""Granite 3 mixtures (1B-A400M, 3B-A800M): Granite with small experts, stored stacked."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from attrs import frozen

from tramontane import nn, ops
from tramontane.build import Builder
from tramontane.weightmap import Rename, WeightMap, fused_experts, fused_parts
from tramontane_arch_granite.model import GraniteConfig


@frozen(kw_only=True)
class GraniteMoeConfig(GraniteConfig):
    """What the mixtures add."""

    num_local_experts: int
    num_experts_per_tok: int

    def feed_forward(self, b: Builder) -> nn.Module:
        """A token's weights are a softmax over the logits of its own experts."""
        b, routing = b.at("block_sparse_moe"), ops.Router(top_k=self.num_experts_per_tok, normalize=True)
        width, count, gate = self.intermediate_size, self.num_local_experts, ops.GatedActivate(self.hidden_act)
        experts = b.experts("experts", self.hidden_size, width, count, gate)
        return nn.Moe(b.router("router", self.hidden_size, count, routing), experts)


def weight_map(config: Mapping[str, Any]) -> tuple[WeightMap, ...]:
    """Experts are stored stacked, under IBM's names or those of transformers 5."""
    width = config["intermediate_size"]
    module = "{p...}.block_sparse_moe"
    names = {f"{module}.experts.down_proj": f"{module}.output_linear", f"{module}.router": f"{module}.router.layer"}
    both = fused_parts("input_linear", {"experts.gate_proj": width, "experts.up_proj": width})
    return WeightMap((both, Rename(names))), WeightMap(fused_experts(width))
