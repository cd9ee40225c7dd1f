# SPDX-License-Identifier: Apache-2.0
"""Latent attention: each head's matrices are moved to its queries and its results.

Legend: H heads, N unrotated and P rotated features of a head, R rank of the latent, V value dimension.
"""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from typing import Any

import torch
from attrs import define, field
from torch import Tensor

from tramontane.ops import AttendLatent, LatentWrite
from tramontane_backend_cpu import abi
from tramontane_backend_cpu.kernel import Engine, NativeKernel
from tramontane_backend_cpu.kernels import checks
from tramontane_backend_cpu.kernels.attention import CacheView
from tramontane_backend_cpu.layouts.panels import PanelPart
from tramontane_backend_cpu.layouts.stacked import Shelf
from tramontane_backend_cpu.operands import Operand

_MOST_HEADS = 256
"""Queries of one token over one key head (``BLOCK_QUERIES`` of ``kernels/attend.h``)."""


@define(eq=False)
class _Heads:
    """One matrix [O, I] for each head, in panels."""

    parts: Sequence[PanelPart]
    matrices: Any = field(init=False)

    def __attrs_post_init__(self) -> None:
        self.matrices = (abi.Matrix * len(self.parts))(*(part.matrix for part in self.parts))

    @classmethod
    def of(cls, weight_HOI: Tensor) -> _Heads:
        """Pack a stack of matrices."""
        heads, outputs, inputs = weight_HOI.shape
        shelf = Shelf(heads)
        parts = [PanelPart.empty(weight_HOI.dtype, outputs, inputs, shelf) for _ in range(heads)]
        for part, weight in zip(parts, weight_HOI, strict=True):
            part.fill({"weight": weight.contiguous()})
        return cls(parts)

    @property
    def pointer(self) -> Any:
        """For the native side."""
        return ctypes.cast(self.matrices, ctypes.POINTER(abi.Matrix))


def latent_write(op: LatentWrite, weights: Sequence[Any], engine: Engine) -> NativeKernel | str:
    """Latent and rotated key, side by side, to the step's slots."""
    cache, params = CacheView(weights[0]), abi.LatentWrite()

    def fit(operands: Sequence[Operand]) -> str | None:
        latent, key = operands
        reason = cache.locate(params.cache)
        if reason is not None:
            return reason
        if latent.width + key.width != cache.width or cache.width > abi.MOST_DIM:
            return f"{latent.width} and {key.width} features for a cache of {cache.width}"
        return checks.activations(operands)

    return NativeKernel(op, weights, engine, "latent_write", params, fit, keep=(cache,))


def attend_latent(op: AttendLatent, weights: Sequence[Any], engine: Engine) -> NativeKernel | str:
    """Attention over the latents: (q [T, H, N], its rotated part [T, H, P]) -> [T, H * V]."""
    width = op.rank + op.rope_dim
    if op.heads > _MOST_HEADS or width > abi.MOST_DIM:
        return f"{op.heads} heads over latents of {width} features"
    weight = weights[1].dequantize()
    if weight.dtype not in (*abi.ACTIVATION_TYPES, torch.float16):
        return f"matrices of {weight.dtype}"
    up_HNR, values_HVR = op.split(weight)
    keys, values, cache = _Heads.of(up_HNR.mT), _Heads.of(values_HVR), CacheView(weights[0])
    attention = abi.Attend(heads=op.heads, kv_heads=1, head_dim=width, value_dim=op.rank, scale=op.scale)
    params = abi.AttendLatent(attention, keys.pointer, values.pointer)

    def fit(operands: Sequence[Operand]) -> str | None:
        q, turned, y = operands
        if (q.inner, turned.inner) != ((op.heads, op.nope_dim), (op.heads, op.rope_dim)):
            return f"queries {list(q.inner)} and {list(turned.inner)}"
        if y.width != op.heads * op.value_dim:
            return f"results of {y.width} features"
        params.q_apart, params.turned_apart = q.head_stride, turned.head_stride
        return cache.locate(params.attend.cache) or checks.activations(operands)

    return NativeKernel(op, weights, engine, "attend_latent", params, fit, keep=(cache, keys, values), heads_apart=True)
