# SPDX-License-Identifier: Apache-2.0
"""Muon (Jordan et al. 2024) in float32: torch's own computes in bfloat16, which many CPUs do a hundred times slower."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

from training.workers import ALONE, Workers

MOMENTUM = 0.95
# The quintic of the paper; four steps are enough for an update of the right size.
COEFFICIENTS = (3.4445, -4.7750, 2.0315)
STEPS = 4


def orthogonalized(x_NAB: Tensor) -> Tensor:
    """The nearest semi-orthogonal matrix of each, about, by Newton-Schulz."""
    a, b, c = COEFFICIENTS
    tall = x_NAB.shape[-2] > x_NAB.shape[-1]
    x_NAB = x_NAB.mT if tall else x_NAB
    x_NAB = x_NAB / (x_NAB.norm(dim=(-2, -1), keepdim=True) + 1e-7)
    for _ in range(STEPS):
        gram_NAA = x_NAB @ x_NAB.mT
        x_NAB = torch.baddbmm(x_NAB, torch.baddbmm(gram_NAA, gram_NAA, gram_NAA, beta=b, alpha=c), x_NAB, beta=a)
    return x_NAB.mT if tall else x_NAB


class Muon(torch.optim.Optimizer):
    """Momentum, orthogonalized; matrices of one shape go together. Steps are scaled to AdamW's size."""

    def __init__(self, matrices: Iterable[nn.Parameter], weight_decay: float, workers: Workers = ALONE) -> None:
        super().__init__(matrices, {"lr": 0.0, "weight_decay": weight_decay})
        self.workers = workers

    @torch.no_grad()
    def step(self, closure: Any = None) -> Any:
        """One update of every matrix; there is no closure."""
        for group in self.param_groups:
            shapes: dict[torch.Size, list[tuple[nn.Parameter, Tensor]]] = defaultdict(list)
            for weight in group["params"]:
                if weight.grad is not None:
                    shapes[weight.shape].append((weight, weight.grad))
            for shape, pairs in shapes.items():
                weights = [weight for weight, _ in pairs]
                gradient_NAB = torch.stack([gradient for _, gradient in pairs])
                momenta = [self.state[weight].setdefault("momentum", torch.zeros_like(weight)) for weight in weights]
                momentum_NAB = torch.stack(momenta).lerp_(gradient_NAB, 1 - MOMENTUM)
                update_NAB = self.workers.shared(orthogonalized, gradient_NAB.lerp(momentum_NAB, MOMENTUM))
                rate = group["lr"] * 0.2 * max(shape) ** 0.5
                for weight, kept, momentum, update in zip(weights, momenta, momentum_NAB, update_NAB, strict=True):
                    kept.copy_(momentum)
                    weight.mul_(1 - group["lr"] * group["weight_decay"]).sub_(update, alpha=rate)
