# SPDX-License-Identifier: Apache-2.0
"""Paged attention with stock torch.

Rows that decode one token each are attended together over a padded gather of the cache; rows with more tokens one by
one through ``scaled_dot_product_attention``. A row whose blocks happen to lie one after the other, the usual case in a
young pool, is read in place.

Legend: T tokens, R rows, H query heads, G key/value heads, P query heads per key head, D head dimension, E value
dimension, S keys seen.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, ClassVar

import torch
from attrs import define, field
from torch import Tensor
from torch.nn import functional as F

from tramontane.batch import Ctx, HostRows
from tramontane.cache.entries import decode
from tramontane.cache.planes import gather
from tramontane.ops import Attend, Kernel, Op
from tramontane.weights import CacheSlot

MIN_BATCHED_ROWS = 4
"""Fewer decoding rows than this are attended one by one: reading in place beats gathering."""


def slots_of(ctx: Ctx | None, cache: CacheSlot) -> Tensor:
    """Where the step's tokens [T] go in the planes of a cache."""
    if ctx is None:
        raise TypeError("writing to a cache needs the batch")
    return ctx.groups[cache.group].slot_T


def cache_write(op: Op, weights: Sequence[Any]) -> Kernel | str:
    """Scatter into the planes."""
    (cache,) = weights

    def run(ctx: Ctx | None, inputs: Sequence[Tensor], outputs: Sequence[Tensor]) -> None:
        cache.write(slots_of(ctx, cache), *inputs)

    return run


def attend(op: Op, weights: Sequence[Any]) -> Kernel | str:
    """Attention over the layer's planes."""
    if not isinstance(op, Attend):
        return f"made for attend, not {op.name}"
    sinks_H = weights[1].tensor.float() if op.sinks else None
    return PagedAttention(op, weights[0], sinks_H)


def _row_slots(host: HostRows, group: int, row: int, first: int, last: int, size: int) -> slice | None:
    """The row's keys as one slice of the flattened plane, if its blocks are consecutive."""
    table = host.tables[group][row]
    begin, end = first // size, (last - 1) // size
    start = table[begin]
    if table[end] - start != end - begin or any(table[i] - start != i - begin for i in range(begin + 1, end)):
        return None
    return slice(start * size + first % size, start * size + first % size + last - first)


