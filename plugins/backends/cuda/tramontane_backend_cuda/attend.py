# SPDX-License-Identifier: Apache-2.0
"""Attention over the paged cache as a device function: tasks, of which the last one of a tile joins all of it.

A task is a program for each key head: the tokens of its tile times the query heads that share the key head are the rows
of a matrix product, so that each key is read once for all of them. Features are read in two parts of powers of two
(576 = 512 + 64), the second may be empty. Softmax runs along the keys with base two; a tile of several tasks leaves
float32 sums, with the largest score and the sum of weights beside them, for :mod:`.join`.

Legend: M = tokens of a tile times query heads, N keys of a step, D = A + B features of a key, E of a value.
"""

from __future__ import annotations

import triton
import triton.language as tl

from tramontane_backend_cuda.dot import dot
from tramontane_backend_cuda.entries import load_entry
from tramontane_backend_cuda.join import join_heads, write_result


@triton.jit
def _scores(
    s, pos, token_position, seen, scale, cap, window, CAP: tl.constexpr, WINDOW: tl.constexpr,
):  # fmt: skip
    """Scores in units of log 2, minus infinity where a token does not see a key: [M, N]."""
    s = s * scale
    if CAP:
        s = (2.0 * tl.sigmoid(2.0 * s / cap) - 1.0) * cap
    allowed = (pos[None, :] <= token_position[:, None]) & seen[None, :]
    if WINDOW:
        allowed = allowed & (pos[None, :] > token_position[:, None] - window)
    return tl.where(allowed, s * 1.4426950408889634, float("-inf"))


