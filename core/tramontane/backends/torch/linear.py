# SPDX-License-Identifier: Apache-2.0
"""Matrix products and look-ups with stock torch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from tramontane.backends.base import DenseStored
from tramontane.batch import Ctx
from tramontane.ops import Embed, Kernel, Linear, Op


def matmul_into(weights: Sequence[Any], bias: bool) -> Any:
    """``f(x_TI, out_TO)``: the product with the (bound) matrix, or a reason why not."""
    stored = weights[0].storage()
    if not isinstance(stored, DenseStored):
        return _dequantizing(weights, bias)
    weight_IO = stored.weight.t()
    shift = weights[1].tensor if bias else None

    def run(x_TI: Tensor, out_TO: Tensor) -> None:
        if shift is None:
            torch.mm(x_TI, weight_IO, out=out_TO)
        else:
            torch.addmm(shift, x_TI, weight_IO, out=out_TO)

    return run


def _dequantizing(weights: Sequence[Any], bias: bool) -> Any:
    """Schemes without a stock kernel: the whole matrix is made floating point for each use."""
    matrix = weights[0]
    shift = weights[1].tensor if bias else None

    def run(x_TI: Tensor, out_TO: Tensor) -> None:
        weight_IO = matrix.dequantize().to(x_TI.dtype).t()
        if shift is None:
            torch.mm(x_TI, weight_IO, out=out_TO)
        else:
            torch.addmm(shift, x_TI, weight_IO, out=out_TO)

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
