# SPDX-License-Identifier: Apache-2.0
"""The matrix product of tiles."""

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
