# SPDX-License-Identifier: Apache-2.0
"""Attention over the paged cache: write keys and values, attend.

Legend: T tokens, R rows, H query heads, G key/value heads, D head dimension, E value dimension, S keys seen.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from attrs import frozen
from torch import Tensor

from tramontane.batch import Ctx
from tramontane.errors import PlanError
from tramontane.ops.base import Meta, Op, op


@op("cache_write")
@frozen
class CacheWrite(Op):
    """Store this step's keys [T, G, D] and values [T, G, E] at the slots of the layer's cache group. No output.

    Weight: a :class:`~tramontane.weights.CacheSlot`.
    """

    roles = ("cache",)
    reads = ("groups",)
    effect = True

    def outputs(self, weights: Sequence[Any], *inputs: Tensor) -> tuple[Meta, ...]:
        return ()

    def reference(self, ctx: Ctx | None, weights: Sequence[Any], *inputs: Tensor) -> tuple[Tensor, ...]:
        (cache,) = weights
        cache.write(_batch(ctx).groups[cache.group].slot_T, *inputs)
        return ()


@op("attend")
@frozen
class Attend(Op):
    """Causal attention of q [T, H, D] over the layer's cache -> [T, H * E].

    Each token sees the keys of its own row up to its own position; with ``window`` w only the last w of them. ``softcap``
    bounds the scores (Gemma 2); ``sinks`` adds one learned logit per head to the softmax's denominator (gpt-oss).
    Weights: a :class:`~tramontane.weights.CacheSlot` and, with ``sinks``, a vector [H].
    """

    heads: int
    kv_heads: int
    head_dim: int
    value_dim: int
    scale: float
    window: int | None = None
    softcap: float | None = None
    sinks: bool = False

    roles = ("cache", "sinks")
    reads = ("groups", "q_start", "kv_len_R", "seq_of_T")

    def outputs(self, weights: Sequence[Any], *inputs: Tensor) -> tuple[Meta, ...]:
        (q_THD,) = inputs
        return (((q_THD.shape[0], self.heads * self.value_dim), q_THD.dtype),)

    def reference(self, ctx: Ctx | None, weights: Sequence[Any], *inputs: Tensor) -> tuple[Tensor, ...]:
        (q_THD,) = inputs
        ctx, cache = _batch(ctx), weights[0]
        sinks_H = weights[1].tensor.float() if self.sinks else None
        out = []
        # Token by token with exactly the keys it sees: every reduction has a shape that depends on the token's position
        # alone, which makes the result independent of chunking and of the other rows, bit for bit.
        for row, position, query_HD in _queries(ctx, q_THD):
            first = 0 if self.window is None else max(0, position + 1 - self.window)
            k_SGD, v_SGE = cache.read(ctx.groups[cache.group].table_RB[row], first, position + 1)
            out.append(self.one(query_HD.float(), k_SGD.float(), v_SGE.float(), sinks_H))
        if not out:
            return (q_THD.new_empty(q_THD.shape[0], self.heads * self.value_dim),)
        result = torch.stack(out).to(q_THD.dtype)
        if result.shape[0] < q_THD.shape[0]:  # padding tokens belong to no row
            result = torch.cat((result, result.new_zeros(q_THD.shape[0] - result.shape[0], result.shape[1])))
        return (result,)

    def one(self, q_HD: Tensor, k_SGD: Tensor, v_SGE: Tensor, sinks_H: Tensor | None) -> Tensor:
        """Attention of one token: [H * E]."""
        per = self.heads // self.kv_heads
        q_GPD = q_HD.view(self.kv_heads, per, self.head_dim)
        scores_GPS = torch.matmul(q_GPD, k_SGD.permute(1, 2, 0)) * self.scale
        if self.softcap is not None:
            scores_GPS = torch.tanh(scores_GPS / self.softcap) * self.softcap
        if sinks_H is None:
            weights_GPS = scores_GPS.softmax(-1)
        else:
            column = sinks_H.view(self.kv_heads, per, 1)
            weights_GPS = torch.cat((scores_GPS, column), dim=-1).softmax(-1)[..., :-1]
        return torch.matmul(weights_GPS, v_SGE.transpose(0, 1)).reshape(-1)


def _queries(ctx: Ctx, q_THD: Tensor):  # type: ignore[no-untyped-def]
    """Yield (row, position, query) for each token that belongs to a row."""
    starts, lengths = ctx.q_start.tolist(), ctx.kv_len_R.tolist()
    for row, length in enumerate(lengths):
        begin, end = starts[row], starts[row + 1]
        for token in range(begin, end):
            yield row, length - (end - token), q_THD[token]


def _batch(ctx: Ctx | None) -> Ctx:
    if ctx is None:
        raise PlanError("an op that reads the batch was called without ctx", hint="pass ctx=ctx in the model's forward")
    return ctx