@triton.jit
def _values(
    values, value_scale, p, block, offset, g, seen, f, value_block, value_token, value_head,
    KIND: tl.constexpr, E: tl.constexpr, kind: tl.constexpr,
):  # fmt: skip
    """Values of one step, and the weights that belong to them: those of ``int8`` entries take their scales."""
    at = block * value_block + offset * value_token + g * value_head
    v = load_entry(values + at[:, None] + f[None, :], seen[:, None] & (f < E)[None, :], KIND, kind)
    if KIND == "int8":
        where = block * (value_block // 4) + offset * (value_token // 4) + g * (value_head // 4)
        p = p * tl.load(value_scale + where, mask=seen, other=0.0)[None, :]
    return v, p


@triton.jit
def attend_task(
    q, q_rest, keys, keys_rest, values, key_scale, value_scale, table, tasks, q_start, kv_len, sinks, y, sums, tops,
    scale, cap, window, size, width, per, head_groups,
    q_token, q_head, rest_token, rest_head, key_block, key_token, key_head, value_block, value_token, value_head,
    table_stride, y_token, y_head,
    A: tl.constexpr, B: tl.constexpr, E: tl.constexpr, BA: tl.constexpr, BB: tl.constexpr, BE: tl.constexpr,
    TILE: tl.constexpr, HEADS: tl.constexpr, KIND: tl.constexpr, SHARED: tl.constexpr, WINDOW: tl.constexpr,
    CAP: tl.constexpr, SINKS: tl.constexpr, CUT: tl.constexpr, JOIN: tl.constexpr, STEP: tl.constexpr,
    FIELDS: tl.constexpr, WIDTH: tl.constexpr, M: tl.constexpr, N: tl.constexpr,
):  # fmt: skip
    """One task of one key head. ``SHARED``: the values are the first part of the keys (latents). ``JOIN``: heads that
    share a key head, as a power of two, if the last task of a tile joins it; 0: another launch does."""
    task = tasks + tl.program_id(0) * WIDTH
    row = tl.load(task)
    if row < 0:
        return
    token, low, high = tl.load(task + 1), tl.load(task + 2), tl.load(task + 3)
    parts = tl.load(task + 5)
    g, group = tl.program_id(1) // head_groups, tl.program_id(1) % head_groups
    end = tl.load(q_start + row + 1)
    m = tl.arange(0, M)
    t, inner = token + m // HEADS, group * HEADS + m % HEADS
    h = g * per + inner
    there = (m < TILE * HEADS) & (t < end) & (inner < per)
    position = tl.load(kv_len + row) - (end - t)
    a, b, f = tl.arange(0, BA), tl.arange(0, BB), tl.arange(0, BE)
    kind: tl.constexpr = q.dtype.element_ty
    query = q + t.to(tl.int64)[:, None] * q_token + h[:, None] * q_head + a[None, :]
    q_a = tl.load(query, mask=there[:, None] & (a < A)[None, :], other=0.0)
    if B > 0:
        query = q_rest + t.to(tl.int64)[:, None] * rest_token + h[:, None] * rest_head + b[None, :]
        q_b = tl.load(query, mask=there[:, None] & (b < B)[None, :], other=0.0)
    top = tl.full((M,), float("-inf"), tl.float32)
    weight = tl.zeros((M,), tl.float32)
    total = tl.zeros((M, BE), tl.float32)
    for start in range(low, high, N):
        pos = start + tl.arange(0, N)
        seen = pos < high
        column = tl.minimum(pos // size, width - 1)
        block = tl.load(table + row * table_stride + column, mask=seen, other=0).to(tl.int64)
        at = block * key_block + (pos % size) * key_token + g * key_head
        k = load_entry(keys + at[:, None] + a[None, :], seen[:, None] & (a < A)[None, :], KIND, kind)
        s = dot(q_a, tl.trans(k), tl.zeros((M, N), tl.float32))
        if B > 0:
            rest = load_entry(keys_rest + at[:, None] + b[None, :], seen[:, None] & (b < B)[None, :], KIND, kind)
            s = dot(q_b, tl.trans(rest), s)
        if KIND == "int8":
            where = block * (key_block // 4) + (pos % size) * (key_token // 4) + g * (key_head // 4)
            each = tl.load(key_scale + where, mask=seen, other=0.0)
            s = s * each[None, :]
        s = _scores(s, pos, position, seen, scale, cap, window, CAP, WINDOW)
        new = tl.maximum(top, tl.max(s, axis=1))
        base = tl.where(new == float("-inf"), 0.0, new)  # a row that sees none of these keys
        p = tl.exp2(s - base[:, None])
        fade = tl.exp2(top - base)
        weight = weight * fade + tl.sum(p, axis=1)
        if SHARED:
            v = k
            if KIND == "int8":
                p = p * each[None, :]
        else:
            v, p = _values(
                values, value_scale, p, block, pos % size, g, seen, f, value_block, value_token, value_head,
                KIND, E, kind,
            )  # fmt: skip
        total = dot(p.to(kind), v, total * fade[:, None])
        top = new
    if CUT and parts > 1:
        place = (tl.program_id(0) * tl.num_programs(1) + tl.program_id(1)).to(tl.int64) * M + m
        tl.store(sums + place[:, None] * BE + f[None, :], total, mask=there[:, None])
        tl.store(tops + place * 2, top, mask=there)
        tl.store(tops + place * 2 + 1, weight, mask=there)
        if JOIN > 0:
            first = tl.program_id(0) - tl.load(task + 4)
            arrived = tasks + first * WIDTH + FIELDS + tl.program_id(1)
            tl.debug_barrier()  # what all threads wrote is there before the count says so
            if tl.atomic_add(arrived, 1, sem="acq_rel") == parts - 1:
                tl.store(arrived, 0)
                i = tl.arange(0, JOIN)
                known = (i < HEADS) & (group * HEADS + i < per)
                for j in range(tl.minimum(TILE, end - token)):
                    join_heads(
                        sums, tops, sinks, y, first, parts, tl.program_id(1), tl.num_programs(1), j * HEADS + i,
                        token + j + i * 0, g * per + group * HEADS + i, known, y_token, y_head,
                        E, BE, SINKS, M, STEP,
                    )  # fmt: skip
    else:
        write_result(total, top, weight, sinks, y, t, h, f, there, y_token, y_head, E, SINKS)
