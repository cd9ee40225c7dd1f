# SPDX-License-Identifier: Apache-2.0
"""The kernels of products with few tokens: one family, whose formats are compile-time rules.

A program owns BN outputs and one of the equal ranges of the inputs ("splits"). With one split it writes the result;
with several it writes a float32 partial sum, and ``finish`` adds these in order, so that a product gives the same bits
each time. Up to four tokens the product is a sum over a tile on ordinary units; above, tensor cores.

Legend: M tokens, O outputs, I inputs, S splits.
"""

from __future__ import annotations

import triton
import triton.language as tl

from tramontane_backend_cuda.decode import activation, codes_pair, codes_whole, scaled


@triton.jit
def _add_product(total, x, w, BM: tl.constexpr):
    """``total [BM, BN] += x [BM, BK] w [BN, BK]^T``."""
    if BM >= 16:
        return tl.dot(x, tl.trans(w).to(x.dtype), total, input_precision="ieee")
    return total + tl.sum(x.to(tl.float32)[:, None, :] * w[None, :, :], axis=2)


@triton.jit
def product(
    x, codes, high, scale, zero, factor, low_factor, bias, y,
    tokens, inputs, outputs, x_stride, y_stride, groups, supers, reach,
    CODES: tl.constexpr, RULE: tl.constexpr, GROUP: tl.constexpr, ROWS: tl.constexpr, MIDDLE: tl.constexpr,
    LOW: tl.constexpr, PAIRS: tl.constexpr, BIAS: tl.constexpr, PARTIAL: tl.constexpr,
    BM: tl.constexpr, BN: tl.constexpr, BK: tl.constexpr,
):  # fmt: skip
    """``y = x W^T (+ bias)``, or partial sums [S, M, O] of it. ``reach``: codes or pairs of a split."""
    split = tl.program_id(1)
    m = tl.arange(0, BM)[:, None]
    n = tl.program_id(0) * BN + tl.arange(0, BN)[:, None]
    total = tl.zeros((BM, BN), tl.float32)
    if PAIRS:
        for start in range(split * reach, tl.minimum((split + 1) * reach, (inputs + 1) // 2), BK):
            pair = start + tl.arange(0, BK)[None, :]
            k = pair * 2
            inside = (n < outputs) & (k < inputs)
            first, second = codes_pair(codes, high, n, pair, inputs, inside, CODES)
            w = scaled(
                first, scale, zero, factor, low_factor, n, k, inside, groups, supers, RULE, GROUP, ROWS, MIDDLE, LOW
            )
            at = x + m * x_stride + k
            total = _add_product(total, tl.load(at, mask=(m < tokens) & (k < inputs), other=0.0), w, BM)
            inside = (n < outputs) & (k + 1 < inputs)
            w = scaled(
                second, scale, zero, factor, low_factor, n, k, inside, groups, supers, RULE, GROUP, ROWS, MIDDLE, LOW
            )
            total = _add_product(total, tl.load(at + 1, mask=(m < tokens) & (k + 1 < inputs), other=0.0), w, BM)
    else:
        for start in range(split * reach, tl.minimum((split + 1) * reach, inputs), BK):
            k = start + tl.arange(0, BK)[None, :]
            inside = (n < outputs) & (k < inputs)
            w = codes_whole(codes, n, k, inputs, inside, CODES)
            if RULE != "none":
                w = scaled(
                    w, scale, zero, factor, low_factor, n, k, inside, groups, supers, RULE, GROUP, ROWS, MIDDLE, LOW
                )
            part = tl.load(x + m * x_stride + k, mask=(m < tokens) & (k < inputs), other=0.0)
            total = _add_product(total, part, w, BM)
    o = tl.program_id(0) * BN + tl.arange(0, BN)[None, :]
    kept = (m < tokens) & (o < outputs)
    if PARTIAL:
        tl.store(y + (split * tokens + m) * outputs + o, total, mask=kept)
    else:
        if BIAS:
            total += tl.load(bias + o, mask=o < outputs, other=0.0).to(tl.float32)
        tl.store(y + m * y_stride + o, total.to(y.dtype.element_ty), mask=kept)


@triton.jit
def finish(
    parts, bias, y, tokens, outputs, y_stride, splits, half,
    BIAS: tl.constexpr, GATE: tl.constexpr, BN: tl.constexpr,
):  # fmt: skip
    """Add partial sums [S, M, O] in order; with ``GATE`` the first half of the outputs gates the other."""
    m, o = tl.program_id(0), tl.program_id(1) * BN + tl.arange(0, BN)
    width = outputs
    if GATE != "":
        width = half
    value = tl.zeros((BN,), tl.float32)
    other = tl.zeros((BN,), tl.float32)
    for split in range(splits):
        at = parts + (split * tokens + m) * outputs + o
        value += tl.load(at, mask=o < width, other=0.0)
        if GATE != "":
            other += tl.load(at + half, mask=o < width, other=0.0)
    if BIAS:
        value += tl.load(bias + o, mask=o < width, other=0.0).to(tl.float32)
        if GATE != "":
            other += tl.load(bias + half + o, mask=o < width, other=0.0).to(tl.float32)
    kind: tl.constexpr = y.dtype.element_ty
    if GATE != "":  # rounded where the sequence of ops rounds
        value = activation(value.to(kind).to(tl.float32), GATE).to(kind).to(tl.float32) * other.to(kind).to(tl.float32)
    tl.store(y + m * y_stride + o, value.to(kind), mask=o < width)


@triton.jit
def expand(
    codes, high, scale, zero, factor, low_factor, y, inputs, outputs, groups, supers,
    CODES: tl.constexpr, RULE: tl.constexpr, GROUP: tl.constexpr, ROWS: tl.constexpr, MIDDLE: tl.constexpr,
    LOW: tl.constexpr, PAIRS: tl.constexpr, BN: tl.constexpr, BK: tl.constexpr,
):  # fmt: skip
    """The weight itself, [O, I] in the type of ``y``."""
    n = tl.program_id(0) * BN + tl.arange(0, BN)[:, None]
    k = tl.program_id(1) * BK + tl.arange(0, BK)[None, :]
    kind: tl.constexpr = y.dtype.element_ty
    if PAIRS:
        pair = k
        k = pair * 2
        inside = (n < outputs) & (k < inputs)
        first, second = codes_pair(codes, high, n, pair, inputs, inside, CODES)
        at = y + n.to(tl.int64) * inputs + k
        w = scaled(first, scale, zero, factor, low_factor, n, k, inside, groups, supers, RULE, GROUP, ROWS, MIDDLE, LOW)
        tl.store(at, w.to(kind), mask=inside)
        inside = (n < outputs) & (k + 1 < inputs)
        w = scaled(
            second, scale, zero, factor, low_factor, n, k, inside, groups, supers, RULE, GROUP, ROWS, MIDDLE, LOW
        )
        tl.store(at + 1, w.to(kind), mask=inside)
    else:
        inside = (n < outputs) & (k < inputs)
        w = codes_whole(codes, n, k, inputs, inside, CODES)
        w = scaled(w, scale, zero, factor, low_factor, n, k, inside, groups, supers, RULE, GROUP, ROWS, MIDDLE, LOW)
        tl.store(y + n.to(tl.int64) * inputs + k, w.to(kind), mask=inside)
