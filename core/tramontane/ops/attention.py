# SPDX-License-Identifier: Apache-2.0
"""Attention over the paged cache: write keys and values, attend.

Legend: T tokens, R rows, H query heads, G key/value heads, D head dimension, E value dimension, S keys seen.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
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
        cache.write(batch_of(ctx).groups[cache.group].slot_T, *inputs)
        return ()


@op("attend")
@frozen
class Attend(Op):
    """Causal attention of q [T, H, D] over the layer's cache -> [T, H * E].

    Each token sees the keys of its own row up to its own position; with ``window`` w only the last w of them.
    ``softcap`` bounds the scores (Gemma 2); ``sinks`` adds one learned logit per head to the softmax's denominator
    (gpt-oss). Weights: a :class:`~tramontane.weights.CacheSlot` and, with ``sinks``, a vector [H].
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
        ctx, cache = batch_of(ctx), weights[0]
        sinks_H = weights[1].tensor.float() if self.sinks else None

        def one(row: int, position: int, query_HD: Tensor) -> Tensor:
            first = 0 if self.window is None else max(0, position + 1 - self.window)
            k_SGD, v_SGE = cache.read(ctx.groups[cache.group].table_RB[row], first, position + 1)
            return self.one(query_HD.float(), k_SGD.float(), v_SGE.float(), sinks_H)

        return (per_token(ctx, q_THD, one, *self.outputs(weights, *inputs)),)

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


def per_token(ctx: Ctx, q_THD: Tensor, one: Callable[[int, int, Tensor], Tensor], meta: Meta) -> Tensor:
    """Attention token by token: ``one(row, position, query)`` for each token that belongs to a row, else zeros.

    With exactly the keys a token sees, every reduction has a shape that depends on the token's position alone, which
    makes the result independent of chunking and of the other rows, bit for bit.
    """
    (tokens, width), dtype = meta
    starts, lengths = ctx.q_start.tolist(), ctx.kv_len_R.tolist()
    out = [
        one(row, length - (starts[row + 1] - token), q_THD[token])
        for row, length in enumerate(lengths)
        for token in range(starts[row], starts[row + 1])
    ]
    padding = q_THD.new_zeros(tokens - len(out), width, dtype=torch.float32)
    return torch.cat((torch.stack(out), padding)).to(dtype) if out else padding.to(dtype)


def batch_of(ctx: Ctx | None) -> Ctx:
    """The batch; an op that reads it cannot do without."""
    if ctx is None:
        raise PlanError("an op that reads the batch was called without ctx", hint="pass ctx=ctx in the model's forward")
    return ctx
