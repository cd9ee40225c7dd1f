# SPDX-License-Identifier: Apache-2.0
"""The kernel of products with few tokens: one family, whose formats are compile-time rules.

A program owns BN outputs and one of the equal ranges of the inputs ("splits"). With several splits each leaves a
float32 partial sum, and the last program to arrive adds them in order, so that a product gives the same bits each time.

Layouts with pieces are multiplied on tensor cores (:mod:`.pieces`). The others are decoded to float32: for one token
the product is a sum in each thread on ordinary units; for more, numbers go to the tensor cores through shared memory.

A norm before the product needs no launch of its own: the rows are multiplied by the norm's weights as they are read,
the program adds up their squares beside, and the result is divided by their root. After the product come the bias, the
gate (the program then owns BN outputs of the gate and the same BN of the other half) and the residual.

Legend: M tokens, O outputs, I inputs, S splits.
"""

from __future__ import annotations

import triton
import triton.language as tl

from tramontane_backend_cuda.decode import activation, code_values, group_scales, read_chunks, super_factors
from tramontane_backend_cuda.dot import dot
from tramontane_backend_cuda.pieces import expand_pieces, multiply_pieces, multiply_spread


@triton.jit
def accumulate(
    x, rows, x_inside, codes, high, scale, zero, factor, low_factor, table, norm, n, n_inside,
    inputs, chunks, groups, supers, first, last,
    CODES: tl.constexpr, TABLE: tl.constexpr, LOW: tl.constexpr, HIGH: tl.constexpr, LANES: tl.constexpr,
    SCALE: tl.constexpr, ZERO: tl.constexpr, GROUP: tl.constexpr, ROWS: tl.constexpr, MIDDLE: tl.constexpr,
    SUPERS: tl.constexpr, PIECE: tl.constexpr, CENTER: tl.constexpr, DECODER: tl.constexpr,
    NORM: tl.constexpr, BM: tl.constexpr, BN: tl.constexpr, BG: tl.constexpr,
):  # fmt: skip
    """``x W^T`` over the chunks ``first <= c < last``: [BM, BN], and the sums of squares of the rows of x: [BM].
    ``rows``: where the rows of x begin [BM]; a single one (BM = 1) begins at ``x``. ``n``: rows of the planes [BN], all
    of them there."""
    if PIECE > 0 and BM > 1:
        total, squares = multiply_pieces(
            x, rows, x_inside, codes, scale, zero, factor, low_factor, table, norm, n, n_inside,
            inputs, chunks, groups, supers, first, last,
            CODES, TABLE, LOW, LANES, SCALE, ZERO, GROUP, ROWS, MIDDLE, SUPERS, PIECE, CENTER, DECODER, NORM,
            BM, BN, BG,
        )  # fmt: skip
        return tl.trans(total), squares
    if PIECE > 0 and BM == 1 and CODES != "dense":
        one, square = multiply_spread(
            x, codes, high, scale, zero, factor, low_factor, table, norm, n, chunks, groups, supers, first, last,
            CODES, TABLE, LOW, HIGH, LANES, SCALE, ZERO, GROUP, ROWS, MIDDLE, SUPERS, CENTER, DECODER, NORM, BN, BG,
        )  # fmt: skip
        return one[None, :], tl.zeros((1,), tl.float32) + square
    return multiply_decoded(
        x, rows, x_inside, codes, high, scale, zero, factor, low_factor, table, norm, n[:, None], n_inside[:, None],
        inputs, chunks, groups, supers, first, last,
        CODES, TABLE, LOW, HIGH, LANES, SCALE, ZERO, GROUP, ROWS, MIDDLE, SUPERS, NORM, BM, BN, BG,
    )  # fmt: skip


