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


class Experts(Module):
    """What each token's experts make of it, summed by their weights: (x [T, D], weights [T, K], ids [T, K]) -> [T, D].

    With several workers ``own`` finds a worker's own among the experts, and ``total`` adds up what all make.
    """

    def __init__(self, op: BoundOp, own: BoundOp | None = None, total: BoundOp | None = None) -> None:
        self.op = op
        self.own = own
        self.total = total

    def forward(self, x_TD: Tensor, weights_TK: Tensor, ids_TK: Tensor) -> Tensor:
        if self.own is not None:
            weights_TK, ids_TK = self.own(weights_TK, ids_TK)
        y_TD: Tensor = self.op(x_TD, weights_TK, ids_TK)
        return y_TD if self.total is None else self.total(y_TD)


class Moe(Module):
    """Each token's experts, summed by their weights: [T, D] -> [T, D]."""

    def __init__(self, router: BoundOp, experts: Experts) -> None:
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