@define(eq=False)
class PagedAttention:
    """The kernel of one layer. A cache of one plane holds latents: keys whose first part is the value."""

    op: Attend
    cache: CacheSlot
    sinks_H: Tensor | None = field(repr=False)
    reads_host: ClassVar[bool] = True

    def __call__(self, ctx: Ctx | None, inputs: Sequence[Tensor], outputs: Sequence[Tensor]) -> None:
        if ctx is None or ctx.host is None:
            raise TypeError("the torch backend's attention reads the batch on the host")
        (q_THD,), (out,) = inputs, outputs
        self.rows(ctx, ctx.host, range(len(ctx.host.kv_len)), q_THD, out.view(-1, self.op.heads, self.op.value_dim))
        if ctx.host.q_start[-1] < out.shape[0]:
            out[ctx.host.q_start[-1] :].zero_()  # padding tokens: keep the arena free of stale values

    def rows(self, ctx: Ctx, host: HostRows, rows: Iterable[int], q_THD: Tensor, out_THE: Tensor) -> None:
        """Attend the tokens of some rows."""
        starts = host.q_start
        rows = list(rows)
        single = [row for row in rows if starts[row + 1] - starts[row] == 1]
        if len(single) >= MIN_BATCHED_ROWS:
            self._decode(ctx, single, q_THD, out_THE)
            rows = [row for row in rows if starts[row + 1] - starts[row] != 1]
        for row in rows:
            begin, end = starts[row], starts[row + 1]
            self._row(ctx, row, host.kv_len[row], q_THD[begin:end], out_THE[begin:end])

    def _row(self, ctx: Ctx, row: int, length: int, q_QHD: Tensor, out_QHE: Tensor) -> None:
        """All tokens of one row."""
        queries = q_QHD.shape[0]
        first = 0 if self.op.window is None else max(0, length - queries + 1 - self.op.window)
        k_SGD, v_SGE = self._both(self.read(ctx, row, first, length, q_QHD.dtype))
        mask = self._mask(queries, length, first, q_QHD.device)
        if self._plain and queries == 1:
            seen = None if mask is None else mask.unsqueeze(0)
            out_QHE.copy_(self._folded(q_QHD, k_SGD.unsqueeze(0), v_SGE.unsqueeze(0), seen))
            return
        if self._plain:
            y = F.scaled_dot_product_attention(
                q_QHD.transpose(0, 1).unsqueeze(0),
                k_SGD.transpose(0, 1).unsqueeze(0),
                v_SGE.transpose(0, 1).unsqueeze(0),
                attn_mask=mask,
                is_causal=mask is None,
                scale=self.op.scale,
                enable_gqa=self.op.heads != self.op.kv_heads,
            )
            out_QHE.copy_(y[0].transpose(0, 1))
            return
        allowed = torch.ones(queries, length - first, dtype=torch.bool, device=q_QHD.device) if mask is None else mask
        out_QHE.copy_(
            self._general(q_QHD.unsqueeze(0), k_SGD.unsqueeze(0), v_SGE.unsqueeze(0), allowed.unsqueeze(0))[0]
        )

    @property
    def _plain(self) -> bool:
        return self.op.softcap is None and self.sinks_H is None

    def _mask(self, queries: int, length: int, first: int, device: torch.device) -> Tensor | None:
        """bool [Q, S], true where seen; ``None`` where the causal flag or nothing at all says the same."""
        windowed = self.op.window is not None and length - first > self.op.window
        if not windowed and (queries == 1 or (queries == length and self._plain)):
            return None
        query = torch.arange(length - queries, length, device=device).unsqueeze(1)
        key = torch.arange(first, length, device=device)
        mask = key <= query
        return mask & (key > query - self.op.window) if windowed and self.op.window is not None else mask

    def read(self, ctx: Ctx, row: int, first: int, last: int, dtype: torch.dtype) -> tuple[Tensor, ...]:
        """What the planes hold of one row: [S, G, width] each, in ``dtype``."""
        cache = self.cache
        if ctx.host is None:
            raise TypeError("the torch backend's attention reads the batch on the host")
        where = _row_slots(ctx.host, cache.group, row, first, last, cache.block_tokens)
        if where is not None and all(plane.is_contiguous() for plane in cache.planes):
            return tuple(decode(plane.flatten(0, 1)[where], dtype) for plane in cache.planes)
        return cache.read(ctx.groups[cache.group].table_RB[row], first, last, dtype)

    def _both(self, planes: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        """Keys and values."""
        return (planes[0], planes[0][..., : self.op.value_dim]) if len(planes) == 1 else (planes[0], planes[1])

    def _decode(self, ctx: Ctx, rows: list[int], q_THD: Tensor, out_THE: Tensor) -> None:
        """One token of each of many rows, over a padded gather."""
        host, cache = ctx.host, self.cache
        if host is None:
            raise TypeError("decoding needs the host's view of the batch")
        device, lengths = q_THD.device, [host.kv_len[r] for r in rows]
        tokens = torch.tensor([host.q_start[r] for r in rows], device=device)
        length_R = torch.tensor(lengths, device=device)
        width, size = max(lengths), cache.block_tokens
        position_RS = torch.arange(width, device=device).expand(len(rows), width)
        if self.op.window is not None and width > self.op.window:
            width = self.op.window
            position_RS = (length_R - width).clamp_(min=0).unsqueeze(1) + torch.arange(width, device=device)
        seen_RS = position_RS < length_R.unsqueeze(1)
        table = ctx.groups[cache.group].table_RB[torch.tensor(rows, device=device)].long()
        block_RS = (position_RS // size).clamp_(max=table.shape[1] - 1)
        slot_RS = table.gather(1, block_RS) * size + position_RS % size
        slot_RS = slot_RS.masked_fill_(~seen_RS, 0)
        k_RSGD, v_RSGE = self._both([gather(plane, slot_RS, q_THD.dtype) for plane in cache.planes])
        v_RSGE = v_RSGE.masked_fill(~seen_RS[..., None, None], 0)  # a masked weight of 0 times garbage could be NaN
        q_RHD, seen_R1S = q_THD[tokens], seen_RS.unsqueeze(1)
        if self._plain:
            y_RHE = self._folded(q_RHD, k_RSGD, v_RSGE, seen_R1S)
        else:
            y_RHE = self._general(q_RHD.unsqueeze(1), k_RSGD, v_RSGE, seen_R1S)[:, 0]
        out_THE[tokens] = y_RHE.to(out_THE.dtype)

    def _folded(self, q_RHD: Tensor, k_RSGD: Tensor, v_RSGE: Tensor, seen_R1S: Tensor | None) -> Tensor:
        """One token a row: the P query heads of a key head stand as P queries, so that each key is read once."""
        q_RGPD = q_RHD.view(q_RHD.shape[0], self.op.kv_heads, -1, self.op.head_dim)
        seen = None if seen_R1S is None else seen_R1S.unsqueeze(1)
        y_RGPE = F.scaled_dot_product_attention(
            q_RGPD, k_RSGD.transpose(1, 2), v_RSGE.transpose(1, 2), attn_mask=seen, scale=self.op.scale
        )
        return y_RGPE.reshape(-1, self.op.heads, self.op.value_dim)

    def _general(self, q_RQHD: Tensor, k_RSGD: Tensor, v_RSGE: Tensor, seen_RQS: Tensor) -> Tensor:
        """Softcaps and sinks, in float32: [R, Q, H, E]."""
        op, groups = self.op, self.op.kv_heads
        rows, queries = q_RQHD.shape[:2]
        q = q_RQHD.float().view(rows, queries, groups, -1, op.head_dim).permute(0, 2, 3, 1, 4)  # R G P Q D
        scores = torch.matmul(q, k_RSGD.float().permute(0, 2, 3, 1).unsqueeze(2)) * op.scale  # R G P Q S
        if op.softcap is not None:
            scores = scores.div_(op.softcap).tanh_().mul_(op.softcap)
        scores.masked_fill_(~seen_RQS[:, None, None], float("-inf"))
        if self.sinks_H is not None:
            sink = self.sinks_H.view(1, groups, -1, 1, 1).expand(*scores.shape[:-1], 1)
            weights = torch.cat((scores, sink), dim=-1).softmax(-1)[..., :-1]
        else:
            weights = scores.softmax(-1)
        y = torch.matmul(weights, v_RSGE.float().permute(0, 2, 1, 3).unsqueeze(2))  # R G P Q E
        return y.permute(0, 3, 1, 2, 4).reshape(rows, queries, op.heads, op.value_dim)
