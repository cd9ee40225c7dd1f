# SPDX-License-Identifier: Apache-2.0
"""Batch preparation against a plain loop, with padding, feedback and fixed addresses."""

from __future__ import annotations

import random

import pytest
import torch
from torch import Tensor

from tramontane.batch import Ctx
from tramontane.cache.manager import CacheManager
from tramontane.cache.spec import CacheLayout, CacheSpec, plan_layout
from tramontane.prepare import BatchBuffers
from tramontane.requests import EngineRequest, Task
from tramontane.sequence import Row, Sequence, StepPlan

LAYOUT = plan_layout(
    {
        "f": CacheSpec(head_dim=16),
        "w": CacheSpec(kind="window", window=9, head_dim=8),
        "s": CacheSpec(kind="state", states=(((2,), torch.float32),)),
    },
    block_tokens=4,
)
MAX_ROWS, MAX_TOKENS, MAX_LEN = 6, 128, 96
DEVICES = [("cpu", False), ("cpu", True), pytest.param("cuda", None, marks=pytest.mark.gpu)]


def buffers(
    device: str = "cpu", mirror: bool | None = None, layout: CacheLayout = LAYOUT, **options: int
) -> BatchBuffers:
    return BatchBuffers(
        layout,
        max_tokens=MAX_TOKENS,
        max_rows=MAX_ROWS,
        max_outputs=MAX_TOKENS,
        max_model_len=MAX_LEN,
        device=device,
        mirror=mirror,
        **options,
    )


class Plans:
    """Makes random plans over sequences that live in a real cache manager."""

    def __init__(self, seed: int, layout: CacheLayout = LAYOUT) -> None:
        self.draw = random.Random(seed)
        self.cache = CacheManager(layout, 400, max_seqs=MAX_ROWS, max_tokens=MAX_LEN)

    def plan(self, rows: int, *, decode: bool = False, pending: bool = False, all_outputs: bool = False) -> StepPlan:
        made, samples, outputs = [], 0, 0
        for _ in range(rows):
            tokens = [self.draw.randrange(1, 1000) for _ in range(self.draw.randint(20, 60))]
            request = EngineRequest(id="r", prompt_token_ids=tuple(tokens))
            holding = self.cache.open(tokens)
            self.cache.admit(holding, self.cache.no_hit)
            seq = Sequence(
                request=request,
                index=0,
                tokens=tokens,
                prompt_len=len(tokens),
                limit=MAX_LEN,
                stop_ids=frozenset(),
                order=(0, 0.0, 0, 0),
                cache=holding,
            )
            unread = pending and self.draw.random() < 0.5
            count = 1 if decode or unread else self.draw.randint(1, 16)
            start = len(tokens) - count + unread if decode or unread else self.draw.randint(0, len(tokens) - count)
            assert self.cache.allocate(holding, start + count)
            self.cache.commit(holding, start)
            every = all_outputs and self.draw.random() < 0.5
            sampled = start + count >= len(tokens)
            made.append(Row(seq, start, count, sampled, every, len(made) if unread else -1))
            samples += sampled
            outputs += count if every else sampled
        tokens_ = sum(row.count for row in made)
        return StepPlan(1, made, tokens_, samples, outputs, 0, self.cache.tables)

    def close(self, plan: StepPlan) -> None:
        for row in plan.rows:
            self.cache.free(row.seq.cache)


