# SPDX-License-Identifier: Apache-2.0
"""Norms, threaded with the residual stream.

``norm(x)`` returns the normalized value and ``x`` itself as the new residual; ``norm(x, residual)`` adds first. A block
thus never adds by hand, and the add always stands next to the norm, where a backend fuses it.
"""

from __future__ import annotations

from torch import Tensor

from tramontane.nn.module import Module
from tramontane.ops import BoundOp


class ResidualNorm(Module):
    """Norm at a residual junction: (x, residual or None) -> (norm(x + residual), x + residual)."""

    def __init__(self, plain: BoundOp | Norm, added: BoundOp | AddedNorm) -> None:
        self.plain = plain
        self.added = added

    def forward(self, x_TD: Tensor, residual_TD: Tensor | None = None) -> tuple[Tensor, Tensor]:
        if residual_TD is None:
            return self.plain(x_TD), x_TD
        return self.added(x_TD, residual_TD)


class Norm(Module):
    """A norm alone: [..., D] -> [..., D]."""

    def __init__(self, op: BoundOp) -> None:
        self.op = op

    def forward(self, x: Tensor) -> Tensor:
        return self.op(x)


class AddedNorm(Module):
    """A sum and its norm, of two ops: (x, residual) -> (norm(x + residual), x + residual)."""

    def __init__(self, add: BoundOp, norm: Norm) -> None:
        self.add = add
        self.norm = norm

    def forward(self, x_TD: Tensor, residual_TD: Tensor) -> tuple[Tensor, Tensor]:
        total_TD = self.add(x_TD, residual_TD)
        return self.norm(total_TD), total_TD
