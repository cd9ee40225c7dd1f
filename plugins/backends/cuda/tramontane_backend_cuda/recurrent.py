# SPDX-License-Identifier: Apache-2.0
"""Recurrent layers: a short convolution and the gated delta rule, along each row.

Where rows begin, which slots they have and whether they start afresh is read on the card, so that steps can be
recorded. A program walks along one row, with the part of the state that is its own in registers: decoding steps read
and write each state once. The delta rule of longer rows goes in chunks (:mod:`.chunks`); long prompts whose rows the
host knows are convolved by stock torch.

Legend: T tokens, R rows, C channels, W width of the convolution, G key heads, H value heads, K key dimension, V value
dimension.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from typing import Any

import torch
import triton
import triton.language as tl
from attrs import define, field
from torch import Tensor

from tramontane.backends.torch.recurrent import causal_conv as stock_causal_conv
from tramontane.backends.torch.recurrent import gated_delta as stock_gated_delta
from tramontane.batch import Ctx
from tramontane.ops import CausalConv, GatedDelta, Kernel, Op
from tramontane.ops.recurrent import TINY
from tramontane_backend_cuda.chunks import LEAST, gates, walk
from tramontane_backend_cuda.decode import FUNCTIONS, activation
from tramontane_backend_cuda.rows import exact, rows_of

CHANNELS = 128
"""Channels of a program."""
VALUES = 8
"""Features of values that a program, which is one warp, carries a state for: with keys of 128 features 32 registers of
a thread. Sums over keys then stay inside the warp: with four warps each token waited at 18 barriers, as compiled."""
LONG = 256
"""Tokens of a row from which on it goes through stock torch, where the host knows the rows and chunks are not ours."""
ANY = 1 << 30
"""More tokens than a row has."""


@triton.jit
def convolve_rows(
    x, weight, state, slots, fresh, q_start, y, tokens, rows, channels, x_stride,
    W: tl.constexpr, ACT: tl.constexpr, BT: tl.constexpr, BC: tl.constexpr, BW: tl.constexpr,
):  # fmt: skip
    """Some channels of one row, BT tokens at a time; then its last W - 1 inputs are kept."""
    row = tl.program_id(0)
    c, t, w = tl.program_id(1) * BC + tl.arange(0, BC), tl.arange(0, BT), tl.arange(0, BW)
    first, last = tl.load(q_start + row), tl.load(q_start + row + 1)
    kind: tl.constexpr = y.dtype.element_ty
    past: tl.constexpr = W - 1
    known = tl.where(tl.load(fresh + row) == 0, first, -(1 << 30))  # inputs before this one are in the state
    kept = state + (tl.load(slots + row) * channels + c) * past
    inside = c < channels
    for start in range(first, last, BT):
        token = start + t
        made = tl.zeros((BT, BC), tl.float32)
        for i in tl.static_range(W):
            at = token + (i - past)
            there = inside[None, :] & (token < last)[:, None]
            new = tl.load(
                x + at.to(tl.int64)[:, None] * x_stride + c[None, :], mask=there & (at >= first)[:, None], other=0.0
            ).to(state.dtype.element_ty)
            before = at - first + past
            old = tl.load(kept[None, :] + before[:, None], mask=there & (at < known)[:, None], other=0.0)
            factor = tl.load(weight + c * W + i, mask=inside, other=0.0).to(tl.float32)
            made += (new.to(tl.float32) + old.to(tl.float32)) * factor[None, :]
        made = activation(made, ACT)
        place = y + token.to(tl.int64)[:, None] * channels + c[None, :]
        tl.store(place, made.to(kind), mask=inside[None, :] & (token < last)[:, None])
    at = last - past + w  # the row's last inputs, some of them perhaps from before
    here = (w < tl.where(last > first, past, 0))[:, None] & inside[None, :]
    new = tl.load(
        x + at.to(tl.int64)[:, None] * x_stride + c[None, :], mask=here & (at >= first)[:, None], other=0.0
    ).to(state.dtype.element_ty)
    before = at - first + past
    old = tl.load(kept[None, :] + before[:, None], mask=here & (at < known)[:, None], other=0.0)
    tl.debug_barrier()  # all of it was read before any of it is written
    tl.store(kept[None, :] + w[:, None], new + old, mask=here)
    if row == rows - 1:
        for token in range(last, tokens):  # of no row
            tl.store(y + token * channels + c, tl.zeros((BC,), kind), mask=inside)


@triton.jit
def delta_rows(
    query, key, value, write, keep, a, shift, state, slots, fresh, q_start, y, tokens, rows, most, heads, shared, root,
    tiny, q_stride, k_stride, v_stride, write_stride, keep_stride,
    K: tl.constexpr, V: tl.constexpr, BK: tl.constexpr, BV: tl.constexpr,
):  # fmt: skip
    """Some features of the values of one head of one row: what is known of a key is replaced by its value. Rows of
    ``most`` tokens or more are left out."""
    row, head = tl.program_id(0), tl.program_id(1)
    i, f = tl.arange(0, BK), tl.program_id(2) * BV + tl.arange(0, BV)
    first, last = tl.load(q_start + row), tl.load(q_start + row + 1)
    kind: tl.constexpr = y.dtype.element_ty
    inside = (i < K)[:, None] & (f < V)[None, :]
    place = state + ((tl.load(slots + row) * heads + head) * K + i[:, None]) * V + f[None, :]
    end = tl.where(last - first < most, last, first)
    known = tl.where((tl.load(fresh + row) == 0) & (end > first), K, 0)
    held = tl.load(place, mask=inside & (i < known)[:, None], other=0.0)
    turn = head // shared * K + i
    for token in range(first, end):
        q = tl.load(query + token * q_stride + turn, mask=i < K, other=0.0).to(tl.float32)
        k = tl.load(key + token * k_stride + turn, mask=i < K, other=0.0).to(tl.float32)
        v = tl.load(value + token * v_stride + head * V + f, mask=f < V, other=0.0).to(tl.float32)
        beta, decay = gates(write, keep, a, shift, token * write_stride, token * keep_stride, head, token < end)
        q = q * (root / tl.sqrt(tl.sum(q * q, axis=0) + tiny))
        k = k / tl.sqrt(tl.sum(k * k, axis=0) + tiny)
        held = held * tl.exp(decay)
        change = (v - tl.sum(held * k[:, None], axis=0)) * beta
        held += k[:, None] * change[None, :]
        made = tl.sum(held * q[:, None], axis=0)
        tl.store(y + token * heads * V + head * V + f, made.to(kind), mask=f < V)
    tl.store(place, held, mask=inside & (i < tl.where(end > first, K, 0))[:, None])
    if row == rows - 1:
        for token in range(last, tokens):  # of no row
            tl.store(y + (token * heads + head) * V + f, tl.zeros((BV,), kind), mask=f < V)


Launch = Callable[[Ctx, Tensor, Tensor, Sequence[Tensor], Tensor], None]
"""``f(batch, slots of its rows, which start afresh (bytes), inputs, output)``."""


def longest(ctx: Ctx, tokens: int) -> int:
    """Tokens of the longest row, as far as the host knows; else all."""
    if ctx.host is None:
        return tokens
    return max((end - begin for begin, end in itertools.pairwise(ctx.host.q_start)), default=0)


@define(eq=False)
class _ByRows:
    """The kernel of one layer: launches of ours, or stock torch's where the host knows of a long row."""

    launch: Launch = field(repr=False)
    stock: Kernel = field(repr=False)
    chunks: bool = False
    """Ours take long rows well, but those of float32 on a card."""

    def __call__(self, ctx: Ctx | None, inputs: Sequence[Tensor], outputs: Sequence[Tensor]) -> None:
        if ctx is None or ctx.state_slot_R is None or ctx.state_fresh_R is None:
            raise TypeError("a recurrent op needs a batch with state slots")
        stock = ctx.host is not None and (not self.chunks or exact(inputs[0]))
        if stock and longest(ctx, 0) >= LONG:
            self.stock(ctx, inputs, outputs)
            return
        self.launch(ctx, ctx.state_slot_R, ctx.state_fresh_R.view(torch.uint8), inputs, outputs[0])


