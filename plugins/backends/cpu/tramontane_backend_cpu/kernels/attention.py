# SPDX-License-Identifier: Apache-2.0
"""The paged cache: writing to it and attending over it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from attrs import define, field
from torch import Tensor

from tramontane.cache.entries import entry_features
from tramontane.ops import Attend, CacheWrite
from tramontane.weights import CacheSlot
from tramontane_backend_cpu import abi
from tramontane_backend_cpu.kernel import Engine, NativeKernel
from tramontane_backend_cpu.kernels import checks
from tramontane_backend_cpu.operands import Operand


@define(eq=False)
class CacheView:
    """A layer's planes as ``tm_cache``. They exist only once memory is budgeted, after kernels are bound."""

    slot: CacheSlot
    _seen: tuple[Tensor, ...] = field(default=(), init=False)

    def fit(self, params: abi.Cache, keys: Operand, values: Operand) -> str | None:
        """Fill in where the planes lie, and hold them against what is to be written."""
        reason = self.locate(params)
        if reason is not None:
            return reason
        if len(self.slot.planes) != 2:
            return "a cache of one plane"
        key_plane, value_plane = self.slot.planes
        wanted = tuple(
            (plane.shape[2], entry_features(plane.shape[3], plane.dtype)) for plane in (key_plane, value_plane)
        )
        found = (keys.inner, values.inner)
        return None if found == wanted else f"keys and values {found} for a cache of {wanted}"

    @property
    def width(self) -> int:
        """Features of a key."""
        (plane, *_) = self.slot.planes
        return entry_features(plane.shape[3], plane.dtype)

    def locate(self, params: abi.Cache) -> str | None:
        """Fill in where the planes lie."""
        planes = self.slot.planes
        if planes is self._seen:
            return None
        if not 1 <= len(planes) <= 2:
            return f"a cache of {len(planes)} planes"
        if any(p.dtype not in abi.CACHE_DTYPES or p.dtype is not planes[0].dtype or p.stride(3) != 1 for p in planes):
            return f"a cache of {planes[0].dtype}"
        params.keys, params.values = _plane(planes[0]), _plane(planes[-1])  # a lone plane's values are part of its keys
        params.block_tokens, params.group = self.slot.block_tokens, self.slot.group
        params.dtype = abi.CACHE_DTYPES[planes[0].dtype]
        self._seen = planes
        return None


def _plane(plane: Tensor) -> abi.Plane:
    block, token, head, _ = (stride * plane.itemsize for stride in plane.stride())
    return abi.Plane(plane.data_ptr(), block, token, head)


def cache_write(op: CacheWrite, weights: Sequence[Any], engine: Engine) -> NativeKernel | str:
    """Keys and values to the step's slots."""
    cache, params = CacheView(weights[0]), abi.CacheWrite()

    def fit(operands: Sequence[Operand]) -> str | None:
        if len(operands) != 2:
            return "a cache of one plane"
        k, v = operands
        reason = cache.fit(params.cache, k, v)
        if reason is None:
            (params.kv_heads, params.key_dim), params.value_dim = k.inner, v.inner[1]
        return reason or checks.activations(operands)

    return NativeKernel(op, weights, engine, "cache_write", params, fit, keep=(cache,))


def attend(op: Attend, weights: Sequence[Any], engine: Engine) -> NativeKernel | str:
    """Attention over the layer's planes."""
    if op.heads % op.kv_heads or op.heads // op.kv_heads > 64:
        return f"{op.heads} query heads over {op.kv_heads} key/value heads"
    if max(op.head_dim, op.value_dim) > abi.MOST_DIM:
        return f"heads of {op.head_dim} and {op.value_dim} features"
    cache = CacheView(weights[0])
    sinks = weights[1].tensor.float().contiguous() if op.sinks else None
    params = abi.Attend(
        sinks=None if sinks is None else sinks.data_ptr(), heads=op.heads, kv_heads=op.kv_heads, head_dim=op.head_dim,
        value_dim=op.value_dim, window=op.window or 0, scale=op.scale, softcap=op.softcap or 0.0,
    )  # fmt: skip

    def fit(operands: Sequence[Operand]) -> str | None:
        q, y = operands
        if (q.width, y.width) != (op.heads * op.head_dim, op.heads * op.value_dim):
            return f"rows of {q.width} and {y.width} elements"
        return cache.locate(params.cache) or checks.activations(operands)

    return NativeKernel(op, weights, engine, "attend", params, fit, keep=(cache, sinks))
