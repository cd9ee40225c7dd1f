# SPDX-License-Identifier: Apache-2.0
"""The kernels of products with few tokens: one family, whose formats are compile-time rules.

A program owns BN outputs and one of the equal ranges of the inputs ("splits"). With one split it writes the result;
with several it writes a float32 partial sum, and ``finish`` adds these in order, so that a product gives the same bits
each time. For one token the product is a sum in each thread on ordinary units; for more, tensor cores.

A norm before the product needs no launch of its own: the rows are multiplied by the norm's weights as they are read,
the program adds up their squares beside, and the result is divided by their root. After the product come the bias, the
gate (the program then owns BN outputs of the gate and the same BN of the other half) and the residual.

Legend: M tokens, O outputs, I inputs, S splits.
"""

from __future__ import annotations

import triton
import triton.language as tl

from tramontane_backend_cuda.decode import activation, code_values, group_scales, read_chunks
from tramontane_backend_cuda.dot import dot


@triton.jit
def accumulate(
    x, rows, x_inside, codes, high, scale, zero, factor, low_factor, table, norm, n, n_inside,
    inputs, chunks, groups, supers, first, last,
    CODES: tl.constexpr, TABLE: tl.constexpr, LOW: tl.constexpr, HIGH: tl.constexpr, LANES: tl.constexpr,
    SCALE: tl.constexpr, ZERO: tl.constexpr, GROUP: tl.constexpr, ROWS: tl.constexpr, MIDDLE: tl.constexpr,
    SUPERS: tl.constexpr, NORM: tl.constexpr, BM: tl.constexpr, BN: tl.constexpr, BG: tl.constexpr,
):  # fmt: skip
    """``x W^T`` over the chunks ``first <= c < last``: [BM, BN], and the sums of squares of the rows of x: [BM].
    ``rows``: where the rows of x begin [BM]; a single one begins at ``x``. ``n``: rows of the planes [BN, 1]."""
    SPLIT: tl.constexpr = 8 // LOW if LOW < 8 else 1
    lane, f = tl.arange(0, LANES)[None, None, :], tl.arange(0, BG * LANES)[None, :]
    kind: tl.constexpr = x.dtype.element_ty
    squares = tl.zeros((BM,), tl.float32)
    if BM == 1:
        sums = tl.zeros((BN, BG), tl.float32)
    else:
        total = tl.zeros((BM, BN), tl.float32)
    for start in range(first, last, BG):
        c = start + tl.arange(0, BG)[None, :]
        inside = n_inside & (c < last)
        raw, upper = read_chunks(codes, high, n, c, chunks, inside, LOW, HIGH, LANES)
        for j in tl.static_range(SPLIT):
            value = code_values(raw, upper, table, j, CODES, TABLE, LOW, HIGH, LANES)
            k = (c * SPLIT + j) * LANES
            if SCALE != "none":
                each, shift = group_scales(
                    scale, zero, factor, low_factor, n, k, inside & (k < inputs), groups, supers,
                    SCALE, ZERO, GROUP, ROWS, MIDDLE, SUPERS,
                )  # fmt: skip
            if BM == 1:
                at = k[:, :, None] + lane
                there = (at < inputs) & (c < last)[:, :, None]
                some = tl.load(x + at, mask=there, other=0.0).to(tl.float32)
                if NORM:
                    squares += tl.sum(tl.sum(tl.sum(some * some, axis=2), axis=1), axis=0)
                    some = some * tl.load(norm + at, mask=at < inputs, other=0.0).to(tl.float32)
                part = tl.sum(value * some, axis=2)
                if SCALE == "none":
                    sums += part
                else:
                    sums += part * each
                    if ZERO != "none":
                        sums += tl.sum(some, axis=2) * shift
            else:
                at = ((start + f // LANES) * SPLIT + j) * LANES + f % LANES
                there = x_inside[:, None] & (at < inputs) & (start + f // LANES < last)
                some = tl.load(x + rows[:, None] + at, mask=there, other=0.0)
                if NORM:
                    wide = some.to(tl.float32)
                    squares += tl.sum(wide * wide, axis=1)
                    some = (wide * tl.load(norm + at, mask=at < inputs, other=0.0).to(tl.float32)).to(kind)
                if SCALE != "none":
                    value = value * each[:, :, None]
                    if ZERO != "none":
                        value = value + shift[:, :, None]
                w = tl.reshape(value, (BN, BG * LANES)).to(kind)
                total = dot(some, tl.trans(w), total)
    if BM == 1:
        total = tl.sum(sums, axis=1)[None, :]
    return total, squares


@triton.jit
def product(
    x, codes, high, scale, zero, factor, low_factor, table, norm, bias, residual, y, squares_out,
    tokens, inputs, outputs, chunks, groups, supers, reach, half, eps, x_stride, residual_stride, y_stride,
    CODES: tl.constexpr, TABLE: tl.constexpr, LOW: tl.constexpr, HIGH: tl.constexpr, LANES: tl.constexpr,
    SCALE: tl.constexpr, ZERO: tl.constexpr, GROUP: tl.constexpr, ROWS: tl.constexpr, MIDDLE: tl.constexpr,
    SUPERS: tl.constexpr, NORM: tl.constexpr, BIAS: tl.constexpr, GATE: tl.constexpr, RESIDUAL: tl.constexpr,
    PARTIAL: tl.constexpr, BM: tl.constexpr, BN: tl.constexpr, BG: tl.constexpr,
):  # fmt: skip
    """``y = x W^T`` with what comes before and after, or partial sums [S, M, O] of it. ``reach``: chunks of a split."""
    split = tl.program_id(1)
    m = tl.arange(0, BM)
    n = tl.program_id(0) * BN + tl.arange(0, BN)
    width = outputs
    if GATE != "":
        width = half
    rows, x_inside = m.to(tl.int64) * x_stride, m < tokens
    first, last = split * reach, tl.minimum((split + 1) * reach, chunks)
    total, squares = accumulate(
        x, rows, x_inside, codes, high, scale, zero, factor, low_factor, table, norm, n[:, None], (n < width)[:, None],
        inputs, chunks, groups, supers, first, last,
        CODES, TABLE, LOW, HIGH, LANES, SCALE, ZERO, GROUP, ROWS, MIDDLE, SUPERS, NORM, BM, BN, BG,
    )  # fmt: skip
    kept = x_inside[:, None] & (n < width)[None, :]
    if PARTIAL:
        tl.store(y + (split * tokens + m[:, None]) * outputs + n[None, :], total, mask=kept)
        if NORM:  # every program of the split has the same sums
            tl.store(squares_out + split * tokens + m, squares, mask=x_inside)
    else:
        root = tl.full((BM,), 1.0, tl.float32)
        if NORM:
            root = 1.0 / tl.sqrt(squares / inputs + eps)
        total = total * root[:, None]
        if BIAS:
            total += tl.load(bias + n, mask=n < width, other=0.0).to(tl.float32)[None, :]
        kind: tl.constexpr = y.dtype.element_ty
        if GATE != "":
            other, _ = accumulate(
                x, rows, x_inside, codes, high, scale, zero, factor, low_factor, table, norm, (n + half)[:, None],
                (n < width)[:, None], inputs, chunks, groups, supers, first, last,
                CODES, TABLE, LOW, HIGH, LANES, SCALE, ZERO, GROUP, ROWS, MIDDLE, SUPERS, NORM, BM, BN, BG,
            )  # fmt: skip
            other = other * root[:, None]
            if BIAS:
                other += tl.load(bias + half + n, mask=n < width, other=0.0).to(tl.float32)[None, :]
            total = gated(total, other, kind, GATE)
        if RESIDUAL:
            before = tl.load(residual + m[:, None] * residual_stride + n[None, :], mask=kept, other=0.0)
            total = total.to(kind).to(tl.float32) + before.to(tl.float32)
        tl.store(y + m[:, None].to(tl.int64) * y_stride + n[None, :], total.to(kind), mask=kept)


@triton.jit
def gated(gate, up, kind: tl.constexpr, GATE: tl.constexpr):
    """``act(gate) * up``, rounded where the sequence of ops rounds."""
    gate = activation(gate.to(kind).to(tl.float32), GATE)
    return gate.to(kind).to(tl.float32) * up.to(kind).to(tl.float32)


@triton.jit
def finish(
    parts, squares, bias, residual, y, tokens, inputs, outputs, splits, half, eps, residual_stride, y_stride,
    NORM: tl.constexpr, BIAS: tl.constexpr, GATE: tl.constexpr, RESIDUAL: tl.constexpr, BN: tl.constexpr,
):  # fmt: skip
    """Add partial sums [S, M, O] in order, then what comes after; the first half of the outputs gates the other."""
    m, o = tl.program_id(0).to(tl.int64), tl.program_id(1) * BN + tl.arange(0, BN)
    width = outputs
    if GATE != "":
        width = half
    value = tl.zeros((BN,), tl.float32)
    other = tl.zeros((BN,), tl.float32)
    square = 0.0
    for split in range(splits):
        at = parts + (split * tokens + m) * outputs + o
        value += tl.load(at, mask=o < width, other=0.0)
        if GATE != "":
            other += tl.load(at + half, mask=o < width, other=0.0)
        if NORM:
            square += tl.load(squares + split * tokens + m)
    if NORM:
        root = 1.0 / tl.sqrt(square / inputs + eps)
        value, other = value * root, other * root
    if BIAS:
        value += tl.load(bias + o, mask=o < width, other=0.0).to(tl.float32)
        if GATE != "":
            other += tl.load(bias + half + o, mask=o < width, other=0.0).to(tl.float32)
    kind: tl.constexpr = y.dtype.element_ty
    if GATE != "":
        value = gated(value, other, kind, GATE)
    if RESIDUAL:
        before = tl.load(residual + m * residual_stride + o, mask=o < width, other=0.0).to(tl.float32)
        value = value.to(kind).to(tl.float32) + before
    tl.store(y + m * y_stride + o, value.to(kind), mask=o < width)


@triton.jit
def expand(
    ids, codes, high, scale, zero, factor, low_factor, table, y, count, inputs, chunks, groups, supers, times,
    CODES: tl.constexpr, TABLE: tl.constexpr, LOW: tl.constexpr, HIGH: tl.constexpr, LANES: tl.constexpr,
    SCALE: tl.constexpr, ZERO: tl.constexpr, GROUP: tl.constexpr, ROWS: tl.constexpr, MIDDLE: tl.constexpr,
    SUPERS: tl.constexpr, GATHER: tl.constexpr, TIMES: tl.constexpr, BN: tl.constexpr, BG: tl.constexpr,
):  # fmt: skip
    """Rows of the weight itself, [count, I] in the type of ``y``: those of ``ids`` or the first ones."""
    SPLIT: tl.constexpr = 8 // LOW if LOW < 8 else 1
    row = tl.program_id(0) * BN + tl.arange(0, BN)[:, None]
    c = tl.program_id(1) * BG + tl.arange(0, BG)[None, :]
    n = row
    if GATHER:
        n = tl.load(ids + row, mask=row < count, other=0)
    inside = (row < count) & (c < chunks)
    kind: tl.constexpr = y.dtype.element_ty
    raw, upper = read_chunks(codes, high, n, c, chunks, inside, LOW, HIGH, LANES)
    for j in tl.static_range(SPLIT):
        value = code_values(raw, upper, table, j, CODES, TABLE, LOW, HIGH, LANES)
        k = (c * SPLIT + j) * LANES
        if SCALE != "none":
            each, shift = group_scales(
                scale, zero, factor, low_factor, n, k, inside & (k < inputs), groups, supers,
                SCALE, ZERO, GROUP, ROWS, MIDDLE, SUPERS,
            )  # fmt: skip
            value = value * each[:, :, None] + shift[:, :, None]
        if TIMES:
            value = value.to(kind).to(tl.float32) * times
        at = k[:, :, None] + tl.arange(0, LANES)[None, None, :]
        place = y + row.to(tl.int64)[:, :, None] * inputs + at
        tl.store(place, value.to(kind), mask=inside[:, :, None] & (at < inputs))