@triton.jit
def accumulate_both(
    x, rows, x_inside, codes, high, scale, zero, factor, low_factor, table, norm, first_row, o, half,
    inputs, chunks, groups, supers, first, last,
    CODES: tl.constexpr, TABLE: tl.constexpr, LOW: tl.constexpr, HIGH: tl.constexpr, LANES: tl.constexpr,
    SCALE: tl.constexpr, ZERO: tl.constexpr, GROUP: tl.constexpr, ROWS: tl.constexpr, MIDDLE: tl.constexpr,
    SUPERS: tl.constexpr, PIECE: tl.constexpr, CENTER: tl.constexpr, DECODER: tl.constexpr,
    NORM: tl.constexpr, BM: tl.constexpr, BN: tl.constexpr, BG: tl.constexpr,
):  # fmt: skip
    """:func:`accumulate` for BN outputs of the gate from ``o`` on and the same of the other half: [BM, BN] each, and
    the sums of squares. ``first_row``: the row of the planes that is output 0."""
    if PIECE > 0 and (BM > 1 or CODES != "dense"):  # in one product, so that activations are read once
        i = tl.arange(0, 2 * BN)
        n = tl.minimum(o + i // 2, half - 1)
        both, squares = accumulate(
            x, rows, x_inside, codes, high, scale, zero, factor, low_factor, table, norm,
            first_row + n + i % 2 * half, o + i // 2 < half, inputs, chunks, groups, supers, first, last,
            CODES, TABLE, LOW, HIGH, LANES, SCALE, ZERO, GROUP, ROWS, MIDDLE, SUPERS, PIECE, CENTER, DECODER,
            NORM, BM, 2 * BN, BG,
        )  # fmt: skip
        gate, up = tl.split(tl.reshape(both, (BM, BN, 2)))
        return gate, up, squares
    inside = o + tl.arange(0, BN) < half
    n = first_row + tl.minimum(o + tl.arange(0, BN), half - 1)
    gate, squares = accumulate(
        x, rows, x_inside, codes, high, scale, zero, factor, low_factor, table, norm, n, inside,
        inputs, chunks, groups, supers, first, last, CODES, TABLE, LOW, HIGH, LANES, SCALE, ZERO, GROUP, ROWS, MIDDLE,
        SUPERS, PIECE, CENTER, DECODER, NORM, BM, BN, BG,
    )  # fmt: skip
    up, _ = accumulate(
        x, rows, x_inside, codes, high, scale, zero, factor, low_factor, table, norm, n + half, inside,
        inputs, chunks, groups, supers, first, last, CODES, TABLE, LOW, HIGH, LANES, SCALE, ZERO, GROUP, ROWS, MIDDLE,
        SUPERS, PIECE, CENTER, DECODER, NORM, BM, BN, BG,
    )  # fmt: skip
    return gate, up, squares


@triton.jit
def multiply_decoded(
    x, rows, x_inside, codes, high, scale, zero, factor, low_factor, table, norm, n, n_inside,
    inputs, chunks, groups, supers, first, last,
    CODES: tl.constexpr, TABLE: tl.constexpr, LOW: tl.constexpr, HIGH: tl.constexpr, LANES: tl.constexpr,
    SCALE: tl.constexpr, ZERO: tl.constexpr, GROUP: tl.constexpr, ROWS: tl.constexpr, MIDDLE: tl.constexpr,
    SUPERS: tl.constexpr, NORM: tl.constexpr, BM: tl.constexpr, BN: tl.constexpr, BG: tl.constexpr,
):  # fmt: skip
    """The same by decoding to float32. ``n``: [BN, 1]."""
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
                known = inside & (k < inputs)
                above, below = super_factors(factor, low_factor, n, k, known, supers, ZERO, SUPERS)
                each, shift = group_scales(
                    scale, zero, above, below, n, k, known, groups, SCALE, ZERO, GROUP, ROWS, MIDDLE, SUPERS
                )
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
    x, codes, high, scale, zero, factor, low_factor, table, norm, bias, residual, y, parts, arrived,
    tokens, inputs, outputs, chunks, groups, supers, reach, half, eps, x_stride, residual_stride, y_stride,
    CODES: tl.constexpr, TABLE: tl.constexpr, LOW: tl.constexpr, HIGH: tl.constexpr, LANES: tl.constexpr,
    SCALE: tl.constexpr, ZERO: tl.constexpr, GROUP: tl.constexpr, ROWS: tl.constexpr, MIDDLE: tl.constexpr,
    SUPERS: tl.constexpr, PIECE: tl.constexpr, CENTER: tl.constexpr, DECODER: tl.constexpr,
    NORM: tl.constexpr, BIAS: tl.constexpr, GATE: tl.constexpr, RESIDUAL: tl.constexpr, SPLIT: tl.constexpr,
    BM: tl.constexpr, BN: tl.constexpr, BG: tl.constexpr,
):  # fmt: skip
    """``y = x W^T`` with what comes before and after. ``reach``: chunks of a split; ``parts``: room for partial sums;
    ``arrived``: how many splits of a tile are done, zero before and after."""
    split = tl.program_id(1)
    m = tl.program_id(2) * BM + tl.arange(0, BM)
    n = tl.program_id(0) * BN + tl.arange(0, BN)
    width = outputs
    if GATE != "":
        width = half
    rows, x_inside, n_inside = m.to(tl.int64) * x_stride, m < tokens, n < width
    first, last = split * reach, tl.minimum((split + 1) * reach, chunks)
    if GATE != "":
        total, other, squares = accumulate_both(
            x, rows, x_inside, codes, high, scale, zero, factor, low_factor, table, norm, 0, tl.program_id(0) * BN,
            half, inputs, chunks, groups, supers, first, last, CODES, TABLE, LOW, HIGH, LANES, SCALE, ZERO, GROUP, ROWS,
            MIDDLE, SUPERS, PIECE, CENTER, DECODER, NORM, BM, BN, BG,
        )  # fmt: skip
    else:
        total, squares = accumulate(
            x, rows, x_inside, codes, high, scale, zero, factor, low_factor, table, norm, tl.minimum(n, width - 1),
            n_inside, inputs, chunks, groups, supers, first, last, CODES, TABLE, LOW, HIGH, LANES, SCALE, ZERO, GROUP,
            ROWS, MIDDLE, SUPERS, PIECE, CENTER, DECODER, NORM, BM, BN, BG,
        )  # fmt: skip
        other = total
    if SPLIT:
        tile: tl.constexpr = BM * (2 * BN + 1)
        splits = tl.num_programs(1)
        place = parts + (tl.program_id(0) * splits).to(tl.int64) * tile
        at = m[:, None] * BN + tl.arange(0, BN)[None, :]
        mine = place + split * tile
        tl.store(mine + at, total)
        if GATE != "":
            tl.store(mine + BM * BN + at, other)
        if NORM:
            tl.store(mine + 2 * BM * BN + m, squares)
        tl.debug_barrier()  # what all threads wrote is there before the count says so
        done = tl.atomic_add(arrived + tl.program_id(0), 1, sem="acq_rel")
        if done != splits - 1:
            return
        tl.store(arrived + tl.program_id(0), 0)
        total = tl.zeros((BM, BN), tl.float32)
        other = tl.zeros((BM, BN), tl.float32)
        squares = tl.zeros((BM,), tl.float32)
        for one in range(splits):
            theirs = place + one * tile
            total += tl.load(theirs + at, cache_modifier=".cg")
            if GATE != "":
                other += tl.load(theirs + BM * BN + at, cache_modifier=".cg")
            if NORM:
                squares += tl.load(theirs + 2 * BM * BN + m, cache_modifier=".cg")
    kept = x_inside[:, None] & n_inside[None, :]
    kind: tl.constexpr = y.dtype.element_ty
    if NORM:
        root = 1.0 / tl.sqrt(squares / inputs + eps)
        total = total * root[:, None]
        other = other * root[:, None]
    if BIAS:
        total += tl.load(bias + n, mask=n_inside, other=0.0).to(tl.float32)[None, :]
        if GATE != "":
            other += tl.load(bias + half + n, mask=n_inside, other=0.0).to(tl.float32)[None, :]
    if GATE != "":
        total = gated(total, other, kind, GATE)
    if RESIDUAL:
        before = tl.load(residual + m[:, None].to(tl.int64) * residual_stride + n[None, :], mask=kept, other=0.0)
        total = total.to(kind).to(tl.float32) + before.to(tl.float32)
    tl.store(y + m[:, None].to(tl.int64) * y_stride + n[None, :], total.to(kind), mask=kept)


