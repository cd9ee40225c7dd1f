# SPDX-License-Identifier: Apache-2.0
"""Mixtures of experts.

Legend: T tokens, D hidden size.
"""

from __future__ import annotations

from torch import Tensor

from tramontane.nn.linear import Linear
from tramontane.nn.mlp import GatedMlp
from tramontane.nn.module import Module
from tramontane.ops import BoundOp


class Moe(Module):
    """Each token's experts, summed by their weights: [T, D] -> [T, D]."""

    def __init__(self, router: BoundOp, experts: BoundOp) -> None:
        self.router = router
        self.experts = experts

    def forward(self, x_TD: Tensor) -> Tensor:
        return self.experts(x_TD, *self.router(x_TD))


class SharedMoe(Module):
    """Routed experts beside a feed-forward layer that every token takes, weighted by a gate of its own where given."""

    def __init__(
        self, routed: Moe, shared: GatedMlp, add: BoundOp, gate: tuple[Linear, BoundOp, BoundOp] | None = None
    ) -> None:
        self.routed = routed
        self.shared = shared
        self.add = add
        self.gate = gate

    def forward(self, x_TD: Tensor) -> Tensor:
        shared_TD = self.shared(x_TD)
        if self.gate is not None:
            logit, sigmoid, multiply = self.gate
            shared_TD = multiply(shared_TD, sigmoid(logit(x_TD)))
        return self.add(self.routed(x_TD), shared_TD)
