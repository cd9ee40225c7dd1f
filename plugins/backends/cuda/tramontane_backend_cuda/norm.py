# SPDX-License-Identifier: Apache-2.0
"""RMS norms and gates: one program per row. Legend: D features of a row."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from tramontane.batch import Ctx
from tramontane.ops import AddRmsNorm, GatedActivate, Kernel, Op, RmsNorm
from tramontane_backend_cuda.decode import FUNCTIONS, activation
from tramontane_backend_cuda.rows import rows_of

MAX_WIDTH = 16384
"""Features of a row that one program holds in registers."""


@triton.jit
def norm_row(
    x, residual, weight, y, total, width, x_stride, residual_stride, eps,
    ADD: tl.constexpr, SCALED: tl.constexpr, LATE: tl.constexpr, B: tl.constexpr,
):  # fmt: skip
    """One row: ``y = rms_norm(x (+ residual)) * weight``, and the sum where there is one."""
    row, i = tl.program_id(0).to(tl.int64), tl.arange(0, B)
    kind: tl.constexpr = y.dtype.element_ty
    value = tl.load(x + row * x_stride + i, mask=i < width, other=0.0).to(tl.float32)
    if ADD:  # the sum is rounded before it is normed
        value += tl.load(residual + row * residual_stride + i, mask=i < width, other=0.0).to(tl.float32)
        tl.store(total + row * width + i, value.to(kind), mask=i < width)
        value = value.to(kind).to(tl.float32)
    value = value / tl.sqrt(tl.sum(value * value) / width + eps)
    if SCALED:
        factor = tl.load(weight + i, mask=i < width, other=0.0).to(tl.float32)
        if not LATE:
            value = value.to(kind).to(tl.float32)
        value = value * factor
    tl.store(y + row * width + i, value.to(kind), mask=i < width)


@triton.jit
def gate_row(x, y, half, x_stride, ACT: tl.constexpr, B: tl.constexpr):
    """``act(gate) * up`` of B features of one row [gate, up]."""
    row, i = tl.program_id(0).to(tl.int64), tl.program_id(1) * B + tl.arange(0, B)
    kind: tl.constexpr = y.dtype.element_ty
    gate = tl.load(x + row * x_stride + i, mask=i < half, other=0.0).to(tl.float32)
    up = tl.load(x + row * x_stride + half + i, mask=i < half, other=0.0).to(tl.float32)
    tl.store(y + row * half + i, (activation(gate, ACT).to(kind).to(tl.float32) * up).to(kind), mask=i < half)


def norm_rows(x: Tensor, weight: Tensor, eps: float, *, late: bool) -> Tensor:
    """``rms_norm`` of rows [M, D]."""
    y = torch.empty_like(x, memory_format=torch.contiguous_format)
    norm_row[(x.shape[0],)](
        x, x, weight, y, y, x.shape[1], x.stride(0), x.stride(0), eps,
        ADD=False, SCALED=True, LATE=late, B=triton.next_power_of_2(x.shape[1]),
    )  # fmt: skip
    return y


def gate_rows(x: Tensor, y: Tensor, act: str) -> None:
    """``act(gate) * up`` of rows [M, 2F], by a name of the kernels' functions."""
    rows, half = x.shape[0], x.shape[1] // 2
    gate_row[(rows, triton.cdiv(half, 1024))](
        x, y, half, x.stride(0), ACT=act, B=min(1024, triton.next_power_of_2(half))
    )


def norm(op: Op, weights: Sequence[Any]) -> Kernel | str:
    """``rms_norm`` and ``add_rms_norm``."""
    if not isinstance(op, RmsNorm | AddRmsNorm):
        return f"made for RMS norms, not {op.name}"
    adds = isinstance(op, AddRmsNorm)
    weight = weights[0].tensor if adds or op.scaled else None
    if weight is not None and weight.dim() != 1:
        return "its weights differ by head"
    if weight is not None and weight.numel() > MAX_WIDTH:
        return f"rows of {weight.numel()} features do not fit a program ({MAX_WIDTH})"
    eps, late = op.eps, op.late_cast

    def run(ctx: Ctx | None, inputs: Sequence[Tensor], outputs: Sequence[Tensor]) -> None:
        x, residual = rows_of(inputs[0]), rows_of(inputs[-1])
        rows, width = x.shape
        norm_row[(rows,)](
            x, residual, x if weight is None else weight, outputs[0], outputs[-1], width, x.stride(0),
            residual.stride(0), eps,
            ADD=adds, SCALED=weight is not None, LATE=late, B=triton.next_power_of_2(width),
        )  # fmt: skip

    return run


def gated_activate(op: Op, weights: Sequence[Any]) -> Kernel | str:
    """``act(gate) * up``."""
    if not isinstance(op, GatedActivate):
        return f"made for gated_activate, not {op.name}"
    act = FUNCTIONS[op.act]

    def run(ctx: Ctx | None, inputs: Sequence[Tensor], outputs: Sequence[Tensor]) -> None:
        gate_rows(rows_of(inputs[0]), outputs[0], act)

    return run
