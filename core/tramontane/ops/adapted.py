# SPDX-License-Identifier: Apache-2.0
"""What adapters change. No model asks for these ops: they stand behind, or in place of, those whose matrix a loaded
adapter changes.

Legend: T tokens, I inputs, O outputs, A columns of the mix, R rank; N and P features of a query, as in ``latent``.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from attrs import frozen
from torch import Tensor

from tramontane.batch import Ctx
from tramontane.ops.base import Meta, Op, op
from tramontane.ops.latent import AttendLatent


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


@op("attend_latent_adapted")
@frozen
class AttendLatentAdapted(Op):
    """``attend_latent`` whose matrix differs by sequence: (q [T, H, N], q [T, H, P], mix float32 [T, A]) -> [T, H * V].

    A sequence that uses adapter a attends with ``W + B_a A_a``. The mix is one-hot or zero, and the same for all tokens
    of a sequence: keys that others left in the cache are expanded by the matrix of the query.

    Weights: those of ``attend_latent``, and the :class:`~tramontane.adapters.AdapterBank` of its matrix.
    """

    attend: AttendLatent

    roles = (*AttendLatent.roles, "bank")
    reads = AttendLatent.reads

    def outputs(self, weights: Sequence[Any], *inputs: Tensor) -> tuple[Meta, ...]:
        return self.attend.outputs(weights[:2], *inputs[:2])

    def reference(self, ctx: Ctx | None, weights: Sequence[Any], *inputs: Tensor) -> tuple[Tensor, ...]:
        (cache, matrix, bank), (q_THN, q_THP, mix_TA) = weights, inputs
        (y_TO,) = self.attend.reference(ctx, (cache, matrix), q_THN, q_THP)
        for column in bank.places:
            changed = _Changed(matrix.dequantize().float() + bank.product(column))
            (own_TO,) = self.attend.reference(ctx, (cache, changed), q_THN, q_THP)
            y_TO = torch.where(mix_TA[:, column : column + 1] > 0, own_TO, y_TO)
        return (y_TO,)


@frozen(eq=False)
class _Changed:
    """A matrix with an adapter in it."""

    weight_OI: Tensor

    def dequantize(self) -> Tensor:
        return self.weight_OI
