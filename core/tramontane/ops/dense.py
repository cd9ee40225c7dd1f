# SPDX-License-Identifier: Apache-2.0
"""Ops over weight matrices: linear, embedding look-up, choice of rows.

Legend: T tokens, L chosen rows, I inputs, O outputs.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from attrs import frozen
from torch import Tensor

from tramontane.batch import Ctx
from tramontane.ops.activations import product
from tramontane.ops.base import Meta, Op, op


@op("linear")
@frozen
class Linear(Op):
    """``y = x W^T + b``, with ``x`` as the scheme's rule for activations leaves it.

    Weights: a :class:`~tramontane.weights.Matrix` and, with ``bias``, a vector [O].
    """

    out_features: int
    bias: bool = False
    out_dtype: torch.dtype | None = None
    """Type of the result; ``None`` is the input's. Heads ask for float32."""

    roles = ("weight", "bias")

    def outputs(self, weights: Sequence[Any], *inputs: Tensor) -> tuple[Meta, ...]:
        (x,) = inputs
        return (((*x.shape[:-1], self.out_features), self.out_dtype or x.dtype),)

    def matrix_inputs(self, weights: Sequence[Any], *inputs: Tensor) -> Iterator[tuple[int, int | None, Tensor]]:
        """See :meth:`Op.matrix_inputs`."""
        (x,) = inputs
        yield 0, None, x.reshape(-1, x.shape[-1])

    def reference(self, ctx: Ctx | None, weights: Sequence[Any], *inputs: Tensor) -> tuple[Tensor, ...]:
        (x,) = inputs
        y = product(x, weights[0])
        if self.bias:
            y = y + weights[1].tensor.float()
        return (y.to(self.out_dtype or x.dtype),)


@op("embed")
@frozen
class Embed(Op):
    """Rows of the embedding matrix for the step's token ids: [T, O]. ``scale`` multiplies in the result's type."""

    features: int
    dtype: torch.dtype
    scale: float | None = None

    roles = ("weight",)
    reads = ("ids_T",)

    def outputs(self, weights: Sequence[Any], *inputs: Tensor) -> tuple[Meta, ...]:
        (ids_T,) = inputs
        return (((ids_T.shape[0], self.features), self.dtype),)

    def reference(self, ctx: Ctx | None, weights: Sequence[Any], *inputs: Tensor) -> tuple[Tensor, ...]:
        (ids_T,) = inputs
        x = weights[0].rows(ids_T).to(self.dtype)
        if self.scale is not None:
            # The factor is rounded to the type of the activations first, as the published models were trained.
            x = x * torch.tensor(self.scale, dtype=self.dtype, device=x.device)
        return (x,)


@op("take_rows")
@frozen
class TakeRows(Op):
    """The hidden states that go through the head: ``x[out_rows_L]``."""

    reads = ("out_rows_L",)

    def outputs(self, weights: Sequence[Any], *inputs: Tensor) -> tuple[Meta, ...]:
        x, rows_L = inputs
        return (((rows_L.shape[0], *x.shape[1:]), x.dtype),)

    def reference(self, ctx: Ctx | None, weights: Sequence[Any], *inputs: Tensor) -> tuple[Tensor, ...]:
        x, rows_L = inputs
        return (x[rows_L],)
