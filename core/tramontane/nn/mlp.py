# SPDX-License-Identifier: Apache-2.0
"""Feed-forward layers.

Legend: T tokens, D hidden size, F intermediate size.
"""

from __future__ import annotations

from torch import Tensor

from tramontane.nn.linear import Linear, Merged
from tramontane.nn.module import Module
from tramontane.ops import BoundOp


class GatedMlp(Module):
    """``down(act(gate(x)) * up(x))`` (Shazeer, 2020): [T, D] -> [T, D]."""

    def __init__(self, gate_up: Merged | Linear, gate: BoundOp, down: Linear) -> None:
        self.gate_up = gate_up
        self.gate = gate
        self.down = down

    def forward(self, x_TD: Tensor) -> Tensor:
        return self.down(self.gate(self.gate_up.op(x_TD)))


class Mlp(Module):
    """``down(act(up(x)))``: [T, D] -> [T, D]."""

    def __init__(self, up: Linear, act: BoundOp, down: Linear) -> None:
        self.up = up
        self.act = act
        self.down = down

    def forward(self, x_TD: Tensor) -> Tensor:
        return self.down(self.act(self.up(x_TD)))