@triton.jit
def gated(gate, up, kind: tl.constexpr, GATE: tl.constexpr):
    """``act(gate) * up``, rounded where the sequence of ops rounds."""
    gate = activation(gate.to(kind).to(tl.float32), GATE)
    return gate.to(kind).to(tl.float32) * up.to(kind).to(tl.float32)


@triton.jit
def expand(
    ids, codes, high, scale, zero, factor, low_factor, table, y, count, inputs, chunks, groups, supers, times,
    CODES: tl.constexpr, TABLE: tl.constexpr, LOW: tl.constexpr, HIGH: tl.constexpr, LANES: tl.constexpr,
    SCALE: tl.constexpr, ZERO: tl.constexpr, GROUP: tl.constexpr, ROWS: tl.constexpr, MIDDLE: tl.constexpr,
    SUPERS: tl.constexpr, PIECE: tl.constexpr, CENTER: tl.constexpr, DECODER: tl.constexpr, GATHER: tl.constexpr,
    TIMES: tl.constexpr, BN: tl.constexpr, BG: tl.constexpr,
):  # fmt: skip
    """Rows of the weight itself, [count, I] in the type of ``y``: those of ``ids`` or the first ones."""
    if PIECE > 0:
        row = tl.program_id(0) * BN + tl.arange(0, BN)
        n = row
        if GATHER:
            n = tl.load(ids + row, mask=row < count, other=0)
        expand_pieces(
            row, n, row < count, codes, scale, zero, factor, low_factor, table, y, inputs, chunks, groups, supers,
            times, CODES, TABLE, LOW, LANES, SCALE, ZERO, GROUP, ROWS, MIDDLE, SUPERS, PIECE, CENTER, DECODER,
            TIMES, BG,
        )  # fmt: skip
        return
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
            known = inside & (k < inputs)
            above, below = super_factors(factor, low_factor, n, k, known, supers, ZERO, SUPERS)
            each, shift = group_scales(
                scale, zero, above, below, n, k, known, groups, SCALE, ZERO, GROUP, ROWS, MIDDLE, SUPERS
            )
            value = value * each[:, :, None] + shift[:, :, None]
        if TIMES:
            value = value.to(kind).to(tl.float32) * times
        at = k[:, :, None] + tl.arange(0, LANES)[None, None, :]
        place = y + row.to(tl.int64)[:, :, None] * inputs + at
        tl.store(place, value.to(kind), mask=inside[:, :, None] & (at < inputs))
