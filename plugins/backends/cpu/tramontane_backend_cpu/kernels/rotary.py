# SPDX-License-Identifier: Apache-2.0
"""Rotary embedding, alone and together with norms and the cache write.

Legend: P rotated pairs of features.
"""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from typing import Any

import torch

from tramontane.ops import RopeAngles, Rotate, RotateWrite
from tramontane_backend_cpu import abi
from tramontane_backend_cpu.kernel import Engine, NativeKernel
from tramontane_backend_cpu.kernels import checks
from tramontane_backend_cpu.kernels.attention import CacheView
from tramontane_backend_cpu.kernels.norm import norm_params
from tramontane_backend_cpu.operands import Operand


def rope_angles(op: RopeAngles, weights: Sequence[Any], engine: Engine) -> NativeKernel | str:
    """Rows of the table of cosines and sines: positions -> [T, 2P]."""
    table = weights[0].tensor
    if table.dtype is not torch.float32 or not table.is_contiguous():
        return "a table that is not contiguous float32"
    sections = None if op.sections is None else (ctypes.c_int64 * len(op.sections))(*op.sections)
    pointer = None if sections is None else ctypes.cast(sections, ctypes.POINTER(ctypes.c_int64))
    params = abi.RopeAngles(table.data_ptr(), op.pairs, pointer, len(op.sections or (0,)))

    def fit(operands: Sequence[Operand]) -> str | None:
        positions, y = operands
        if y.width != 2 * op.pairs:
            return f"rows of {y.width} elements for {op.pairs} pairs"
        return checks.is_type(positions, torch.int64) or checks.is_type(y, torch.float32)

    return NativeKernel(op, weights, engine, "rope_angles", params, fit, keep=(table, sections))


def rotate(op: Rotate, weights: Sequence[Any], engine: Engine) -> NativeKernel | str:
    """Queries and keys: (q, k, angles) -> (q, k)."""
    params = abi.Rotate(interleaved=op.interleaved)

    def fit(operands: Sequence[Operand]) -> str | None:
        q, k, angles, q_out, k_out = operands
        reason = _fit_heads(params, q, k, angles)
        if reason is not None or (q_out.inner, k_out.inner) != (q.inner, k.inner) or q_out.apart or k_out.apart:
            return reason or "heads change their shape"
        return checks.activations((q, k, q_out, k_out))

    return NativeKernel(op, weights, engine, "rotate", params, fit, heads_apart=True)


def rotate_write(op: RotateWrite, weights: Sequence[Any], engine: Engine) -> NativeKernel | str:
    """Norms of queries and keys if any, rotation, cache write: (q, k, v, angles) -> q."""
    cache = CacheView(weights[0])
    params = abi.RotateWrite(abi.Rotate(interleaved=op.rotate.interleaved))
    norms = [] if op.norm is None else [weight.tensor for weight in weights[1:]]
    for name, weight in zip(("q_norm", "k_norm"), norms, strict=False):
        made = norm_params(weight, op.norm.eps, late_cast=op.norm.late_cast) if op.norm is not None else ""
        if isinstance(made, str):
            return made
        setattr(params, name, made)

    def fit(operands: Sequence[Operand]) -> str | None:
        q, k, v, angles, q_out = operands
        reason = _fit_heads(params.rotate, q, k, angles) or cache.fit(params.cache, k, v)
        if reason is not None or q_out.inner != q.inner or q_out.apart or v.apart:
            return reason or "heads change their shape"
        if any(weight.numel() != q.inner[1] for weight in norms):
            return "norms over something else than a head"
        params.value_dim = v.inner[1]
        return checks.activations((q, k, v, q_out))

    return NativeKernel(op, weights, engine, "rotate_write", params, fit, keep=(cache, norms), heads_apart=True)


def _fit_heads(params: abi.Rotate, q: Operand, k: Operand, angles: Operand) -> str | None:
    """Number and width of the heads, as the operands show them."""
    if len(q.inner) != 2 or len(k.inner) != 2 or q.inner[1] != k.inner[1]:
        return f"queries {list(q.inner)} and keys {list(k.inner)} are not heads of one width"
    dim = q.inner[1]
    if dim > abi.MOST_DIM or angles.width > dim or angles.width % 2:
        return f"heads of {dim} features, {angles.width} of them rotated"
    params.heads, params.kv_heads, params.head_dim = q.inner[0], k.inner[0], dim
    params.q_apart, params.k_apart = q.head_stride, k.head_stride
    return checks.is_type(angles, torch.float32)