def causal_conv(op: Op, weights: Sequence[Any]) -> Kernel | str:
    """A short convolution along each row."""
    if not isinstance(op, CausalConv):
        return f"made for causal_conv, not {op.name}"
    stock = stock_causal_conv(op, weights)
    if isinstance(stock, str):
        return stock
    slot, weight_CW, act = weights[0], weights[1].tensor.contiguous(), FUNCTIONS[op.act]
    channels, width = weight_CW.shape
    each = min(CHANNELS, triton.next_power_of_2(channels))

    def launch(batch: Ctx, slots: Tensor, fresh: Tensor, inputs: Sequence[Tensor], y: Tensor) -> None:
        x, (state,) = rows_of(inputs[0]), slot.states
        convolve_rows[(batch.rows, triton.cdiv(channels, each))](
            x, weight_CW, state, slots, fresh, batch.q_start, y, x.shape[0], batch.rows, channels, x.stride(0),
            W=width, ACT=act, BT=1 if x.shape[0] <= 2 * batch.rows else 16, BC=each,
            BW=triton.next_power_of_2(max(1, width - 1)),
        )  # fmt: skip

    return _ByRows(launch, stock)


def gated_delta(op: Op, weights: Sequence[Any]) -> Kernel | str:
    """Linear attention by the gated delta rule."""
    if not isinstance(op, GatedDelta):
        return f"made for gated_delta, not {op.name}"
    stock = stock_gated_delta(op, weights)
    if isinstance(stock, str):
        return stock
    slot, a, shift = weights[0], weights[1].tensor, weights[2].tensor
    heads, keys, values = op.value_heads, op.key_dim, op.value_dim
    shared, bk, bv = heads // op.key_heads, triton.next_power_of_2(keys), min(VALUES, triton.next_power_of_2(values))

    def launch(batch: Ctx, slots: Tensor, fresh: Tensor, inputs: Sequence[Tensor], y: Tensor) -> None:
        given, (state,) = [rows_of(one) for one in inputs], slot.states
        tokens, most = given[0].shape[0], ANY
        if longest(batch, tokens) >= LEAST and not exact(given[0]):
            walk(op, batch, slots, fresh, given, a, shift, state, y)
            most = LEAST
        delta_rows[(batch.rows, heads, triton.cdiv(values, bv))](
            *given, a, shift, state, slots, fresh, batch.q_start, y, tokens, batch.rows, most, heads, shared,
            keys**-0.5, TINY, *(one.stride(0) for one in given),
            K=keys, V=values, BK=bk, BV=bv, num_warps=1,
        )  # fmt: skip

    return _ByRows(launch, stock, chunks=True)