def check(ctx: Ctx, plan: StepPlan, sampled: list[int], cache: CacheManager, layout: CacheLayout = LAYOUT) -> None:
    """Compare with what a plain loop over rows and tokens says."""
    ids, positions, seq_of, out_rows, q_start, kv_len = [], [], [], [], [0], []
    slots: list[list[int]] = [[] for _ in layout.groups]
    for number, row in enumerate(plan.rows):
        first = len(ids)
        for position in range(row.start, row.start + row.count):
            known = position < len(row.seq.tokens)
            ids.append(row.seq.tokens[position] if known else sampled[row.source])
            positions.append(position)
            seq_of.append(number)
            for index, group in enumerate(layout.groups):
                block = row.seq.cache.blocks[index][position // group.block_tokens]
                slots[index].append(block * group.block_tokens + position % group.block_tokens)
        out_rows += range(first, len(ids)) if row.all_outputs else [len(ids) - 1] * row.samples
        q_start.append(len(ids))
        kv_len.append(row.start + row.count)
    ends = [q_start[number + 1] - 1 for number, row in enumerate(plan.rows) if row.samples]
    assert [out_rows[place] for place in plan.sampled_outputs()] == ends
    count = len(plan.rows)
    assert ctx.ids_T[: len(ids)].tolist() == ids
    assert all(stream[: len(ids)].tolist() == positions for stream in ctx.positions_KT)
    assert ctx.seq_of_T[: len(ids)].tolist() == seq_of
    assert ctx.out_rows_L[: len(out_rows)].tolist() == out_rows
    assert ctx.q_start[: count + 1].tolist() == q_start
    assert ctx.kv_len_R[:count].tolist() == kv_len
    for index in range(len(layout.groups)):
        table = ctx.groups[index].table_RB
        assert ctx.groups[index].slot_T[: len(ids)].tolist() == slots[index]
        for number, row in enumerate(plan.rows):
            blocks = row.seq.cache.blocks[index]
            assert table[number].tolist() == blocks + [0] * (table.shape[1] - len(blocks))
    if layout.state_layers:
        assert ctx.state_slot_R is not None
        assert ctx.state_fresh_R is not None
        assert ctx.state_slot_R[:count].tolist() == [row.seq.slot + 1 for row in plan.rows]
        assert ctx.state_fresh_R[:count].tolist() == [row.start == 0 for row in plan.rows]
    assert ctx.counts is not None
    assert ctx.counts.tolist() == [len(ids), count, len(out_rows)]


@pytest.mark.parametrize(("device", "mirror"), DEVICES)
@pytest.mark.parametrize("pad", [False, True])
def test_batches_equal_the_plain_loop(device: str, mirror: bool | None, pad: bool) -> None:
    prepared, plans = buffers(device, mirror, positions_k=3), Plans(1)
    addresses = set()
    for number in range(120):
        draw = plans.draw
        plan = plans.plan(
            draw.randint(1, MAX_ROWS - pad),
            decode=number % 3 == 0,
            pending=number % 4 < 2,
            all_outputs=number % 5 == 0,
        )
        sampled = [draw.randrange(1000, 2000) for _ in plan.rows]
        options = {"pad_tokens": plan.tokens + draw.randint(0, 5), "pad_outputs": draw.randint(0, 9)} if pad else {}
        previous = torch.tensor(sampled, device=device)
        ctx = prepared.build(plan, previous, **options)
        check(ctx, plan, sampled, plans.cache)
        addresses.add((ctx.ids_T.data_ptr(), ctx.groups[1].table_RB.data_ptr(), ctx.q_start.data_ptr()))
        assert ctx.groups[0].table_RB.stride(0) == MAX_LEN // 4
        plans.close(plan)
    assert len(addresses) == 1


def test_dtypes_are_those_of_the_batch() -> None:
    plans = Plans(2)
    ctx = buffers().build(plans.plan(3))
    wanted: dict[str, tuple[Tensor | None, torch.dtype]] = {
        "ids": (ctx.ids_T, torch.int64),
        "positions": (ctx.positions_KT, torch.int64),
        "seq_of": (ctx.seq_of_T, torch.int32),
        "q_start": (ctx.q_start, torch.int32),
        "kv_len": (ctx.kv_len_R, torch.int32),
        "out_rows": (ctx.out_rows_L, torch.int64),
        "table": (ctx.groups[0].table_RB, torch.int32),
        "slot": (ctx.groups[0].slot_T, torch.int64),
        "state_slot": (ctx.state_slot_R, torch.int64),
        "fresh": (ctx.state_fresh_R, torch.bool),
    }
    assert {name: t.dtype for name, (t, _) in wanted.items() if t is not None} == {k: d for k, (_, d) in wanted.items()}


@pytest.mark.parametrize(("tokens", "rows"), [(5, 0), (0, 2), (1, 3), (7, 2), (3, 3)])
def test_padding_goes_to_the_null_block(tokens: int, rows: int) -> None:
    plans = Plans(3)
    plan = plans.plan(3, decode=True)
    prepared = buffers()
    before = plans.plan(2, all_outputs=True)
    while before.outputs < 8:
        plans.close(before)
        before = plans.plan(2, all_outputs=True)
    prepared.build(before)  # leave something behind
    ctx = prepared.build(plan, pad_tokens=3 + tokens, pad_rows=3 + rows, pad_outputs=8)
    check(ctx, plan, [], plans.cache)
    extra_rows = max(rows, 1 if tokens else 0)
    assert (ctx.tokens, ctx.rows, ctx.outputs) == (3 + tokens, 3 + extra_rows, 8)
    lengths = (ctx.q_start[1:] - ctx.q_start[:-1]).tolist()[3:]
    assert sum(lengths) == tokens
    assert ctx.kv_len_R.tolist()[3:] == lengths
    assert ctx.seq_of_T.tolist()[3:] == [3 + row for row, n in enumerate(lengths) for _ in range(n)]
    assert not ctx.ids_T[3:].any()
    assert not ctx.positions_KT[:, 3:].any()
    assert not ctx.out_rows_L[3:].any()
    for group in ctx.groups:
        assert not group.slot_T[3:].any()
        assert not group.table_RB[3:].any()
    assert ctx.host is not None
    assert ctx.host.q_start == ctx.q_start.tolist()
    assert ctx.host.kv_len == ctx.kv_len_R.tolist()
    assert all(len(table) == ctx.rows for table in ctx.host.tables)


def test_host_lists_say_the_same() -> None:
    plans = Plans(4)
    plan = plans.plan(4)
    ctx = buffers().build(plan)
    assert ctx.host is not None
    assert ctx.host.q_start == ctx.q_start.tolist()
    assert ctx.host.kv_len == ctx.kv_len_R.tolist()
    assert ctx.host.tables[1] == [row.seq.cache.blocks[1] for row in plan.rows]


def test_unread_ids_can_be_fed_later() -> None:
    plans = Plans(5)
    plan = plans.plan(MAX_ROWS, decode=True, pending=True)
    assert any(row.source >= 0 for row in plan.rows)
    assert any(row.source < 0 for row in plan.rows)
    prepared = buffers()
    ctx = prepared.build(plan)
    assert [int(ctx.ids_T[i]) == 0 for i in range(MAX_ROWS)] == [row.source >= 0 for row in plan.rows]
    prepared.feed(torch.tensor([5000 + i for i in range(MAX_ROWS)]))
    check(ctx, plan, [5000 + i for i in range(MAX_ROWS)], plans.cache)


def test_a_mirrored_batch_survives_the_writing_of_the_next_block() -> None:
    """The host writes the next batch into the other block while the device may still read the first."""
    prepared, plans = buffers(mirror=True), Plans(6)
    plan = plans.plan(2)
    prepared.build(plan)
    first = prepared._ring.turn
    prepared.build(plans.plan(2))
    assert prepared._ring.turn != first


def test_a_model_without_any_cached_tokens() -> None:
    layout = plan_layout({"s": CacheSpec(kind="state", states=(((2,), torch.float32),))}, block_tokens=4)
    plans = Plans(7, layout)
    plan = plans.plan(3)
    ctx = buffers(layout=layout).build(plan)
    assert ctx.groups == []
    check(ctx, plan, [], plans.cache, layout)


def test_tasks_are_not_sampled_from() -> None:
    plans = Plans(8)
    plan = plans.plan(1)
    row = plan.rows[0]
    row.seq.request = EngineRequest(id="r", prompt_token_ids=(1,), task=Task.LOGITS)
    row.samples, row.all_outputs = False, True
    plan.samples, plan.outputs = 0, row.count
    ctx = buffers().build(plan)
    assert ctx.out_rows_L.tolist() == list(range(row.count))
    assert plan.sampled_outputs() == []
