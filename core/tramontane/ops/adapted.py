# SPDX-License-Identifier: Apache-2.0
"""What adapters add behind a linear. No model asks for it: it stands behind the linears that a loaded adapter changes.

Legend: T tokens, I inputs, O outputs, A columns of the mix, R rank.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from attrs import frozen
from torch import Tensor

from tramontane.batch import Ctx
from tramontane.ops.base import Meta, Op, op


@op("add_adapted")
@frozen
class AddAdapted(Op):
    """``y[t] + sum over a of mix[t, a] * B_a (A_a x[t])``: (y [T, O], x [T, I], mix float32 [T, A]) -> [T, O].

    LoRA (Hu et al., 2021) where each token's mix is one-hot or zero. Weight: an
    :class:`~tramontane.adapters.AdapterBank`, whose content may change from step to step.
    """

    roles = ("bank",)

    def outputs(self, weights: Sequence[Any], *inputs: Tensor) -> tuple[Meta, ...]:
        return ((tuple(inputs[0].shape), inputs[0].dtype),)

    def reference(self, ctx: Ctx | None, weights: Sequence[Any], *inputs: Tensor) -> tuple[Tensor, ...]:
        (bank,), (y_TO, x_TI, mix_TA) = weights, inputs
        x_TI, total_TO = x_TI.float(), y_TO.float().clone()
        for column, outputs, down_RI, up_RO in bank.pairs():
            added = (x_TI @ down_RI.float().T) @ up_RO.float()
            total_TO[:, outputs] += mix_TA[:, column : column + 1] * added
        return (total_TO.to(y_TO.dtype),)
