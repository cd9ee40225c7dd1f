# SPDX-License-Identifier: Apache-2.0
"""Products with matrices whose parts say what is done to activations first.

A fused matrix may have a rule per part; parts with equal rules see one rounding and are one product.

Legend: T tokens, I inputs, O outputs.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from attrs import field, frozen
from torch import Tensor

from tramontane.schemes import NO_ACT, Act
from tramontane.schemes.activations import rounded_activations
from tramontane.weights import Matrix


@frozen(eq=False)
class Span:
    """Outputs ``first <= o < last`` of a matrix, and the rule for what they are multiplied with."""

    first: int
    last: int
    act: Act = NO_ACT
    scale: Tensor | None = field(default=None, repr=False)
    """The static scale [], or one per expert [X]."""

    def seen(self, x_TI: Tensor, expert: int | None = None) -> Tensor:
        """The activations that these outputs see."""
        scale = self.scale if self.scale is None or expert is None else self.scale[expert]
        return rounded_activations(self.act, x_TI, scale)

    def alike(self, other: Span) -> bool:
        """Whether both see the same."""
        if self.act != other.act or (self.scale is None) != (other.scale is None):
            return False
        return self.scale is None or other.scale is None or torch.equal(self.scale, other.scale)


def spans(matrix: Matrix) -> list[Span]:
    """The outputs of a loaded matrix by rule; a single span where there is no rule, or one for all."""
    if all(scheme.act.kind == "none" for scheme in matrix.schemes):
        return [Span(0, matrix.out_features)]
    found: list[Span] = []
    for span in _parts(matrix):
        if found and found[-1].alike(span):
            span = Span(found.pop().first, span.last, span.act, span.scale)
        found.append(span)
    return found


def product(x_TI: Tensor, matrix: Matrix, expert: int | None = None) -> Tensor:
    """``x W^T`` in float32, with the rules of the matrix: [T, O]. The reference."""
    weight_OI = (matrix.dequantize() if expert is None else matrix.expert(expert)).float()
    x_TI = x_TI.float()
    pieces = [span.seen(x_TI, expert) @ weight_OI[span.first : span.last].T for span in spans(matrix)]
    return pieces[0] if len(pieces) == 1 else torch.cat(pieces, dim=-1)


def _parts(matrix: Matrix) -> Iterator[Span]:
    first = 0
    for index, (part, scheme) in enumerate(zip(matrix.parts, matrix.schemes, strict=True)):
        act, scale = scheme.act, None
        if act.kind != "none" and act.scale == "static":
            scale = matrix.storage().unpack(index)["act_scale"]
        yield Span(first, first + part.out_features, act, scale)
        first += part.out_features
