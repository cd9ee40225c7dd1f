# SPDX-License-Identifier: Apache-2.0
"""From projections to the cache in one launch: norms of queries and keys, rotation, cache entries.

A program takes a few heads of one token: queries are normed, turned and written out; keys likewise, into the cache, and
the values of the same heads with them. Everything between is float32, rounded where the sequence of ops rounds.

Legend: T tokens, H query heads, G key/value heads, D features of a head, P rotated pairs.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import triton
import triton.language as tl
from attrs import define, field
from torch import Tensor

from tramontane.batch import Ctx
from tramontane.ops import CacheWrite, Kernel, LatentWrite, Op, Rotate, RotateWrite
from tramontane.ops.attention import batch_of
from tramontane.weights import CacheSlot
from tramontane_backend_cuda.entries import PlaneView, int8_scale, store_entry, unaligned

HEADS = 8
"""Heads of a program: eight of 128 features are 1024 numbers, eight for each of 128 threads."""


@triton.jit
def _place(slot, size, block_stride, token_stride):
    """Where a slot's entries begin in a plane."""
    return (slot // size) * block_stride + (slot % size) * token_stride


@triton.jit
def _largest(x):
    """The largest magnitude of each head: [N, 1]."""
    return tl.max(tl.abs(x), axis=1)[:, None]


@triton.jit
def _scaled(x, factor, weight, f, inside, kind: tl.constexpr, LATE: tl.constexpr):
    """A normed feature, rounded as ``rms_norm`` rounds."""
    x = x * factor
    if not LATE:
        x = x.to(kind).to(tl.float32)
    return (x * tl.load(weight + f, mask=inside, other=0.0).to(tl.float32)).to(kind).to(tl.float32)


@triton.jit
def turned(
    x, angles, weight, heads_in, d, eps,
    PAIRS: tl.constexpr, REST: tl.constexpr, SIDE: tl.constexpr, NORM: tl.constexpr, LATE: tl.constexpr,
    BP: tl.constexpr, BR: tl.constexpr,
):  # fmt: skip
    """Heads at the pointers ``x`` [N, 1], normed and turned: first and second of pairs [N, BP], the rest [N, BR]."""
    kind: tl.constexpr = x.dtype.element_ty
    i, r = tl.arange(0, BP)[None, :], tl.arange(0, BR)[None, :]
    if SIDE:  # neighbours are a pair
        first, second = 2 * i, 2 * i + 1
    else:
        first, second = i, PAIRS + i
    paired, left = heads_in & (i < PAIRS), heads_in & (r < REST)
    a = tl.load(x + first, mask=paired, other=0.0).to(tl.float32)
    b = tl.load(x + second, mask=paired, other=0.0).to(tl.float32)
    rest = tl.load(x + 2 * PAIRS + r, mask=left, other=0.0).to(tl.float32)
    if NORM:
        total = tl.sum(a * a, axis=1) + tl.sum(b * b, axis=1) + tl.sum(rest * rest, axis=1)
        factor = (1.0 / tl.sqrt(total / d + eps))[:, None]
        a = _scaled(a, factor, weight, first, i < PAIRS, kind, LATE)
        b = _scaled(b, factor, weight, second, i < PAIRS, kind, LATE)
        rest = _scaled(rest, factor, weight, 2 * PAIRS + r, r < REST, kind, LATE)
    cos = tl.load(angles + i, mask=i < PAIRS, other=0.0)
    sin = tl.load(angles + PAIRS + i, mask=i < PAIRS, other=0.0)
    one = (a * cos - b * sin).to(kind).to(tl.float32)
    other = (b * cos + a * sin).to(kind).to(tl.float32)
    return one, other, rest, first, second, 2 * PAIRS + r, paired, left


@triton.jit
def _queries(
    q, angles, weight, y, token, group, heads, d, eps, q_token, q_head,
    PAIRS: tl.constexpr, REST: tl.constexpr, SIDE: tl.constexpr, NORM: tl.constexpr, LATE: tl.constexpr,
    BP: tl.constexpr, BR: tl.constexpr, N: tl.constexpr,
):  # fmt: skip
    """N query heads, written out."""
    h = group * N + tl.arange(0, N)[:, None]
    a, b, rest, ia, ib, ir, paired, left = turned(
        q + token * q_token + h * q_head, angles, weight, h < heads, d, eps, PAIRS, REST, SIDE, NORM, LATE, BP, BR
    )
    at = y + (token * heads + h) * d
    kind: tl.constexpr = y.dtype.element_ty
    tl.store(at + ia, a.to(kind), mask=paired)
    tl.store(at + ib, b.to(kind), mask=paired)
    tl.store(at + ir, rest.to(kind), mask=left)


@triton.jit
def _keys(
    k, angles, weight, turned_k, keys, key_scale, slots, token, group, kv_heads, d, eps, size,
    k_token, k_head, key_block, key_token, key_head,
    PAIRS: tl.constexpr, REST: tl.constexpr, SIDE: tl.constexpr, NORM: tl.constexpr, LATE: tl.constexpr,
    WRITE: tl.constexpr, KIND: tl.constexpr, BP: tl.constexpr, BR: tl.constexpr, N: tl.constexpr,
):  # fmt: skip
    """N key heads, into the cache or out."""
    h = group * N + tl.arange(0, N)[:, None]
    a, b, rest, ia, ib, ir, paired, left = turned(
        k + token * k_token + h * k_head, angles, weight, h < kv_heads, d, eps, PAIRS, REST, SIDE, NORM, LATE, BP, BR
    )
    scale = h * 0.0
    if WRITE:
        slot = tl.load(slots + token)
        at = keys + _place(slot, size, key_block, key_token) + h * key_head
        if KIND == "int8":
            scale = int8_scale(tl.maximum(tl.maximum(_largest(a), _largest(b)), _largest(rest)))
            where = _place(slot, size, key_block // 4, key_token // 4) + h * (key_head // 4)
            tl.store(key_scale + where, scale, mask=h < kv_heads)
    else:
        at = turned_k + (token * kv_heads + h) * d
    store_entry(at + ia, a, paired, scale, KIND)
    store_entry(at + ib, b, paired, scale, KIND)
    store_entry(at + ir, rest, left, scale, KIND)


@triton.jit
def _values(
    v, values, value_scale, slots, token, group, kv_heads, e, size,
    v_token, v_head, value_block, value_token, value_head,
    KIND: tl.constexpr, BE: tl.constexpr, N: tl.constexpr,
):  # fmt: skip
    """The values of N heads, into the cache."""
    h, f = group * N + tl.arange(0, N)[:, None], tl.arange(0, BE)[None, :]
    inside = (h < kv_heads) & (f < e)
    x = tl.load(v + token * v_token + h * v_head + f, mask=inside, other=0.0).to(tl.float32)
    slot = tl.load(slots + token)
    scale = h * 0.0
    if KIND == "int8":
        scale = int8_scale(_largest(x))
        where = _place(slot, size, value_block // 4, value_token // 4) + h * (value_head // 4)
        tl.store(value_scale + where, scale, mask=h < kv_heads)
    store_entry(values + _place(slot, size, value_block, value_token) + h * value_head + f, x, inside, scale, KIND)


@triton.jit
def rotate_write_heads(
    q, k, v, angles, q_weight, k_weight, y, turned_k, keys, values, key_scale, value_scale, slots,
    heads, kv_heads, d, e, eps, size,
    q_token, q_head, k_token, k_head, v_token, v_head, angle_stride,
    key_block, key_token, key_head, value_block, value_token, value_head,
    PAIRS: tl.constexpr, REST: tl.constexpr, SIDE: tl.constexpr, NORM: tl.constexpr, LATE: tl.constexpr,
    WRITE: tl.constexpr, KIND: tl.constexpr, BP: tl.constexpr, BR: tl.constexpr, BE: tl.constexpr, N: tl.constexpr,
):  # fmt: skip
    """N heads of one token. Without ``WRITE`` keys go to ``turned_k`` [T, G, D] instead of the cache."""
    token, group = tl.program_id(0).to(tl.int64), tl.program_id(1)
    angles += token * angle_stride
    query_groups = (heads + N - 1) // N
    if group < query_groups:
        _queries(
            q, angles, q_weight, y, token, group, heads, d, eps, q_token, q_head,
            PAIRS, REST, SIDE, NORM, LATE, BP, BR, N,
        )  # fmt: skip
    else:
        _keys(
            k, angles, k_weight, turned_k, keys, key_scale, slots, token, group - query_groups, kv_heads, d, eps, size,
            k_token, k_head, key_block, key_token, key_head,
            PAIRS, REST, SIDE, NORM, LATE, WRITE, KIND, BP, BR, N,
        )  # fmt: skip
        if WRITE:
            _values(
                v, values, value_scale, slots, token, group - query_groups, kv_heads, e, size,
                v_token, v_head, value_block, value_token, value_head, KIND, BE, N,
            )  # fmt: skip


@triton.jit
def write_heads(
    x, rest, plane, plane_scale, slots, heads, size, x_token, x_head, rest_token, rest_head,
    block_stride, token_stride, head_stride,
    A: tl.constexpr, B: tl.constexpr, KIND: tl.constexpr, BA: tl.constexpr, BB: tl.constexpr, N: tl.constexpr,
):  # fmt: skip
    """Entries of A features from ``x`` followed by B from ``rest``, of N heads of one token."""
    token = tl.program_id(0).to(tl.int64)
    h, i, j = tl.program_id(1) * N + tl.arange(0, N)[:, None], tl.arange(0, BA)[None, :], tl.arange(0, BB)[None, :]
    first = tl.load(x + token * x_token + h * x_head + i, mask=(h < heads) & (i < A), other=0.0).to(tl.float32)
    second = tl.load(rest + token * rest_token + h * rest_head + j, mask=(h < heads) & (j < B), other=0.0)
    second = second.to(tl.float32)
    slot = tl.load(slots + token)
    scale = h * 0.0
    if KIND == "int8":
        scale = int8_scale(tl.maximum(_largest(first), _largest(second)))
        where = _place(slot, size, block_stride // 4, token_stride // 4) + h * (head_stride // 4)
        tl.store(plane_scale + where, scale, mask=h < heads)
    at = plane + _place(slot, size, block_stride, token_stride) + h * head_stride
    store_entry(at + i, first, (h < heads) & (i < A), scale, KIND)
    store_entry(at + A + j, second, (h < heads) & (j < B), scale, KIND)


def _wide(count: int) -> int:
    """A power of two that holds so many; at least one."""
    return triton.next_power_of_2(max(1, count))


def _sides(x: Tensor) -> Tensor:
    """Heads [T, H, D] whose features lie side by side."""
    return x if x.stride(-1) == 1 else x.contiguous()


@define(eq=False)
class _RotateWrite:
    """The kernel of one layer."""

    op: RotateWrite
    slot: CacheSlot
    norms: Sequence[Tensor] = field(repr=False)
    _planes: tuple[Tensor, ...] = field(init=False, default=(), repr=False)
    _views: tuple[PlaneView, ...] = field(init=False, default=(), repr=False)

    def __call__(self, ctx: Ctx | None, inputs: Sequence[Tensor], outputs: Sequence[Tensor]) -> None:
        if self._planes is not self.slot.planes:
            self._planes, self._views = self.slot.planes, tuple(PlaneView.of(one) for one in self.slot.planes)
        slots = batch_of(ctx).groups[self.slot.group].slot_T
        _launch(self.op, inputs, outputs[0], None, self.norms, self._views, slots, self.slot.block_tokens)


def _launch(
    op: RotateWrite, inputs: Sequence[Tensor], y: Tensor, turned_k: Tensor | None, norms: Sequence[Tensor],
    planes: Sequence[PlaneView], slots: Tensor | None, size: int,
) -> None:  # fmt: skip
    """Rotate, and write the cache where there are planes."""
    q, k, v, angles = inputs
    q, k, v = _sides(q), _sides(k), _sides(v)
    tokens, heads, d = q.shape
    kv_heads, e, pairs = k.shape[1], v.shape[2], angles.shape[1] // 2
    if not tokens:
        return
    write = turned_k is None
    keys, values = (planes[0], planes[1]) if write else (PlaneView("raw", y, y), PlaneView("raw", y, y))
    nothing = (0, 0, 0)
    rest = d - 2 * pairs
    grid = (tokens, triton.cdiv(heads, HEADS) + triton.cdiv(kv_heads, HEADS))
    rotate_write_heads[grid](
        q, k, v, angles, norms[0] if norms else q, norms[1] if norms else q, y, y if turned_k is None else turned_k,
        keys.data, values.data, keys.scale, values.scale, angles if slots is None else slots,
        heads, kv_heads, d, e, 0.0 if op.norm is None else op.norm.eps, size,
        q.stride(0), q.stride(1), k.stride(0), k.stride(1), v.stride(0), v.stride(1), angles.stride(0),
        *(keys.strides if write else nothing), *(values.strides if write else nothing),
        PAIRS=pairs, REST=rest, SIDE=op.rotate.interleaved, NORM=bool(norms),
        LATE=op.norm is not None and op.norm.late_cast, WRITE=write, KIND=keys.kind,
        BP=_wide(pairs), BR=_wide(rest), BE=_wide(e), N=HEADS,
    )  # fmt: skip


def rotate_write(op: Op, weights: Sequence[Any]) -> Kernel | str:
    """Norms, rotation and both cache entries."""
    if not isinstance(op, RotateWrite):
        return f"made for rotate_write, not {op.name}"
    slot, norms = weights[0], [one.tensor for one in weights[1:]]
    if any(one.dim() != 1 for one in norms):
        return "its norms differ by head"
    return unaligned(slot) or _RotateWrite(op, slot, norms)


def rotate(op: Op, weights: Sequence[Any]) -> Kernel | str:
    """Queries and keys, in one launch."""
    if not isinstance(op, Rotate):
        return f"made for rotate, not {op.name}"
    whole = RotateWrite(op)

    def run(ctx: Ctx | None, inputs: Sequence[Tensor], outputs: Sequence[Tensor]) -> None:
        q, k, angles = inputs
        _launch(whole, (q, k, k, angles), outputs[0], outputs[1], (), (), None, 1)

    return run


def _write(view: PlaneView, x: Tensor, rest: Tensor | None, slots: Tensor, size: int) -> None:
    """Entries [T, heads, ..] of one plane."""
    x = _sides(x)
    tokens, heads, a = x.shape
    other = x if rest is None else _sides(rest)
    b = 0 if rest is None else other.shape[2]
    if tokens:
        write_heads[(tokens, triton.cdiv(heads, HEADS))](
            x, other, view.data, view.scale, slots, heads, size, x.stride(0), x.stride(1), other.stride(0),
            other.stride(1), *view.strides, A=a, B=b, KIND=view.kind, BA=_wide(a), BB=_wide(b), N=HEADS,
        )  # fmt: skip


def cache_write(op: Op, weights: Sequence[Any]) -> Kernel | str:
    """Keys and values that are not rotated."""
    if not isinstance(op, CacheWrite):
        return f"made for cache_write, not {op.name}"
    (slot,) = weights

    def run(ctx: Ctx | None, inputs: Sequence[Tensor], outputs: Sequence[Tensor]) -> None:
        slots = batch_of(ctx).groups[slot.group].slot_T
        for plane, new in zip(slot.planes, inputs, strict=True):
            _write(PlaneView.of(plane), new, None, slots, slot.block_tokens)

    return unaligned(slot) or run


def latent_write(op: Op, weights: Sequence[Any]) -> Kernel | str:
    """Latents and rotated keys, side by side in one entry."""
    if not isinstance(op, LatentWrite):
        return f"made for latent_write, not {op.name}"
    (slot,) = weights

    def run(ctx: Ctx | None, inputs: Sequence[Tensor], outputs: Sequence[Tensor]) -> None:
        c_TR, k_T1P = inputs
        slots = batch_of(ctx).groups[slot.group].slot_T
        _write(PlaneView.of(slot.planes[0]), c_TR.unsqueeze(1), k_T1P, slots, slot.block_tokens)

    return unaligned(slot) or run
