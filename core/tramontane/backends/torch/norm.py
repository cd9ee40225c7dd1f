# SPDX-License-Identifier: Apache-2.0
"""Norms with stock torch: float32 in the middle, one rounding at the end."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from tramontane.batch import Ctx
from tramontane.ops import AddRmsNorm, Kernel, LayerNorm, Op, RmsNorm


def rms_into(op: RmsNorm | AddRmsNorm, weight: Tensor | None) -> Any:
    """``f(x, out)``."""
    eps, late = op.eps, op.late_cast
    wide_weight = None if weight is None else weight.float() if late else weight

    def run(x: Tensor, out: Tensor) -> None:
        wide = x.float()
        scale = torch.linalg.vector_norm(wide, dim=-1, keepdim=True).square_().div_(x.shape[-1]).add_(eps).rsqrt_()
        if wide_weight is None:
            torch.mul(wide, scale, out=out) if out.dtype is torch.float32 else out.copy_(wide * scale)
        elif out.dtype is torch.float32:
            torch.mul(wide, scale, out=out).mul_(wide_weight)
        elif late:
            out.copy_((wide * scale).mul_(wide_weight))
        else:
            out.copy_(wide * scale).mul_(wide_weight)

    return run


def rms_norm(op: Op, weights: Sequence[Any]) -> Kernel | str:
    """RMS norm over the last axis."""
    if not isinstance(op, RmsNorm):
        return f"made for rms_norm, not {op.name}"
    norm = rms_into(op, weights[0].tensor if op.scaled else None)

    def run(ctx: Ctx | None, inputs: Sequence[Tensor], outputs: Sequence[Tensor]) -> None:
        norm(inputs[0], outputs[0])

    return run


def add_rms_norm(op: Op, weights: Sequence[Any]) -> Kernel | str:
    """Add, then norm."""
    if not isinstance(op, AddRmsNorm):
        return f"made for add_rms_norm, not {op.name}"
    norm = rms_into(op, weights[0].tensor)

    def run(ctx: Ctx | None, inputs: Sequence[Tensor], outputs: Sequence[Tensor]) -> None:
        torch.add(inputs[0], inputs[1], out=outputs[1])
        norm(outputs[1], outputs[0])

    return run


def layer_norm(op: Op, weights: Sequence[Any]) -> Kernel | str:
    """Layer norm over the last axis."""
    if not isinstance(op, LayerNorm):
        return f"made for layer_norm, not {op.name}"
    eps, weight, bias = op.eps, weights[0].tensor.float(), weights[1].tensor.float() if op.bias else None
    if weight.dim() > 1:
        return "its weights differ by head"

    def run(ctx: Ctx | None, inputs: Sequence[Tensor], outputs: Sequence[Tensor]) -> None:
        outputs[0].copy_(F.layer_norm(inputs[0].float(), weight.shape, weight, bias, eps))

    return run
