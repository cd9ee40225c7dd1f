# SPDX-License-Identifier: Apache-2.0
"""Matrix products and look-ups with stock torch."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from tramontane.backends.base import DenseStored
from tramontane.batch import Ctx
from tramontane.ops import Embed, Kernel, Linear, Op
from tramontane.ops.activations import spans

Product = Callable[[Tensor, Tensor], None]
"""``f(x_TI, out_TO)``."""


def matmul_into(weights: Sequence[Any], bias: bool) -> Product:
    """The product with the matrix, plus the bias if there is one."""
    matrix = weights[0]
    stored = matrix.storage()
    shift = weights[1].tensor if bias else None
    if not isinstance(stored, DenseStored):
        return _dequantizing(matrix, shift)
    if len(stored.pieces) == 1:
        return _dense(stored.weight, shift)
    sizes = [piece.shape[0] for piece in stored.pieces]
    shifts = [None] * len(sizes) if shift is None else shift.split(sizes)
    products = [_dense(piece, part) for piece, part in zip(stored.pieces, shifts, strict=True)]

    def run(x_TI: Tensor, out_TO: Tensor) -> None:
        for product, out in zip(products, out_TO.split(sizes, dim=-1), strict=True):
            product(x_TI, out)

    return run


def _dense(weight_OI: Tensor, shift_O: Tensor | None) -> Product:
    weight_IO = weight_OI.t()

    def run(x_TI: Tensor, out_TO: Tensor) -> None:
        if shift_O is None:
            torch.mm(x_TI, weight_IO, out=out_TO)
        else:
            torch.addmm(shift_O, x_TI, weight_IO, out=out_TO)

    return run


def _dequantizing(matrix: Any, shift_O: Tensor | None) -> Product:
    """Schemes without a stock kernel: the whole matrix is made floating point for each use."""
    rules = spans(matrix)

    def run(x_TI: Tensor, out_TO: Tensor) -> None:
        weight_OI = matrix.dequantize().to(x_TI.dtype)
        for span in rules:
            outputs = slice(span.first, span.last)
            shift = None if shift_O is None else shift_O[outputs]
            _dense(weight_OI[outputs], shift)(span.seen(x_TI), out_TO[:, outputs])

    return run


def linear(op: Op, weights: Sequence[Any]) -> Kernel | str:
    """One product; a result of another type (float32 logits) is converted afterwards."""
    if not isinstance(op, Linear):
        return f"made for linear, not {op.name}"
    product = matmul_into(weights, op.bias)

    def run(ctx: Ctx | None, inputs: Sequence[Tensor], outputs: Sequence[Tensor]) -> None:
        (x,), (out,) = inputs, outputs
        x_TI, out_TO = x.reshape(-1, x.shape[-1]), out.view(-1, out.shape[-1])
        if out.dtype is x.dtype:
            product(x_TI, out_TO)
            return
        made = torch.empty(out_TO.shape, dtype=x.dtype, device=x.device)
        product(x_TI, made)
        out_TO.copy_(made)

    return run


def embed(op: Op, weights: Sequence[Any]) -> Kernel | str:
    """Index into the matrix."""
    stored = weights[0].storage()
    if not isinstance(op, Embed) or not isinstance(stored, DenseStored):
        return "the embedding is not stored dense"
    weight, scale = stored.weight, op.scale
    factor = None if scale is None else torch.tensor(scale, dtype=op.dtype).item()

    def run(ctx: Ctx | None, inputs: Sequence[Tensor], outputs: Sequence[Tensor]) -> None:
        (ids_T,), (out,) = inputs, outputs
        torch.index_select(weight, 0, ids_T, out=out)
        if factor is not None:
            out.mul_(factor)

    return run if weight.dtype is op.dtype else "the embedding is stored in another type than the activations"


def take_rows(op: Op, weights: Sequence[Any]) -> Kernel | str:
    """Index into the hidden states."""

    def run(ctx: Ctx | None, inputs: Sequence[Tensor], outputs: Sequence[Tensor]) -> None:
        torch.index_select(inputs[0], 0, inputs[1], out=outputs[0])

    return run
