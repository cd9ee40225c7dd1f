# SPDX-License-Identifier: Apache-2.0
"""The kernels of mixtures of experts: pairs of token and expert, few of them or sorted by expert.

Few pairs: a program per pair and tile of outputs reads just the rows it needs; nothing is sorted or padded. Many: pairs
are put in the order of their experts, each expert's padded to whole tiles, and a tile is multiplied by its expert's
matrix on tensor cores. No size depends on the routing; tiles beyond the last one leave at once.

Legend: T tokens, K experts of a token, N = T * K pairs, F intermediate size, X experts.
"""

from __future__ import annotations

import triton
import triton.language as tl

from tramontane_backend_cuda.product import accumulate, accumulate_both, gated


@triton.jit
def experts_gate(gate, up, kind: tl.constexpr, GATE: tl.constexpr, alpha, limit):
    """The gate of an op by its name; ``clamped``: gpt-oss."""
    if GATE == "clamped":
        gate, up = tl.minimum(gate, limit), tl.minimum(tl.maximum(up, -limit), limit)
        return gate * tl.sigmoid(alpha * gate) * (up + 1.0)
    return gated(gate, up, kind, GATE)


@triton.jit
def up_pairs(
    x, ids, order, experts_of, bias, h, codes, high, scale, zero, factor, low_factor, table,
    pairs, top_k, inputs, half, chunks, groups, supers, alpha, limit, x_stride,
    CODES: tl.constexpr, TABLE: tl.constexpr, LOW: tl.constexpr, HIGH: tl.constexpr, LANES: tl.constexpr,
    SCALE: tl.constexpr, ZERO: tl.constexpr, GROUP: tl.constexpr, ROWS: tl.constexpr, MIDDLE: tl.constexpr,
    SUPERS: tl.constexpr, PIECE: tl.constexpr, CENTER: tl.constexpr, DECODER: tl.constexpr,
    BIAS: tl.constexpr, GATE: tl.constexpr, SORTED: tl.constexpr,
    BM: tl.constexpr, BN: tl.constexpr, BG: tl.constexpr,
):  # fmt: skip
    """``h[pair] = gate(x[token] W_gate^T) * (x[token] W_up^T)``: of one pair, or of a tile of sorted ones."""
    m, n = tl.arange(0, BM), tl.program_id(1) * BN + tl.arange(0, BN)
    inside = m < 1
    if SORTED:
        expert = tl.load(experts_of + tl.program_id(0))
        if expert < 0:
            return
        pair = tl.load(order + tl.program_id(0) * BM + m)
        inside = pair < pairs
        rows = (pair // top_k).to(tl.int64) * x_stride
    else:
        pair = tl.program_id(0) + m * 0
        expert = tl.load(ids + tl.program_id(0))
        rows = m.to(tl.int64) * 0
        x += (tl.program_id(0) // top_k).to(tl.int64) * x_stride
    gate, up, _ = accumulate_both(
        x, rows, inside, codes, high, scale, zero, factor, low_factor, table, x, expert * 2 * half,
        tl.program_id(1) * BN, half, inputs, chunks, groups, supers, 0, chunks,
        CODES, TABLE, LOW, HIGH, LANES, SCALE, ZERO, GROUP, ROWS, MIDDLE, SUPERS,
        PIECE, CENTER, DECODER, False, BM, BN, BG,
    )  # fmt: skip
    if BIAS:
        at = bias + expert * 2 * half + n
        gate += tl.load(at, mask=n < half, other=0.0).to(tl.float32)[None, :]
        up += tl.load(at + half, mask=n < half, other=0.0).to(tl.float32)[None, :]
    kind: tl.constexpr = h.dtype.element_ty
    made = experts_gate(gate, up, kind, GATE, alpha, limit)
    place = h + pair.to(tl.int64)[:, None] * half + n[None, :]
    tl.store(place, made.to(kind), mask=inside[:, None] & (n < half)[None, :])


@triton.jit
def down_token(
    h, ids, weights, bias, y, codes, high, scale, zero, factor, low_factor, table,
    top_k, inputs, outputs, chunks, groups, supers,
    CODES: tl.constexpr, TABLE: tl.constexpr, LOW: tl.constexpr, HIGH: tl.constexpr, LANES: tl.constexpr,
    SCALE: tl.constexpr, ZERO: tl.constexpr, GROUP: tl.constexpr, ROWS: tl.constexpr, MIDDLE: tl.constexpr,
    SUPERS: tl.constexpr, PIECE: tl.constexpr, CENTER: tl.constexpr, DECODER: tl.constexpr,
    BIAS: tl.constexpr, BM: tl.constexpr, BN: tl.constexpr, BG: tl.constexpr,
):  # fmt: skip
    """Some outputs of one token: its experts one after the other, weighted and summed in float32."""
    token = tl.program_id(0).to(tl.int64)
    n, m = tl.program_id(1) * BN + tl.arange(0, BN), tl.arange(0, BM)
    there = tl.minimum(n, outputs - 1)
    total = tl.zeros((BN,), tl.float32)
    for k in range(top_k):
        pair = token * top_k + k
        expert, weight = tl.load(ids + pair), tl.load(weights + pair)
        made, _ = accumulate(
            h + pair * inputs, m.to(tl.int64) * 0, m == 0, codes, high, scale, zero, factor, low_factor, table, h,
            expert * outputs + there, n < outputs, inputs, chunks, groups, supers, 0, chunks,
            CODES, TABLE, LOW, HIGH, LANES, SCALE, ZERO, GROUP, ROWS, MIDDLE, SUPERS,
        PIECE, CENTER, DECODER, False, BM, BN, BG,
        )  # fmt: skip
        each = tl.sum(made, axis=0)  # one row is not zero
        if BIAS:
            each += tl.load(bias + expert * outputs + n, mask=n < outputs, other=0.0).to(tl.float32)
        total += each * weight
    tl.store(y + token * outputs + n, total.to(y.dtype.element_ty), mask=n < outputs)


@triton.jit
def down_pairs(
    h, order, experts_of, bias, made, codes, high, scale, zero, factor, low_factor, table,
    pairs, inputs, outputs, chunks, groups, supers,
    CODES: tl.constexpr, TABLE: tl.constexpr, LOW: tl.constexpr, HIGH: tl.constexpr, LANES: tl.constexpr,
    SCALE: tl.constexpr, ZERO: tl.constexpr, GROUP: tl.constexpr, ROWS: tl.constexpr, MIDDLE: tl.constexpr,
    SUPERS: tl.constexpr, PIECE: tl.constexpr, CENTER: tl.constexpr, DECODER: tl.constexpr,
    BIAS: tl.constexpr, BM: tl.constexpr, BN: tl.constexpr, BG: tl.constexpr,
):  # fmt: skip
    """``made[pair] = h[pair] W_down^T`` for a tile of sorted pairs."""
    m, n = tl.arange(0, BM), tl.program_id(1) * BN + tl.arange(0, BN)
    expert = tl.load(experts_of + tl.program_id(0))
    if expert < 0:
        return
    pair = tl.load(order + tl.program_id(0) * BM + m)
    inside = pair < pairs
    total, _ = accumulate(
        h, pair.to(tl.int64) * inputs, inside, codes, high, scale, zero, factor, low_factor, table, h,
        expert * outputs + tl.minimum(n, outputs - 1), n < outputs, inputs, chunks, groups, supers, 0, chunks,
        CODES, TABLE, LOW, HIGH, LANES, SCALE, ZERO, GROUP, ROWS, MIDDLE, SUPERS,
        PIECE, CENTER, DECODER, False, BM, BN, BG,
    )  # fmt: skip
    if BIAS:
        total += tl.load(bias + expert * outputs + n, mask=n < outputs, other=0.0).to(tl.float32)[None, :]
    place = made + pair.to(tl.int64)[:, None] * outputs + n[None, :]
    tl.store(place, total.to(made.dtype.element_ty), mask=inside[:, None] & (n < outputs)[None, :])


@triton.jit
def count_pairs(ids, counts, pairs, B: tl.constexpr):
    """How many pairs an expert has."""
    expert = tl.program_id(0)
    found = tl.zeros((B,), tl.int32)
    for start in range(0, pairs, B):
        i = start + tl.arange(0, B)
        found += (tl.load(ids + i, mask=i < pairs, other=-1) == expert).to(tl.int32)
    tl.store(counts + expert, tl.sum(found, axis=0))


@triton.jit
def sort_pairs(
    ids, counts, order, experts_of, pairs, experts, tiles, BM: tl.constexpr, BX: tl.constexpr, B: tl.constexpr,
):  # fmt: skip
    """The pairs of one expert in order, padded with N to whole tiles; the last one empties the tiles left over."""
    expert = tl.program_id(0)
    i = tl.arange(0, BX)
    mine = (tl.load(counts + i, mask=i < experts, other=0) + BM - 1) // BM
    first = tl.sum(tl.where(i < expert, mine, 0), axis=0)
    last = first + tl.sum(tl.where(i == expert, mine, 0), axis=0)
    given = first * BM
    for start in range(0, pairs, B):
        p = start + tl.arange(0, B)
        match = (tl.load(ids + p, mask=p < pairs, other=-1) == expert).to(tl.int32)
        tl.store(order + given + tl.cumsum(match, axis=0) - 1, p, mask=match == 1)
        given += tl.sum(match, axis=0)
    m = tl.arange(0, BM)
    tl.store(order + given + m, tl.zeros((BM,), tl.int32) + pairs, mask=given + m < last * BM)
    for tile in range(first, last):
        tl.store(experts_of + tile, expert)
    if expert == experts - 1:
        for tile in range(last, tiles):
            tl.store(experts_of + tile, -1)


@triton.jit
def mix_pairs(made, weights, y, features, top_k, B: tl.constexpr):
    """``y[token]``: the results of its pairs, weighted and summed in float32."""
    token, f = tl.program_id(0).to(tl.int64), tl.program_id(1) * B + tl.arange(0, B)
    total = tl.zeros((B,), tl.float32)
    for k in range(top_k):
        pair = token * top_k + k
        each = tl.load(made + pair * features + f, mask=f < features, other=0.0).to(tl.float32)
        total += each * tl.load(weights + pair)
    tl.store(y + token * features + f, total.to(y.dtype.element_ty), mask=f < features)
