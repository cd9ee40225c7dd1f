# SPDX-License-Identifier: Apache-2.0
"""From a step's plan to the batch a model sees, in buffers at fixed addresses.

Everything is written with numpy into one block of host memory. On the host the batch's tensors are views of that block;
for another device the block is pinned and copied to a block of the same layout there, whose views are the batch. Views
never move, so a captured step can be replayed on the next batch. Tokens that the host has not read yet (a step launched
ahead) are filled in on the device. A backend may build the batches of replayed steps there altogether, from records of
their rows (:mod:`tramontane.rows`); what is written here is their definition.

This module decides nothing: which tokens run is the scheduler's business.

Shape legend: T tokens, R rows, L logit rows, B blocks, K position streams.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import accumulate
from math import ceil
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tramontane.adapters.mix import MixBuffer
from tramontane.batch import Ctx, GroupCtx, HostRows
from tramontane.cache.spec import CacheLayout
from tramontane.distributed.group import Group
from tramontane.fields import Array, Fields, numpy_view, offsets_of, shapes_of, tensor_view
from tramontane.ring import COPIES, HostRing
from tramontane.rows import Fill, RowFeed, Size
from tramontane.sequence import NO_ADAPTER, Row, StepPlan

#: Batch shapes whose views are kept.
KEPT_VIEWS = 256


class BatchBuffers:
    """The memory in which batches are built.

    Args:
        layout: The cache groups.
        max_tokens: Most tokens of a step, padding included.
        max_rows: Most rows of a step; one more is kept for padding.
        max_outputs: Most logit rows of a step.
        max_model_len: Most tokens of a sequence.
        device: Where the batch is to be.
        positions_k: Position streams.
        columns: Most adapters that are loaded at a time.
        mirror: Whether the batch is a copy of what is written; ``None``: where the device is not the host. A runner
            that works in the background on the host needs it too: its batch stays whole while the next is written.
        fill: Builds the batches of steady steps on the device, from records of their rows; ``None``: they are written
            here and copied like all others.
    """

    def __init__(
        self,
        layout: CacheLayout,
        *,
        max_tokens: int,
        max_rows: int,
        max_outputs: int,
        max_model_len: int,
        device: torch.device | str = "cpu",
        positions_k: int = 1,
        columns: int = 0,
        mirror: bool | None = None,
        fill: Fill | None = None,
    ) -> None:
        self.device = torch.device(device)
        self.layout = layout
        self._sizes = [group.block_tokens for group in layout.groups]
        widths = [ceil(max_model_len / size) for size in self._sizes]
        self._most_blocks = tuple(widths)
        self._shapes = shapes_of(max_tokens, max_rows + 1, max_outputs, positions_k, widths)
        self._offsets, total = offsets_of(self._shapes)
        self._head_bytes = self._offsets["table0"] if widths else total
        self._mirror = self.device.type != "cpu" if mirror is None else mirror
        self._ring = HostRing(total, self.device, COPIES if self._mirror else 1)
        self._hosts = [self._fields(numpy_view(block.numpy())) for block in self._ring.blocks]
        self._block = self._ring.block
        if self._mirror:
            self._block = torch.zeros(total, dtype=torch.uint8, device=self.device)
        self._batch: Fields[Tensor] = self._fields(tensor_view(self._block))
        self._views: dict[tuple[Any, ...], Ctx] = {}
        self._iota = np.arange(max(max_tokens, max_rows + 1) + 1, dtype=np.int64)
        self._feeds = 0
        self._columns, self._max_tokens = columns, max_tokens
        self._mix: MixBuffer | None = None
        self._feed = None if fill is None else RowFeed(layout, fill, widths, max_rows, max_tokens, self.device)

    def build(
        self,
        plan: StepPlan,
        previous: Tensor | None = None,
        *,
        pad_tokens: int = 0,
        pad_rows: int = 0,
        pad_outputs: int = 0,
        steady: bool = False,
    ) -> Ctx:
        """Write a plan's batch and return it. The next call overwrites it.

        Args:
            plan: What the step computes.
            previous: The previous step's sampled ids, for rows whose token the host has not read. ``None`` leaves those
                ids 0 until :meth:`feed`.
            pad_tokens: Pad T to at least this: extra tokens have id 0 and go to the null block. They belong to extra
                rows, one each, the last extra row taking what is left (an extra row is added if none is asked for).
            pad_rows: Pad R to at least this.
            pad_outputs: Pad L to at least this, with token 0.
            steady: The batch is for a replayed step: its tables are as wide as they can be, so that batches of equal
                T, R and L are the very same tensors, and nothing is said to kernels that run on the host.
        """
        there = self._feed if steady else None
        if there is not None and (previous is not None or all(row.source < 0 for row in plan.rows)):
            size = _padded(plan, pad_tokens, pad_rows, pad_outputs, self._most_blocks)
            there.build(plan, previous, self._batch, size)
            self._feeds = 0
            ctx = self._seen(size)
        else:
            widths = self._widths(plan)
            size = _padded(plan, pad_tokens, pad_rows, pad_outputs, self._most_blocks if steady else widths)
            ctx = self._write(plan, size, widths, steady)
            if previous is not None:
                self.feed(previous)
        if any(row.seq.adapter != NO_ADAPTER for row in plan.rows):
            self._add_mix(ctx, plan.rows)
        return ctx

    def _write(self, plan: StepPlan, size: Size, widths: tuple[int, ...], steady: bool) -> Ctx:
        """Write a batch on the host, and copy it where that is another device."""
        host = self._hosts[self._ring.next()]
        ends = list(accumulate([row.count for row in plan.rows]))
        self._write_ids(host, plan.rows, plan.tokens)
        self._pad(host, plan, size)
        if plan.tokens == 1:
            self._write_one(host, plan, widths)
        else:
            self._write_rows(host, plan, ends, widths)
            self._write_outputs(host, plan, ends)
        if self._mirror:
            self._copy(size)
        ctx = self._seen(size)
        if not steady:
            ctx.host = self._host_rows(host, plan, ends, size)
        return ctx

    def feed(self, previous: Tensor) -> None:
        """Fill in the ids of the last built batch that the host did not know.

        Args:
            previous: int64, the sampled ids of the step before, on the buffers' device.
        """
        if self._feeds:
            batch, count = self._batch, self._feeds
            batch.ids.index_copy_(0, batch.feed_to[:count], previous.index_select(0, batch.feed_from[:count]))

    def _add_mix(self, ctx: Ctx, rows: list[Row]) -> None:
        if self._mix is None:
            self._mix = MixBuffer(self._max_tokens, self._columns, self.device)
        ctx.mix_TA, adapted = self._mix.write(rows, ctx.tokens)
        if ctx.host is not None:
            ctx.host.adapted, ctx.host.columns = adapted, [row.seq.adapter for row in rows]

    def _write_ids(self, host: Fields[NDArray[Any]], rows: list[Row], tokens: int) -> None:
        ids: list[int] = []
        to, source = [], []
        for row in rows:
            start, count, unread = row.start, row.count, row.source
            if unread >= 0:
                ids += row.seq.tokens[start : start + count - 1]
                to.append(len(ids))
                source.append(unread)
                ids.append(0)
            elif count == 1:
                ids.append(row.seq.tokens[start])
            else:
                ids += row.seq.tokens[start : start + count]
        host.ids[:tokens] = ids
        self._feeds = len(to)
        if to:
            host.feed_to[: len(to)] = to
            host.feed_from[: len(to)] = source

    def _write_rows(self, host: Fields[NDArray[Any]], plan: StepPlan, ends: list[int], widths: tuple[int, ...]) -> None:
        """Positions, places in the cache and the rows' extents."""
        rows, tokens = plan.rows, plan.tokens
        count = len(rows)
        starts_R = np.array([row.start for row in rows], np.int64)
        counts_R = np.array([row.count for row in rows], np.int64)
        slots_R = np.array([row.seq.cache.slot for row in rows], np.int64)
        host.q_start[0] = 0
        host.q_start[1 : count + 1] = ends
        host.kv_len[:count] = starts_R + counts_R
        if tokens == count:
            positions_T, slots_T = starts_R, slots_R
            host.seq_of[:count] = self._iota[:count]
        else:
            row_T = np.repeat(self._iota[:count], counts_R)
            host.seq_of[:tokens] = row_T
            positions_T = self._iota[:tokens] + np.repeat(starts_R - np.array(ends) + counts_R, counts_R)
            slots_T = slots_R[row_T]
        host.positions[:, :tokens] = positions_T
        for group, table in enumerate(plan.tables):
            block_tokens = self._sizes[group]
            block_T, offset_T = np.divmod(positions_T, block_tokens)
            host.slots[group][:tokens] = table[slots_T, block_T] * np.int64(block_tokens) + offset_T
            width = widths[group]  # what lies beyond in a wider table is read by nobody
            host.tables[group][:count, :width] = table[slots_R, :width]
        if self.layout.state_layers:
            host.state_slot[:count] = slots_R + 1
            host.state_fresh[:count] = starts_R == 0

    def _write_one(self, host: Fields[NDArray[Any]], plan: StepPlan, widths: tuple[int, ...]) -> None:
        """The same for a single token, number by number: a small model's step is not longer than thirty numpy calls."""
        row = plan.rows[0]
        start, slot = row.start, row.seq.cache.slot
        host.q_start[0], host.q_start[1], host.kv_len[0], host.seq_of[0], host.out_rows[0] = 0, 1, start + 1, 0, 0
        host.positions[:, 0] = start
        for group, table in enumerate(plan.tables):
            block, offset = divmod(start, self._sizes[group])
            host.slots[group][0] = int(table[slot, block]) * self._sizes[group] + offset
            host.tables[group][0, : widths[group]] = table[slot, : widths[group]]
        if self.layout.state_layers:
            host.state_slot[0], host.state_fresh[0] = slot + 1, start == 0

    def _write_outputs(self, host: Fields[NDArray[Any]], plan: StepPlan, ends: list[int]) -> None:
        if plan.outputs == plan.samples == len(plan.rows):
            host.out_rows[: plan.outputs] = ends
            host.out_rows[: plan.outputs] -= 1
            return
        places: list[int] = []
        for row, end in zip(plan.rows, ends, strict=True):
            if row.all_outputs:
                places += range(end - row.count, end)
            elif row.samples:
                places.append(end - 1)
        host.out_rows[: plan.outputs] = places

    def _pad(self, host: Fields[NDArray[Any]], plan: StepPlan, size: Size) -> None:
        """Write what lies between the true and the padded extents, and the true counts."""
        count, tokens, outputs = len(plan.rows), plan.tokens, plan.outputs
        extra, rows = size.tokens - tokens, size.rows
        host.counts[:] = (tokens, count, outputs)
        if rows > count:
            lengths = np.zeros(rows - count, np.int64)
            lengths[:extra] = 1
            lengths[-1] += extra - lengths.sum()
            host.q_start[count + 1 : rows + 1] = tokens + lengths.cumsum()
            host.kv_len[count:rows] = lengths
            host.seq_of[tokens : size.tokens] = np.repeat(self._iota[count:rows], lengths)
            host.ids[tokens : size.tokens] = 0
            host.positions[:, tokens : size.tokens] = 0
            for slots, table in zip(host.slots, host.tables, strict=True):
                slots[tokens : size.tokens] = 0
                table[count:rows] = 0
            host.state_slot[count:rows] = 0
            host.state_fresh[count:rows] = True
        host.out_rows[outputs : size.outputs] = 0

    def _widths(self, plan: StepPlan) -> tuple[int, ...]:
        """B of each group: blocks of the longest row."""
        return tuple(max([len(row.seq.cache.blocks[group]) for row in plan.rows]) for group in range(len(self._sizes)))

    def _host_rows(self, host: Fields[NDArray[Any]], plan: StepPlan, ends: list[int], size: Size) -> HostRows:
        extra = size.rows - len(plan.rows)
        kv_len = [row.start + row.count for row in plan.rows]
        tables = [[row.seq.cache.blocks[group] for row in plan.rows] for group in range(len(self._sizes))]
        if extra:
            ends = host.q_start[1 : size.rows + 1].tolist()
            kv_len = host.kv_len[: size.rows].tolist()
            for group, table in enumerate(tables):
                table += [[0] * ceil(n / self._sizes[group]) for n in kv_len[len(plan.rows) :]]
        return HostRows([0, *ends], kv_len, tables)

    def _seen(self, size: Size) -> Ctx:
        """The batch's views."""
        key = (size.tokens, size.rows, size.outputs, size.blocks)
        views = self._views.get(key)
        if views is None:
            if len(self._views) >= KEPT_VIEWS:
                self._views.clear()
            views = self._views[key] = self._view(size)
        return Ctx(
            views.ids_T,
            views.positions_KT,
            views.seq_of_T,
            views.q_start,
            views.kv_len_R,
            views.out_rows_L,
            views.groups,
            views.state_slot_R,
            views.state_fresh_R,
            counts=views.counts,
        )

    def _copy(self, size: Size) -> None:
        """Copy everything but the tables in one piece, and of each table the rows in use."""
        source = self._ring.block
        for start, end in self._pieces(size.rows):
            self._block[start:end].copy_(source[start:end], non_blocking=True)
        self._ring.sent()

    def _pieces(self, rows: int) -> list[tuple[int, int]]:
        """The ranges of bytes in use: everything before the tables, and of each table its rows."""
        pieces = [(0, self._head_bytes)]
        for group in range(len(self._sizes)):
            offset = self._offsets[f"table{group}"]
            pieces.append((offset, offset + rows * self._shapes[f"table{group}"][0][1] * 4))
        return pieces

    @staticmethod
    def extents(ctx: Ctx) -> list[Any]:
        """What :meth:`receive` has to know of a batch beside its bytes."""
        widths = [one.table_RB.shape[1] for one in ctx.groups]
        return [ctx.tokens, ctx.rows, ctx.outputs, widths, ctx.host is None]

    def send(self, group: Group, ctx: Ctx) -> None:
        """Give the other workers of a model the last built batch."""
        for start, end in self._pieces(ctx.rows):
            group.copy(self._block[start:end])

    def receive(self, group: Group, tokens: int, rows: int, outputs: int, widths: list[int], steady: bool) -> Ctx:
        """The batch that the first worker sent."""
        for start, end in self._pieces(rows):
            group.copy(self._block[start:end])
        ctx = self._view(Size(tokens, rows, outputs, tuple(widths)))
        if not steady:
            tables = [one.table_RB.tolist() for one in ctx.groups]
            ctx.host = HostRows(ctx.q_start.tolist(), ctx.kv_len_R.tolist(), tables)
        return ctx

    def _view(self, size: Size) -> Ctx:
        batch, states = self._batch, bool(self.layout.state_layers)
        groups = [
            GroupCtx(table[: size.rows, :width], slots[: size.tokens])
            for table, slots, width in zip(batch.tables, batch.slots, size.blocks, strict=True)
        ]
        return Ctx(
            batch.ids[: size.tokens],
            batch.positions[:, : size.tokens],
            batch.seq_of[: size.tokens],
            batch.q_start[: size.rows + 1],
            batch.kv_len[: size.rows],
            batch.out_rows[: size.outputs],
            groups,
            batch.state_slot[: size.rows] if states else None,
            batch.state_fresh[: size.rows] if states else None,
            counts=batch.counts,
        )

    def _fields(self, view: Callable[[int, tuple[int, ...], str], Array]) -> Fields[Array]:
        made = {name: view(self._offsets[name], shape, dtype) for name, (shape, dtype) in self._shapes.items()}
        groups = range(len(self._sizes))
        slots, tables = [made.pop(f"slots{g}") for g in groups], [made.pop(f"table{g}") for g in groups]
        return Fields(**made, slots=slots, tables=tables)


def _padded(plan: StepPlan, tokens: int, rows: int, outputs: int, widths: tuple[int, ...]) -> Size:
    """The extents of a plan's batch that is padded to at least these."""
    extra = max(0, tokens - plan.tokens)
    more = len(plan.rows) + (extra > 0)
    return Size(plan.tokens + extra, max(more, rows), max(plan.outputs, outputs), widths)
