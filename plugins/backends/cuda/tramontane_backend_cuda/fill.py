# SPDX-License-Identifier: Apache-2.0
"""Builds a step's batch on the card from a record of its rows (:mod:`tramontane.rows`): a program a row.

Legend: T tokens, R rows, B blocks.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from tramontane.fields import Fields
from tramontane.rows import HEADER, OWN, PER_GROUP, Size, StepRows

LANES = 256
"""Tokens, or blocks, that a program writes at once."""
_HEADER, _OWN, _PER_GROUP = tl.constexpr(HEADER), tl.constexpr(OWN), tl.constexpr(PER_GROUP)


@triton.jit
def _row(record, r, tokens, rows, LINE: tl.constexpr):
    """Whether a row is none of padding; its slot, first position, tokens, and the first of them in the step.

    Rows of padding have a token each as long as there are any, the last row has all the rest."""
    true_tokens, true_rows = tl.load(record), tl.load(record + 1)
    there = r < true_rows
    own = record + _HEADER + tl.minimum(r, true_rows - 1) * LINE  # a row of padding reads some line, and ignores it
    extra, place = tokens - true_tokens, r - true_rows
    padding = tl.where(place < extra, 1, 0)
    if r == rows - 1:
        padding += extra - tl.minimum(extra, rows - true_rows)
    slot = tl.where(there, tl.load(own), -1)
    start = tl.where(there, tl.load(own + 1), 0)
    count = tl.where(there, tl.load(own + 2), padding)
    first = tl.where(there, tl.load(own + 3), true_tokens + tl.minimum(place, extra))
    return there, own, slot, start, count, first


@triton.jit(do_not_specialize=["tokens", "rows", "outputs"])
def fill_rows(
    record, previous, ids, positions, seq_of, q_start, kv_len, out_rows, state_slot, state_fresh, counts,
    tokens, rows, outputs, streams, stream_stride,
    LINE: tl.constexpr, STATES: tl.constexpr, LANES: tl.constexpr,
):  # fmt: skip
    """What a row has of everything but blocks; the first row's program writes the counts, too."""
    r = tl.program_id(0)
    there, own, slot, start, count, first = _row(record, r, tokens, rows, LINE)
    lane = tl.arange(0, LANES)
    tl.store(q_start + r, first)
    tl.store(kv_len + r, start + count)
    if r == rows - 1:
        tl.store(q_start + rows, first + count)
    output = tl.where(there, tl.load(own + 5), -1)
    if output >= 0:
        tl.store(out_rows + output, (first + count - 1).to(tl.int64))
    if r == 0:
        for i in range(3):
            tl.store(counts + i, tl.load(record + i))
        for begin in range(tl.load(record + 2), outputs, LANES):
            tl.store(out_rows + begin + lane, tl.zeros((LANES,), tl.int64), mask=begin + lane < outputs)
    if STATES:
        tl.store(state_slot + r, (slot + 1).to(tl.int64))
        tl.store(state_fresh + r, (start == 0).to(tl.uint8))
    source, known = tl.load(own + 4), record + tl.load(record + 3)
    own_count = tl.where(there, count, 0)  # tokens of padding have nothing of their own
    sampled = tl.where(there & (source >= 0), count - 1, -1)
    for begin in range(0, count, LANES):
        t = begin + lane
        inside, at = t < count, first + t
        token = tl.load(known + at, mask=t < own_count, other=0).to(tl.int64)
        token += tl.load(previous + source + t * 0, mask=t == sampled, other=0)  # of these the record says 0
        tl.store(ids + at, token, mask=inside)
        tl.store(seq_of + at, r + t * 0, mask=inside)
        position = tl.where(t < own_count, start + t, 0).to(tl.int64)
        for stream in range(streams):
            tl.store(positions + stream * stream_stride + at, position, mask=inside)


@triton.jit(do_not_specialize=["tokens", "rows", "group"])
def fill_blocks(
    record, kept, slots, table, tokens, rows, width, block_tokens, group,
    LINE: tl.constexpr, LANES: tl.constexpr,
):  # fmt: skip
    """A row's block table in one group, and where its tokens go. Blocks that are new are added to what is kept."""
    r = tl.program_id(0)
    there, own, slot, start, count, first = _row(record, r, tokens, rows, LINE)
    own += _OWN + _PER_GROUP * group
    known, blocks = tl.where(there, tl.load(own), 0), tl.where(there, tl.load(own + 1), 0)
    null, fresh = tl.load(own + 2), record + tl.load(own + 3) - known
    mine = kept + tl.maximum(slot, 0).to(tl.int64) * width
    own_count, lane = tl.where(there, count, 0), tl.arange(0, LANES)
    for begin in range(0, width, LANES):
        b = begin + lane
        new = (b >= known) & (b < blocks)
        block = tl.load(mine + b, mask=b < known, other=0)
        block = tl.where(new, tl.load(fresh + b, mask=new, other=0), block)
        tl.store(mine + b, block, mask=new)
        shown = tl.where((b >= null) & (b < blocks), block, 0)
        tl.store(table + r.to(tl.int64) * width + b, shown, mask=b < width)
    for begin in range(0, count, LANES):
        t = begin + lane
        inside, b = t < own_count, (start + t) // block_tokens
        block = tl.load(fresh + b, mask=inside & (b >= known), other=0)
        block += tl.load(mine + b, mask=inside & (b < known), other=0)
        place = block.to(tl.int64) * block_tokens + (start + t) % block_tokens
        tl.store(slots + first + t, tl.where(inside, place, 0), mask=t < count)


def fill(rows: StepRows, batch: Fields[Tensor], size: Size) -> None:
    """:data:`tramontane.rows.Fill`: a launch, and one for each cache group."""
    record, groups = rows.record, len(rows.kept)
    line, grid = OWN + PER_GROUP * groups, (size.rows,)
    previous = batch.ids if rows.previous_L is None else rows.previous_L
    fill_rows[grid](
        record, previous, batch.ids, batch.positions, batch.seq_of, batch.q_start, batch.kv_len, batch.out_rows,
        batch.state_slot, batch.state_fresh.view(torch.uint8), batch.counts,
        size.tokens, size.rows, size.outputs, batch.positions.shape[0], batch.positions.stride(0),
        LINE=line, STATES=rows.states, LANES=LANES, num_warps=4,
    )  # fmt: skip
    for group, kept in enumerate(rows.kept):
        fill_blocks[grid](
            record, kept, batch.slots[group], batch.tables[group], size.tokens, size.rows, kept.shape[1],
            rows.block_tokens[group], group, LINE=line, LANES=LANES, num_warps=4,
        )  # fmt: skip
