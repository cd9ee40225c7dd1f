# SPDX-License-Identifier: Apache-2.0
"""The matrix product of tiles, and how float32 numbers take part in it.

Tensor cores multiply 16-bit numbers. A float32 number is the sum of two of them within 2**-17 of itself in bfloat16, so
that two products stand for one whose other side is exact, and three for one of float32 on both sides. Where the 16-bit
type is float32 itself, products are those of float32.
"""

from __future__ import annotations

import triton
import triton.language as tl

from tramontane_backend_cuda.backend import interpreted

INTERPRETED: tl.constexpr = tl.constexpr(interpreted())


@triton.jit
def dot(a, b, total):
    """``total + a b``: products of the tiles' own type, sums in float32."""
    if INTERPRETED:  # the interpreter would multiply the bits of bfloat16 numbers
        a, b = a.to(tl.float32), b.to(tl.float32)
    return tl.dot(a, b, total, input_precision="ieee")


@triton.jit
def halves(x, kind: tl.constexpr):
    """Float32 numbers as two of ``kind``: what they are nearly, and what is missing."""
    high = x.to(kind)
    return high, (x - high.to(tl.float32)).to(kind)


@triton.jit
def dot_exact(a, x, total):
    """``total + a x`` for ``a`` of 16 bits and ``x`` of float32."""
    kind: tl.constexpr = a.dtype
    high, low = halves(x, kind)
    total = dot(a, high, total)
    if kind != tl.float32:
        total = dot(a, low, total)
    return total


@triton.jit
def dot_halves(high, low, x, total):
    """``total + (high + low) x`` for ``x`` of float32; of the four products the smallest is left out."""
    kind: tl.constexpr = high.dtype
    x_high, x_low = halves(x, kind)
    total = dot(high, x_high, total)
    if kind != tl.float32:
        total = dot(low, x_high, dot(high, x_low, total))
    return total
