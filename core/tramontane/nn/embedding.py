# SPDX-License-Identifier: Apache-2.0
"""Token embedding and output head.

Legend: T tokens, L logit rows, D hidden size, V vocabulary.
"""

from __future__ import annotations

from torch import Tensor

from tramontane.batch import Ctx
from tramontane.nn.module import Module
from tramontane.ops import BoundOp
from tramontane.weights import Matrix


class Embedding(Module):
    """Rows of the embedding matrix for the step's token ids: ctx -> [T, D]. ``total`` adds up what several workers
    find in their parts of the vocabulary."""

    def __init__(self, op: BoundOp, matrix: Matrix, total: BoundOp | None = None) -> None:
        self.op = op
        self.matrix = matrix
        self.total = total

    def forward(self, ctx: Ctx) -> Tensor:
        x_TD: Tensor = self.op(ctx.ids_T, ctx=ctx)
        return x_TD if self.total is None else self.total(x_TD)


class Head(Module):
    """Logits in float32: [L, D] -> [L, V]. ``steps`` are ops applied to the logits in order: elementwise ones, then
    the join of several workers' parts."""

    def __init__(self, op: BoundOp, steps: tuple[BoundOp, ...] = ()) -> None:
        self.op = op
        self.steps = steps

    def forward(self, h_LD: Tensor) -> Tensor:
        logits_LV = self.op(h_LD)
        for step in self.steps:
            logits_LV = step(logits_LV)
        return logits_LV
