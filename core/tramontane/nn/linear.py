# SPDX-License-Identifier: Apache-2.0
"""Linear layers. There is one Linear; how its weights are stored, sharded or adapted is decided in the plan.

Legend: T tokens, I inputs, O outputs.
"""

from __future__ import annotations

from torch import Tensor

from tramontane.nn.module import Module
from tramontane.ops import BoundOp


class Linear(Module):
    """``x W^T + b``: [T, I] -> [T, O]. ``total`` adds up what several workers make of their part of the inputs."""

    def __init__(self, op: BoundOp, total: BoundOp | None = None) -> None:
        self.op = op
        self.total = total

    def forward(self, x_TI: Tensor) -> Tensor:
        y_TO: Tensor = self.op(x_TI)
        return y_TO if self.total is None else self.total(y_TO)


class Merged(Module):
    """Several linears of one input run as one: [T, I] -> a view [T, O_i] per part."""

    def __init__(self, op: BoundOp, sizes: list[int]) -> None:
        self.op = op
        self.sizes = sizes

    def forward(self, x_TI: Tensor) -> tuple[Tensor, ...]:
        return self.op(x_TI).split(self.sizes, dim=-1)

    def joined(self, x_TI: Tensor) -> Tensor:
        """The parts side by side: [T, sum of O_i]."""
        return self.op(x_TI)
