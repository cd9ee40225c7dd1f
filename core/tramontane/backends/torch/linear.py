# SPDX-License-Identifier: Apache-2.0
"""Matrix products and look-ups with stock torch."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache
from typing import Any

import torch
from torch import Tensor

from tramontane.backends.base import DenseStored
from tramontane.batch import Ctx
from tramontane.ops import Embed, Kernel, Linear, Op
from tramontane.ops.activations import spans

Product = Callable[[Tensor, Tensor], None]
"""``f(x_TI, out_TO)``."""

WIDENED_TOKENS = 16
"""From so many tokens on, a processor without products of 16-bit floats widens the weights first: at 32 tokens by
3,072 x 1,024 of bfloat16 twice as fast on AVX2, at 256 six times, at 8 the same (``docs/performance/cpu.md``)."""
WIDENED_ELEMENTS = 2**19
"""Weights that are float32 at once, 2 MiB: what the products' second-level caches hold, and no matter for the peak."""


def matmul_into(weights: Sequence[Any], bias: bool) -> Product:
    """The product with the matrix, plus the bias if there is one."""
    matrix = weights[0]
    stored = matrix.storage()
    shift = weights[1].tensor if bias else None
    if not isinstance(stored, DenseStored):
        return _dequantizing(matrix, shift)
    sizes = [piece.shape[0] for piece in stored.pieces]
    shifts = [None] * len(sizes) if shift is None else shift.split(sizes)

    def run(x_TI: Tensor, out_TO: Tensor) -> None:
        for piece, part, out in zip(stored.pieces, shifts, out_TO.split(sizes, dim=-1), strict=True):
            multiply(x_TI, piece, part, out)

    return run


def multiply(x_TI: Tensor, weight_OI: Tensor, shift_O: Tensor | None, out_TO: Tensor) -> None:
    """``x W^T`` and the shift, into ``out_TO``."""
    if x_TI.shape[0] >= WIDENED_TOKENS and x_TI.device.type == "cpu" and not _multiplies(x_TI.dtype):
        _widened(x_TI, weight_OI, shift_O, out_TO)
    elif shift_O is None:
        torch.mm(x_TI, weight_OI.t(), out=out_TO)
    else:
        torch.addmm(shift_O, x_TI, weight_OI.t(), out=out_TO)


@cache
def _multiplies(dtype: torch.dtype) -> bool:
    """Whether stock torch has fast products of this type here: oneDNN answers for the types of 16 bits."""
    if dtype is torch.bfloat16:
        return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())
    return dtype is not torch.float16 or bool(torch.ops.mkldnn._is_mkldnn_fp16_supported())


def _widened(x_TI: Tensor, weight_OI: Tensor, shift_O: Tensor | None, out_TO: Tensor) -> None:
    """The product in float32, some outputs at a time."""
    x, step = x_TI.float(), max(1, WIDENED_ELEMENTS // weight_OI.shape[1])
    for first in range(0, weight_OI.shape[0], step):
        part = slice(first, first + step)
        weight_IO = weight_OI[part].float().t()
        out_TO[:, part] = x @ weight_IO if shift_O is None else torch.addmm(shift_O[part].float(), x, weight_IO)


def _dequantizing(matrix: Any, shift_O: Tensor | None) -> Product:
    """Schemes without a stock kernel: the whole matrix is made floating point for each use."""
    rules = spans(matrix)

    def run(x_TI: Tensor, out_TO: Tensor) -> None:
        weight_OI = matrix.dequantize().to(x_TI.dtype)
        for span in rules:
            outputs = slice(span.first, span.last)
            shift = None if shift_O is None else shift_O[outputs]
            multiply(span.seen(x_TI), weight_OI[outputs], shift, out_TO[:, outputs])

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
