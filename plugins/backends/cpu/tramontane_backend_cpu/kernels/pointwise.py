# SPDX-License-Identifier: Apache-2.0
"""Elementwise ops."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tramontane.ops import Activate, Add, GatedActivate, Multiply, Scale, Softcap
from tramontane.tape.ir import Size
from tramontane_backend_cpu import abi
from tramontane_backend_cpu.kernel import Engine, NativeKernel
from tramontane_backend_cpu.kernels import checks
from tramontane_backend_cpu.operands import Operand


def activate(op: Activate, weights: Sequence[Any], engine: Engine) -> NativeKernel | str:
    """``act(x)``."""
    if op.act not in abi.ACTIVATIONS:
        return f"no native {op.act}"
    return NativeKernel(op, weights, engine, "activate", abi.Pointwise(abi.ACTIVATIONS[op.act]), checks.alike)


def gated_activate(op: GatedActivate, weights: Sequence[Any], engine: Engine) -> NativeKernel | str:
    """``act(gate) * up``."""
    if op.act not in abi.ACTIVATIONS:
        return f"no native {op.act}"

    def fit(operands: Sequence[Operand]) -> str | None:
        x, y = operands
        if x.rows != y.rows or x.width != 2 * y.width:
            return "gate and up do not lie side by side in rows"
        return checks.activations(operands)

    return NativeKernel(op, weights, engine, "gated_activate", abi.Pointwise(abi.ACTIVATIONS[op.act]), fit)


def add(op: Add, weights: Sequence[Any], engine: Engine) -> NativeKernel | str:
    """``x + y``."""
    return NativeKernel(op, weights, engine, "add", None, checks.alike)


def multiply(op: Multiply, weights: Sequence[Any], engine: Engine) -> NativeKernel | str:
    """``x * y`` where y is like x, one row for all, or one number for each row."""

    def fit(operands: Sequence[Operand]) -> str | None:
        x, y, out = operands
        if y.rows not in (x.rows, Size(constant=1)) or y.width not in (x.width, 1):
            return "factors that are neither alike, nor a row, nor a column"
        return checks.alike((x, out)) or checks.activations(operands)

    return NativeKernel(op, weights, engine, "multiply", None, fit)


def scale(op: Scale, weights: Sequence[Any], engine: Engine) -> NativeKernel | str:
    """``x * factor``."""
    return NativeKernel(op, weights, engine, "scale", abi.Pointwise(value=op.factor), checks.alike)


def softcap(op: Softcap, weights: Sequence[Any], engine: Engine) -> NativeKernel | str:
    """``cap * tanh(x / cap)``."""
    return NativeKernel(op, weights, engine, "softcap", abi.Pointwise(value=op.cap), checks.alike)
