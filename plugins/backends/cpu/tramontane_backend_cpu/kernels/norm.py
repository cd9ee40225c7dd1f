# SPDX-License-Identifier: Apache-2.0
"""Norms."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from tramontane.ops import AddRmsNorm, LayerNorm, RmsNorm
from tramontane_backend_cpu import abi
from tramontane_backend_cpu.kernel import Engine, Fit, NativeKernel
from tramontane_backend_cpu.kernels import checks
from tramontane_backend_cpu.operands import Operand


def norm_params(
    weight: Tensor | None, eps: float, *, late_cast: bool = False, bias: Tensor | None = None, apart: bool = False
) -> abi.Norm | str:
    """``tm_norm``; a norm without weight takes its width from the operands. ``apart``: weights may differ by head."""
    tensors = [tensor for tensor in (weight, bias) if tensor is not None]
    types = {tensor.dtype for tensor in tensors}
    if len(types) > 1 or not types <= set(abi.ACTIVATION_TYPES) or not all(t.is_contiguous() for t in tensors):
        return f"norm weights of {', '.join(map(str, types))}"
    if any(tensor.dim() > 1 for tensor in tensors) and not apart:
        return "its weights differ by head"
    made = abi.Norm(eps=eps, late_cast=late_cast)
    if weight is not None:
        made.apart = weight.dim() > 1
        made.weight, made.width, made.weight_dtype = weight.data_ptr(), weight.shape[-1], abi.DTYPES[weight.dtype]
    if bias is not None:
        made.bias = bias.data_ptr()
    return made


def _over(params: abi.Norm) -> Fit:
    """All operands alike, each row holding whole vectors."""

    def fit(operands: Sequence[Operand]) -> str | None:
        if not params.weight:
            params.width = operands[0].inner[-1]
        if operands[0].inner[-1] != params.width:
            return f"vectors of {operands[0].inner[-1]} elements for a norm over {params.width}"
        return checks.alike(operands)

    return fit


def rms_norm(op: RmsNorm, weights: Sequence[Any], engine: Engine) -> NativeKernel | str:
    """RMS norm, of whole rows or of each head in them."""
    weight = weights[0].tensor if op.scaled else None
    params = norm_params(weight, op.eps, late_cast=op.late_cast)
    if isinstance(params, str):
        return params
    return NativeKernel(op, weights, engine, "rms_norm", params, _over(params), keep=(weight,))


def add_rms_norm(op: AddRmsNorm, weights: Sequence[Any], engine: Engine) -> NativeKernel | str:
    """Sum, then RMS norm."""
    weight = weights[0].tensor
    params = norm_params(weight, op.eps, late_cast=op.late_cast)
    if isinstance(params, str):
        return params
    fit = checks.widths(*[weight.numel()] * 4)
    return NativeKernel(op, weights, engine, "add_rms_norm", params, fit, keep=(weight,))


def layer_norm(op: LayerNorm, weights: Sequence[Any], engine: Engine) -> NativeKernel | str:
    """Layer norm."""
    weight, bias = weights[0].tensor, weights[1].tensor if op.bias else None
    params, over = norm_params(weight, op.eps, bias=bias, apart=True), weight.shape
    if isinstance(params, str):
        return params
    alike = _over(params)

    def fit(operands: Sequence[Operand]) -> str | None:
        if params.apart and operands[0].inner != tuple(over):
            return f"rows of {list(operands[0].inner)} for norms over {list(over)}"
        return alike(operands)

    return NativeKernel(op, weights, engine, "layer_norm", params, fit, keep=(weight, bias))
