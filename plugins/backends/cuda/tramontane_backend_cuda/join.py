# SPDX-License-Identifier: Apache-2.0
"""How the tasks of a tile become its result: their sums, brought to one largest score, in the order of the keys.

The order is that of the tasks, whichever of them was the last to end: the same step gives the same bits.

Legend: N tasks of a tile, M rows of a tile (tokens times query heads), H rows joined together, E features of a value.
"""

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def write_result(
    total, top, weight, sinks, y, t, h, f, there, y_token, y_head, E: tl.constexpr, SINKS: tl.constexpr,
):  # fmt: skip
    """Divide by the sum of weights and write: rows that are ``there``."""
    if SINKS:
        base = tl.where(top == float("-inf"), 0.0, top)
        sink = tl.load(sinks + h, mask=there, other=0.0).to(tl.float32) * 1.4426950408889634
        weight += tl.exp2(sink - base)
    made = total / tl.where(weight == 0.0, 1.0, weight)[:, None]
    at = y + t.to(tl.int64)[:, None] * y_token + h[:, None] * y_head + f[None, :]
    tl.store(at, made.to(y.dtype.element_ty), mask=there[:, None] & (f < E)[None, :])


@triton.jit
def join_heads(
    sums, tops, sinks, y, first, parts, program, programs, m, t, h, there, y_token, y_head,
    E: tl.constexpr, BE: tl.constexpr, SINKS: tl.constexpr, M: tl.constexpr, STEP: tl.constexpr,
):  # fmt: skip
    """The rows ``m`` [H] of a tile, which are heads ``h`` of tokens ``t``, from its ``parts`` tasks, the ``first`` of
    which is given; ``STEP`` of them are read together."""
    f = tl.arange(0, BE)
    top = tl.full(m.shape, float("-inf"), tl.float32)
    weight = tl.zeros(m.shape, tl.float32)
    total = tl.zeros((m.shape[0], BE), tl.float32)
    for start in range(0, parts, STEP):
        i = start + tl.arange(0, STEP)[:, None]
        place = ((first + i) * programs + program).to(tl.int64) * M + m[None, :]
        known = (i < parts) & there[None, :]
        tops_of = tl.load(tops + place * 2, mask=known, other=float("-inf"), cache_modifier=".cg")
        weights = tl.load(tops + place * 2 + 1, mask=known, other=0.0, cache_modifier=".cg")
        at = sums + place[:, :, None] * BE + f[None, None, :]
        each = tl.load(at, mask=known[:, :, None], other=0.0, cache_modifier=".cg")
        new = tl.maximum(top, tl.max(tops_of, axis=0))
        base = tl.where(new == float("-inf"), 0.0, new)  # rows that see none of these keys
        fade, before = tl.exp2(tops_of - base[None, :]), tl.exp2(top - base)
        weight = weight * before + tl.sum(weights * fade, axis=0)
        total = total * before[:, None] + tl.sum(each * fade[:, :, None], axis=0)
        top = new
    write_result(total, top, weight, sinks, y, t, h, f, there, y_token, y_head, E, SINKS)


@triton.jit
def join_tasks(
    tasks, q_start, sinks, y, sums, tops, per, head_groups, programs, y_token, y_head,
    E: tl.constexpr, BE: tl.constexpr, HEADS: tl.constexpr, SINKS: tl.constexpr, WIDTH: tl.constexpr, M: tl.constexpr,
    STEP: tl.constexpr,
):  # fmt: skip
    """One row of a tile that several tasks share, as a launch of its own: where the rows are wide, more programs than
    one should read them."""
    task = tasks + tl.program_id(0) * WIDTH
    row, piece, parts = tl.load(task), tl.load(task + 4), tl.load(task + 5)
    if (row < 0) | (piece != 0) | (parts < 2):
        return
    m = tl.program_id(2) + tl.arange(0, 1)
    t = tl.load(task + 1) + m // HEADS
    g, inner = tl.program_id(1) // head_groups, tl.program_id(1) % head_groups * HEADS + m % HEADS
    there = (t < tl.load(q_start + row + 1)) & (inner < per)
    join_heads(
        sums, tops, sinks, y, tl.program_id(0), parts, tl.program_id(1), programs, m, t, g * per + inner, there,
        y_token, y_head, E, BE, SINKS, M, STEP,
    )  # fmt: skip
