# SPDX-License-Identifier: Apache-2.0
"""The gated delta rule for many tokens of a row: chunks of them by matrix products.

What a token of a chunk changes of the state depends on what the chunk's earlier tokens changed: with ``g`` the
logarithm of the decay added up inside the chunk, ``b`` what is written and S the state before it, the changes u [C, V]
solve::

    (1 + A) u = b (v - exp(g) k S),    A[i, j] = b[i] k[i] k[j] exp(g[i] - g[j]) below the diagonal

    y[i] = exp(g[i]) q[i] S + sum over j <= i of q[i] k[j] exp(g[i] - g[j]) u[j]
    S'   = exp(g[C]) S + sum over j of exp(g[C] - g[j]) k[j] u[j]^T

(Yang et al., 2024: "Parallelizing Linear Transformers with the Delta Rule over Sequence Length", section 3, and "Gated
Delta Networks", section 3.3). The inverse of 1 + A knows nothing of the state: :func:`prepare_chunks` makes it for all
chunks at once. :func:`walk_chunks` then carries the state from chunk to chunk, three products one after the other in
each. Keys and queries keep their 16 bits and their own length, which is divided out of factors; the state, the inverse
and the changes take part as two 16-bit numbers each (:mod:`.dot`).

A chunk has a *place* that each program computes from the rows alone: nothing is known on the host. Rows shorter than
``LEAST`` have none.

Legend: C tokens of a chunk, R rows, P places, H value heads, K key dimension, V value dimension.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import triton
import triton.language as tl
from torch import Tensor

from tramontane.batch import Ctx
from tramontane.ops import GatedDelta
from tramontane.ops.recurrent import TINY
from tramontane_backend_cuda.dot import dot, dot_exact, dot_halves, halves

CHUNK = 64
"""C. A power of two: the inverse doubles its blocks."""
LEAST = 16
"""Tokens from which on a row is walked in chunks: a chunk costs about as much as so many steps (not measured)."""
VALUES = 32
"""Features of values that a program carries a state for: with 32 heads of 128 one program on each multiprocessor."""


@triton.jit
def gates(write, keep, a, shift, at_write, at_keep, head, inside):
    """What is written of a token, and the logarithm of what is kept before it; nothing and all where not ``inside``."""
    beta = tl.sigmoid(tl.load(write + at_write + head, mask=inside, other=0.0).to(tl.float32))
    logit = tl.load(keep + at_keep + head, mask=inside, other=0.0).to(tl.float32)
    logit += tl.load(shift + head).to(tl.float32)
    soft = tl.where(logit > 20.0, logit, tl.log(1.0 + tl.exp(tl.minimum(logit, 20.0))))
    decay = -tl.exp(tl.load(a + head).to(tl.float32)) * soft
    return tl.where(inside, beta, 0.0), tl.where(inside, decay, 0.0)


@triton.jit
def chunk_at(
    q_start, rows, place, unit, step, LEAST: tl.constexpr, CHUNK: tl.constexpr, ROWS: tl.constexpr,
):  # fmt: skip
    """The row whose chunk has this place, the number of the chunk in it, and the row's tokens; no tokens where there is
    no such chunk. A row's places begin at ``first token // unit + row * step``."""
    row = -1
    for start in range(0, rows, ROWS):
        r = start + tl.arange(0, ROWS)
        begin = tl.load(q_start + r, mask=r < rows, other=0) // unit + r * step
        row += tl.sum(((begin <= place) & (r < rows)).to(tl.int32), axis=0)
    first, last = tl.load(q_start + row), tl.load(q_start + row + 1)
    chunk = place - (first // unit + row * step)
    last = tl.where((last - first >= LEAST) & (chunk * CHUNK < last - first), last, first)
    return row, chunk, first, last


@triton.jit
def inverse_of(below, kind: tl.constexpr, CHUNK: tl.constexpr, LEVELS: tl.constexpr):
    """The inverse of 1 + ``below`` [C, C], which is zero on the diagonal and above: of blocks of two, of which pairs
    become one, until there is one. Entries stay below one in magnitude, whatever the keys are: each is a key seen
    through what other keys leave of it."""
    i, j = tl.arange(0, CHUNK)[:, None], tl.arange(0, CHUNK)[None, :]
    made = tl.where(i == j, 1.0, tl.where(i // 2 == j // 2, -below, 0.0))
    for level in range(1, LEVELS):  # not unrolled, or registers run out
        between = (i >> (level + 1) == j >> (level + 1)) & (i >> level > j >> level)
        high, low = halves(tl.where(between, below, 0.0), kind)
        moved = dot_halves(high, low, made, tl.zeros((CHUNK, CHUNK), tl.float32))
        high, low = halves(made, kind)
        made -= dot_halves(high, low, moved, tl.zeros((CHUNK, CHUNK), tl.float32))
    return made


@triton.jit
def lengths_of(x, tiny):
    """One over the lengths of the rows of x: [C]."""
    x = x.to(tl.float32)
    return 1.0 / tl.sqrt(tl.sum(x * x, axis=1) + tiny)


@triton.jit
def prepare_chunks(
    query, key, write, keep, a, shift, q_start, solved, seen, factors, rows, heads, shared, unit, step, root, tiny,
    q_stride, k_stride, write_stride, keep_stride,
    K: tl.constexpr, BK: tl.constexpr, LEAST: tl.constexpr, CHUNK: tl.constexpr, LEVELS: tl.constexpr,
    ROWS: tl.constexpr,
):  # fmt: skip
    """What one head of one chunk does to any state: the inverse times what is written (two matrices [C, C] of 16 bits),
    what queries see of the chunk's changes [C, C], and factors [4, C]: of what is known of keys and seen by queries, of
    changes, and of the state."""
    _, chunk, first, last = chunk_at(q_start, rows, tl.program_id(0), unit, step, LEAST, CHUNK, ROWS)
    if last == first:
        return
    head = tl.program_id(1)
    kind: tl.constexpr = query.dtype.element_ty
    i, f = tl.arange(0, CHUNK), tl.arange(0, BK)
    token = first + chunk * CHUNK + i
    inside, wide = token < last, token.to(tl.int64)
    there = inside[:, None] & (f < K)[None, :]
    turn = (head // shared * K + f)[None, :]
    q = tl.load(query + wide[:, None] * q_stride + turn, mask=there, other=0.0)
    k = tl.load(key + wide[:, None] * k_stride + turn, mask=there, other=0.0)
    beta, decay = gates(write, keep, a, shift, wide * write_stride, wide * keep_stride, head, inside)
    total = tl.cumsum(decay, axis=0)
    whole = tl.sum(tl.where(i == CHUNK - 1, total, 0.0), axis=0)  # to the bit, or the last token would fade
    of_k, of_q = lengths_of(k, tiny), lengths_of(q, tiny) * root
    place = tl.program_id(0) * heads + head
    of = factors + place * (4 * CHUNK) + i
    tl.store(of, tl.exp(total) * of_k)
    tl.store(of + CHUNK, tl.exp(total) * of_q)
    tl.store(of + 2 * CHUNK, tl.exp(whole - total) * of_k)
    tl.store(of + 3 * CHUNK, tl.exp(whole) + i * 0.0)
    later = i[:, None] - i[None, :]
    since = tl.exp(tl.where(later >= 0, total[:, None] - total[None, :], 0.0)) * of_k[None, :]
    nothing = tl.zeros((CHUNK, CHUNK), tl.float32)
    at = place * (CHUNK * CHUNK) + i[:, None] * CHUNK + i[None, :]
    sees = dot(q, tl.trans(k), nothing) * since * of_q[:, None]
    tl.store(seen + at, tl.where(later >= 0, sees, 0.0).to(kind))
    below = tl.where(later > 0, dot(k, tl.trans(k), nothing) * since * (beta * of_k)[:, None], 0.0)
    high, low = halves(inverse_of(below, kind, CHUNK, LEVELS) * beta[None, :], kind)
    at += place * (CHUNK * CHUNK)
    tl.store(solved + at, high)
    tl.store(solved + at + CHUNK * CHUNK, low)


@triton.jit
def factors_at(factors, place, i, CHUNK: tl.constexpr):
    """Of the chunk with this place: of what is known [C], what is seen [C], changes [C] and the state."""
    at = factors + place * (4 * CHUNK)
    return tl.load(at + i), tl.load(at + CHUNK + i), tl.load(at + 2 * CHUNK + i), tl.load(at + 3 * CHUNK)


@triton.jit
def walk_chunks(
    query, key, value, state, slots, fresh, q_start, y, solved, seen, factors, rows, heads, shared, unit, step,
    q_stride, k_stride, v_stride,
    K: tl.constexpr, V: tl.constexpr, BK: tl.constexpr, BV: tl.constexpr, LEAST: tl.constexpr, CHUNK: tl.constexpr,
    ROWS: tl.constexpr,
):  # fmt: skip
    """Some features of the values of one head of one row, by the program of its first chunk."""
    row, chunk, first, last = chunk_at(q_start, rows, tl.program_id(0), unit, step, LEAST, CHUNK, ROWS)
    if (last == first) | (chunk > 0):
        return
    head = tl.program_id(1)
    kind: tl.constexpr = query.dtype.element_ty
    i, d, f = tl.arange(0, CHUNK), tl.arange(0, BK), tl.program_id(2) * BV + tl.arange(0, BV)
    at_state = state + ((tl.load(slots + row) * heads + head) * K + d[:, None]) * V + f[None, :]
    kept = (d < K)[:, None] & (f < V)[None, :]
    known = tl.where(tl.load(fresh + row) == 0, K, 0)
    held = tl.load(at_state, mask=kept & (d < known)[:, None], other=0.0)
    turn, count = (head // shared * K + d)[None, :], tl.cdiv(last - first, CHUNK)
    known_by, seen_by, left_by, fade_by = factors_at(factors, tl.program_id(0) * heads + head, i, CHUNK)
    for number in range(count):
        of_known, of_seen, of_change, fade = known_by, seen_by, left_by, fade_by
        after = tl.program_id(0) + tl.minimum(number + 1, count - 1)  # read ahead: no product consumes them
        known_by, seen_by, left_by, fade_by = factors_at(factors, after * heads + head, i, CHUNK)
        token = first + number * CHUNK + i
        inside, wide = (token < last)[:, None], token.to(tl.int64)[:, None]
        q = tl.load(query + wide * q_stride + turn, mask=inside & (d < K)[None, :], other=0.0)
        k = tl.load(key + wide * k_stride + turn, mask=inside & (d < K)[None, :], other=0.0)
        v = tl.load(value + wide * v_stride + head * V + f[None, :], mask=inside & (f < V)[None, :], other=0.0)
        place = (tl.program_id(0) + number) * heads + head
        at = place * (CHUNK * CHUNK) + i[:, None] * CHUNK + i[None, :]
        sees = tl.load(seen + at)
        at += place * (CHUNK * CHUNK)
        high, low = tl.load(solved + at), tl.load(solved + at + CHUNK * CHUNK)
        nothing = tl.zeros((CHUNK, BV), tl.float32)
        wanted = v.to(tl.float32) - dot_exact(k, held, nothing) * of_known[:, None]
        change = dot_halves(high, low, wanted, nothing)
        made = dot_exact(q, held, nothing) * of_seen[:, None]
        made = dot(sees, change.to(kind), made)
        tl.store(y + (wide * heads + head) * V + f[None, :], made.to(kind), mask=inside & (f < V)[None, :])
        held = dot_exact(tl.trans(k), change * of_change[:, None], held * fade)
    tl.store(at_state, held, mask=kept)


def places_for(tokens: int, rows: int) -> tuple[int, int, int]:
    """P for steps of these extents, and where the places of a row begin: its first token over the second number, plus
    its row times the third. Either way no two chunks meet, since a row of at least LEAST tokens has no more chunks
    than it has whole runs of LEAST, and no more than one beside its whole chunks."""
    dense = (tokens // CHUNK + rows, CHUNK, 1)
    return min(dense, (tokens // LEAST + 1, LEAST, 0))


def walk(
    op: GatedDelta, batch: Ctx, slots: Tensor, fresh: Tensor, given: Sequence[Tensor], a: Tensor, shift: Tensor,
    state: Tensor, y: Tensor,
) -> None:  # fmt: skip
    """Advance the rows of at least LEAST tokens, and write what their tokens give. ``given``: as the op's inputs."""
    query, key, value, write, keep = given
    heads, keys, values = op.value_heads, op.key_dim, op.value_dim
    places, unit, step = places_for(query.shape[0], batch.rows)
    solved = query.new_empty(places * heads * 2 * CHUNK * CHUNK)
    seen = query.new_empty(places * heads * CHUNK * CHUNK)
    factors = query.new_empty(places * heads * 4 * CHUNK, dtype=torch.float32)
    shared, bk = heads // op.key_heads, max(16, triton.next_power_of_2(keys))
    bv = max(16, min(VALUES, triton.next_power_of_2(values)))
    where = (batch.rows, heads, shared, unit, step)
    shape = {"K": keys, "BK": bk, "LEAST": LEAST, "CHUNK": CHUNK, "ROWS": 64}
    prepare_chunks[(places, heads)](
        query, key, write, keep, a, shift, batch.q_start, solved, seen, factors, *where, keys**-0.5, TINY,
        query.stride(0), key.stride(0), write.stride(0), keep.stride(0),
        **shape, LEVELS=CHUNK.bit_length() - 1, num_warps=4,
    )  # fmt: skip
    walk_chunks[(places, heads, triton.cdiv(values, bv))](
        query, key, value, state, slots, fresh, batch.q_start, y, solved, seen, factors, *where,
        query.stride(0), key.stride(0), value.stride(0), **shape, V=values, BV=bv, num_warps=4, num_stages=2,
    )  # fmt: skip
