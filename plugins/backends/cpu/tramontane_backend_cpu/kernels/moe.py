# SPDX-License-Identifier: Apache-2.0
"""Routing and experts."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from tramontane.ops import ClampedSwiglu, Experts, GatedActivate, Router
from tramontane.ops.pointwise import Gate
from tramontane_backend_cpu import abi
from tramontane_backend_cpu.kernel import Engine, NativeKernel
from tramontane_backend_cpu.kernels import checks
from tramontane_backend_cpu.layouts import NativeStored, StackedStored
from tramontane_backend_cpu.layouts.panels import PanelPart
from tramontane_backend_cpu.operands import Operand


def router(op: Router, weights: Sequence[Any], engine: Engine) -> NativeKernel | str:
    """Logits in float32, then each token's choice: x -> (weights, ids)."""
    part, vectors = _panels(weights[0]), [one.tensor.float().contiguous() for one in weights[1:]]
    experts, inputs = part.matrix.outputs, part.matrix.inputs
    best = 1 if op.group_score == "best" else 2
    if op.top_k > experts or experts % op.groups or (op.groups > 1 and experts // op.groups < best):
        return f"{op.top_k} of {experts} experts in {op.groups} groups"
    params = abi.Router(
        part.matrix, vectors[0].data_ptr() if op.bias else None, vectors[-1].data_ptr() if op.correction else None,
        op.top_k, op.groups, op.top_groups, best, op.scale, op.jitter, abi.SCORINGS[op.scoring], op.normalize,
    )  # fmt: skip

    def fit(operands: Sequence[Operand]) -> str | None:
        x, chosen, ids = operands
        if (x.width, chosen.width, ids.width) != (inputs, op.top_k, op.top_k) or not x.rows == chosen.rows == ids.rows:
            widths = f"{x.width}, {chosen.width} and {ids.width}"
            return f"rows of {widths} elements for {inputs} inputs and {op.top_k} experts"
        wrong = checks.is_type(chosen, torch.float32) or checks.is_type(ids, torch.int32)
        return wrong or checks.activations((x,))

    return NativeKernel(op, weights, engine, "router", params, fit, keep=(part, vectors))


def _panels(matrix: Any) -> PanelPart:
    """The matrix in panels: as it is stored, or float32 ones made of it."""
    stored = matrix.storage()
    if isinstance(stored, NativeStored) and len(stored.parts) == 1 and isinstance(stored.parts[0], PanelPart):
        return stored.parts[0]
    made = PanelPart.empty(torch.float32, *matrix.shape)
    made.fill({"weight": matrix.dequantize().float()})
    return made


def experts(op: Experts, weights: Sequence[Any], engine: Engine) -> NativeKernel | str:
    """Every token through its experts: (x, weights, ids) -> y."""
    gate_up, down = (one.storage() for one in weights[:2])
    if not isinstance(gate_up, StackedStored) or not isinstance(down, StackedStored):
        return f"the weights are stored {gate_up.layout} and {down.layout}"
    features = down.inputs
    if gate_up.outputs not in ([2 * features], [features, features]) or len(down.stacks) != 1:
        return f"parts of {gate_up.outputs} and {down.outputs} outputs around {features} features"
    gate = _gate(op.gate)
    if isinstance(gate, str):
        return gate
    shifts = [one.tensor for one in weights[2:]] if op.bias else []
    if any(one.dtype not in abi.ACTIVATION_TYPES or not one.is_contiguous() for one in shifts):
        return f"biases of {', '.join(str(one.dtype) for one in shifts)}"
    params = abi.Experts(
        _matrices(gate_up), _matrices(down),
        *_pointers(shifts), down.experts, len(gate_up.stacks), abi.DTYPES[shifts[0].dtype] if shifts else 0, *gate,
    )  # fmt: skip
    widths = (gate_up.inputs, down.outputs[0])

    def fit(operands: Sequence[Operand]) -> str | None:
        x, chosen, ids, y = operands
        if (x.width, y.width) != widths or chosen.width != ids.width or len({one.rows for one in operands}) > 1:
            return f"rows of {x.width} and {y.width} elements for experts from {widths[0]} to {widths[1]}"
        wrong = checks.is_type(chosen, torch.float32) or checks.is_type(ids, torch.int32)
        return wrong or checks.activations((x, y))

    return NativeKernel(op, weights, engine, "experts", params, fit, keep=(gate_up, down, shifts))


def _matrices(stored: StackedStored) -> Any:
    return ctypes.cast(stored.matrices, ctypes.POINTER(abi.Matrix))


def _gate(gate: Gate) -> tuple[int, float, float] | str:
    """Number, alpha and limit."""
    if isinstance(gate, ClampedSwiglu):
        return abi.CLAMPED_SWIGLU, gate.alpha, gate.limit
    if isinstance(gate, GatedActivate) and gate.act in abi.ACTIVATIONS:
        return abi.ACTIVATIONS[gate.act], 0.0, 0.0
    return f"no native {gate}"


def _pointers(shifts: Sequence[Tensor]) -> tuple[int | None, int | None]:
    return (shifts[0].data_ptr(), shifts[1].data_ptr()) if shifts else (None, None)
