# SPDX-License-Identifier: Apache-2.0
"""Products with weights, and look-ups in them."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from typing import Any

import torch

from tramontane.backends.base import DenseStored
from tramontane.ops import Embed, GatedActivate, Linear, LinearGated, TakeRows
from tramontane_backend_cpu import abi
from tramontane_backend_cpu.kernel import Engine, NativeKernel
from tramontane_backend_cpu.kernels import checks
from tramontane_backend_cpu.layouts import NativeStored
from tramontane_backend_cpu.operands import Operand

_PANEL = 16


def linear(op: Linear, weights: Sequence[Any], engine: Engine) -> NativeKernel | str:
    """``x W^T + b``."""
    return _product(op, op, weights, engine, gate=None)


def linear_gated(op: LinearGated, weights: Sequence[Any], engine: Engine) -> NativeKernel | str:
    """``act(a) * b`` of the two halves of ``x W^T + b``."""
    if not isinstance(op.gate, GatedActivate) or op.gate.act not in abi.ACTIVATIONS:
        return f"no native {op.gate}"
    if op.linear.out_dtype is not None:
        return "made for a linear that keeps its input's type"
    return _product(op, op.linear, weights, engine, gate=op.gate.act)


def _product(
    op: Linear | LinearGated, inner: Linear, weights: Sequence[Any], engine: Engine, *, gate: str | None
) -> NativeKernel | str:
    stored = weights[0].storage()
    if not isinstance(stored, NativeStored):
        return f"the weights are stored {stored.layout}"
    if len(stored.parts) > abi.MOST_PARTS:
        return f"{len(stored.parts)} parts"
    sizes = [part.matrix.outputs for part in stored.parts]
    if gate is not None and not _halves(sizes):
        return f"parts of {sizes} outputs do not make two halves"
    bias = weights[1].tensor if inner.bias else None
    if bias is not None and (bias.dtype not in abi.ACTIVATION_TYPES or not bias.is_contiguous()):
        return f"a bias of {bias.dtype}"
    params = abi.Linear(
        ctypes.cast(stored.matrices, ctypes.POINTER(abi.Matrix)), None if bias is None else bias.data_ptr(), len(sizes),
        0 if bias is None else abi.DTYPES[bias.dtype], 0 if gate is None else abi.ACTIVATIONS[gate],
    )  # fmt: skip
    inputs, outputs = stored.parts[0].matrix.inputs, sum(sizes) if gate is None else sum(sizes) // 2

    def fit(operands: Sequence[Operand]) -> str | None:
        x, y = operands
        if (x.width, y.width, x.rows) != (inputs, outputs, y.rows):
            return f"rows of {x.width} and {y.width} elements for {inputs} inputs and {outputs} outputs"
        return checks.activations((x,)) or checks.activations((y,))

    return NativeKernel(op, weights, engine, "linear", params, fit, keep=(stored, bias))


def _halves(sizes: Sequence[int]) -> bool:
    """Gate and up are whole panels apart: the halves of one matrix, or as many parts each."""
    if len(sizes) == 1:
        return sizes[0] % (2 * _PANEL) == 0
    half = len(sizes) // 2
    return len(sizes) % 2 == 0 and list(sizes[:half]) == list(sizes[half:])


def embed(op: Embed, weights: Sequence[Any], engine: Engine) -> NativeKernel | str:
    """Rows by token id, from the storage of the products or from plain rows."""
    stored = weights[0].storage()
    matrix = _lookup(stored)
    if isinstance(matrix, str):
        return matrix
    # The factor is rounded to the type of the activations first, as the published models were trained.
    factor = 1.0 if op.scale is None else torch.tensor(op.scale, dtype=op.dtype).item()
    params = abi.Embed(matrix, factor)

    def fit(operands: Sequence[Operand]) -> str | None:
        ids, y = operands
        if y.width != matrix.inputs or ids.width != 1:
            return f"rows of {y.width} elements from a table of {matrix.inputs}"
        return checks.is_type(ids, torch.int64) or checks.activations((y,))

    return NativeKernel(op, weights, engine, "embed", params, fit, keep=(stored,))


def _lookup(stored: Any) -> abi.Matrix | str:
    if isinstance(stored, NativeStored) and len(stored.parts) == 1:
        return stored.parts[0].matrix
    if not isinstance(stored, DenseStored):
        return f"the embedding is stored {stored.layout}"
    weight = stored.weight
    if weight.dim() != 2 or weight.dtype not in abi.DTYPES or not weight.is_contiguous():
        return f"an embedding of {weight.dtype}"
    return abi.Matrix(
        data=weight.data_ptr(), outputs=weight.shape[0], inputs=weight.shape[1], layout=abi.Layout.ROW_MAJOR,
        dtype=abi.DTYPES[weight.dtype],
    )  # fmt: skip


def take_rows(op: TakeRows, weights: Sequence[Any], engine: Engine) -> NativeKernel | str:
    """Rows by number."""

    def fit(operands: Sequence[Operand]) -> str | None:
        x, rows, y = operands
        if x.width != y.width or rows.width != 1:
            return "rows of different widths"
        return checks.is_type(rows, torch.int64) or checks.activations((x, y))

    return NativeKernel(op, weights, engine, "take_rows", None, fit)
