# SPDX-License-Identifier: Apache-2.0
"""Multi-head latent attention: each head's matrices move to its queries and results; the latents are attended.

The latents are one key head that all query heads share, so the heads are rows of one matrix product and a latent is
read once for all of them, as key and as value.

Legend: T tokens, H heads, N unrotated and P rotated features of a head, R rank of the latent, V value dimension.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from attrs import define, field
from torch import Tensor

from tramontane.backends.torch.latent import attend_latent as stock_attend_latent
from tramontane.batch import Ctx
from tramontane.ops import AttendLatent, Kernel, Op
from tramontane.ops.attention import batch_of
from tramontane_backend_cuda.attention import AttendMap, TaskAttention
from tramontane_backend_cuda.entries import unaligned
from tramontane_backend_cuda.tasks import make_map

MANY_TOKENS = 256
"""A step of so many tokens or more, whose rows the host knows, may expand keys and values: fewer multiplications."""


@define(eq=False)
class _LatentAttention:
    """The kernel of one layer, with a map or without."""

    op: AttendLatent
    latents: TaskAttention
    up_HNR: Tensor = field(repr=False)
    values_HRV: Tensor = field(repr=False)
    stock: Kernel = field(repr=False)

    def __call__(self, ctx: Ctx | None, inputs: Sequence[Tensor], outputs: Sequence[Tensor]) -> None:
        batch, op, (q_THN, q_THP) = batch_of(ctx), self.op, inputs[:2]
        tokens = q_THN.shape[0]
        if not tokens:
            return
        if tokens >= MANY_TOKENS and batch.host is not None:
            self.stock(ctx, inputs[:2], outputs)
            return
        moved_HTR = torch.bmm(q_THN.transpose(0, 1), self.up_HNR)
        shape = self.latents.map.shape(batch)
        tasks = make_map(batch, shape) if len(inputs) == 2 else inputs[2]
        c_THR = q_THN.new_empty(tokens, op.heads, op.rank)
        q_THP = q_THP if q_THP.stride(-1) == 1 else q_THP.contiguous()
        self.latents(batch, shape, tasks, moved_HTR.transpose(0, 1), q_THP, c_THR)
        made_HTV = torch.bmm(c_THR.transpose(0, 1), self.values_HRV)
        outputs[0].view(tokens, op.heads, op.value_dim).copy_(made_HTV.transpose(0, 1))


def latent_map(op: AttendLatent) -> AttendMap:
    """The map that a layer needs. No row is left to another kernel."""
    return AttendMap(heads=op.heads, kv_heads=1, plain=False)


def attend_latent(op: Op, weights: Sequence[Any]) -> Kernel | str:
    """Attention over latents; its matrix is dense."""
    if not isinstance(op, AttendLatent):
        return f"made for attend_latent, not {op.name}"
    slot, matrix = weights
    if op.rank < 16 or op.rank & (op.rank - 1):
        return f"latents of rank {op.rank}, which is no power of two from 16 on"
    stock = stock_attend_latent(op, weights)
    if isinstance(stock, str):
        return stock
    up_HNR, values_HVR = op.split(matrix.dequantize())
    latents = TaskAttention(latent_map(op), slot, (op.rank, op.rope_dim), op.rank, op.scale)
    return unaligned(slot) or _LatentAttention(op, latents, up_HNR, values_HVR.mT.contiguous(), stock)
