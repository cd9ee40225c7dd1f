# SPDX-License-Identifier: Apache-2.0
"""Cache entries on the card: how kernels find, read and write one head's key or value of one token.

What an entry is, is said in :mod:`tramontane.cache.entries`; these are the same rules as device functions. 8-bit floats
are written by integer arithmetic, and read so where a card is older than the type.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from attrs import frozen
from torch import Tensor

from tramontane.cache.entries import SCALE_BYTES
from tramontane.weights import CacheSlot
from tramontane_backend_cuda.backend import interpreted


@frozen(eq=False)
class PlaneView:
    """A plane of the cache as kernels take it.

    Attributes:
        kind: ``raw``: numbers; ``fp8``: bytes of e4m3; ``int8``: codes, followed by their scale.
        data: [blocks, block tokens, heads, features].
        scale: The scales of ``int8`` entries, float32 [blocks, block tokens, heads]; ``data`` where there are none.
    """

    kind: str
    data: Tensor
    scale: Tensor

    @classmethod
    def of(cls, plane: Tensor) -> PlaneView:
        """The view of one plane."""
        if plane.dtype is torch.int8:
            features = plane.shape[-1] - SCALE_BYTES
            return cls("int8", plane[..., :features], plane.view(torch.float32)[..., features // SCALE_BYTES])
        if plane.dtype is torch.float8_e4m3fn:
            data = plane.view(torch.uint8)
            return cls("fp8", data, data)
        return cls("raw", plane, plane)

    @property
    def strides(self) -> tuple[int, int, int]:
        """Elements from block to block, token to token, head to head."""
        block, token, head, _ = self.data.stride()
        return block, token, head

    def part(self, first: int, last: int) -> PlaneView:
        """Some of the features; they share the entry's scale."""
        return PlaneView(self.kind, self.data[..., first:last], self.scale)


def unaligned(slot: CacheSlot) -> str | None:
    """Why kernels cannot read the entries of a layer; ``None`` if they can."""
    sizes = (slot.spec.head_dim, slot.spec.values)
    if slot.spec.dtype is torch.int8 and any(size % SCALE_BYTES for size in sizes):
        return f"entries of {sizes} 8-bit codes do not keep their scales aligned"
    return None


def native_fp8() -> bool:
    """The card converts 8-bit floats itself (from compute capability 8.9 on); the interpreter shows the other way."""
    if interpreted():
        return False
    return not torch.cuda.is_available() or torch.cuda.get_device_capability() >= (8, 9)


NATIVE: tl.constexpr = tl.constexpr(native_fp8())


@triton.jit
def e4m3_to_float(byte):
    """Bytes of e4m3 as float32: where the card cannot, by way of a float16 whose exponent is 8 too low."""
    if NATIVE:
        return byte.to(tl.float8e4nv, bitcast=True).to(tl.float16).to(tl.float32)
    wide = byte.to(tl.uint16)
    bits = ((wide & 128) << 8) | ((wide & 127) << 7)
    return bits.to(tl.float16, bitcast=True).to(tl.float32) * 256.0


@triton.jit
def nearest(x):
    """The nearest whole number, halves to even, for magnitudes below 2**22: what is added shifts the rest out."""
    return (x + 12582912.0) - 12582912.0


@triton.jit
def float_to_e4m3(x):
    """Float32 as bytes of e4m3: clamped to 448, rounded to the nearest, halves to even."""
    size = tl.minimum(tl.abs(x), 448.0)
    bits = size.to(tl.int32, bitcast=True)
    normal = ((bits + 0x7FFFF + ((bits >> 20) & 1)) >> 20) - (120 << 3)
    small = nearest(size * 512.0).to(tl.int32)  # below 2**-6 the codes count 2**-9
    code = tl.where(size < 0.015625, small, normal)
    return (code | tl.where(x < 0.0, 128, 0)).to(tl.uint8)


@triton.jit
def load_entry(at, inside, KIND: tl.constexpr, TO: tl.constexpr):
    """Features at the pointers ``at`` in the type ``TO``, zero where not ``inside``; ``int8`` without scales."""
    raw = tl.load(at, mask=inside, other=0)
    if KIND == "fp8":
        return e4m3_to_float(raw).to(TO)
    return raw.to(tl.float32).to(TO)


@triton.jit
def int8_scale(largest):
    """The scale of an entry whose largest magnitude is given."""
    return largest / 127.0


@triton.jit
def store_entry(at, x, inside, scale, KIND: tl.constexpr):
    """Write float32 features ``x``; ``scale``: of ``int8`` entries, broadcastable to ``x``."""
    if KIND == "fp8":
        tl.store(at, float_to_e4m3(x), mask=inside)
    elif KIND == "int8":
        divisor = tl.where(scale == 0.0, 1.0, scale)
        tl.store(at, nearest(x / divisor).to(tl.int8), mask=inside)
    else:
        tl.store(at, x.to(at.dtype.element_ty), mask=inside)
