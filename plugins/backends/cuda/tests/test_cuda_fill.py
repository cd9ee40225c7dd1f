# SPDX-License-Identifier: Apache-2.0
"""Batches built by Triton kernels from records of rows are, bit for bit, those that the host writes."""

from __future__ import annotations

import random

import pytest

pytest.importorskip("triton", reason="triton has packages for Linux only")

import torch
from cuda_kit import HERE
from torch import Tensor

from tramontane.batch import Ctx
from tramontane.cache.manager import CacheManager
from tramontane.cache.spec import CacheLayout, CacheSpec, plan_layout
from tramontane.prepare import BatchBuffers
from tramontane.requests import EngineRequest
from tramontane.sequence import Row, Sequence, StepPlan
from tramontane_backend_cuda.fill import fill

ROWS, TOKENS, LENGTH = 4, 24, 60
WINDOW = CacheSpec(kind="window", window=9, head_dim=8)
STATE = CacheSpec(kind="state", states=(((2,), torch.float32),))
LAYOUTS = {
    "two groups and states": {"f": CacheSpec(head_dim=16), "w": WINDOW, "s": STATE},
    "one group": {"f": CacheSpec(head_dim=16)},
    "states alone": {"s": STATE},
}


class Life:
    """Sequences that come, read their prompts in chunks, decode, and go: a plan a step."""

    def __init__(self, layout: CacheLayout, seed: int) -> None:
        self.draw, self.serial = random.Random(seed), 0
        self.cache = CacheManager(layout, 200, max_seqs=ROWS, max_tokens=LENGTH)
        self.running: list[Sequence] = []
        self.sampled = 0

    def step(self) -> StepPlan:
        draw = self.draw
        for seq in [one for one in self.running if one.computed > 40 or draw.random() < 0.1]:
            self.running.remove(seq)
            self.cache.free(seq.cache)
        while len(self.running) < ROWS and (not self.running or draw.random() < 0.6):
            self.running.append(self.admit())
        rows, left = [], TOKENS
        for seq in self.running:
            ahead = seq.computed >= len(seq.tokens)
            count = min(1 if ahead else draw.randint(1, 12), left, max(1, len(seq.tokens) - seq.computed))
            if count < 1 or not self.cache.allocate(seq.cache, seq.computed + count):
                continue
            samples = seq.computed + count >= len(seq.tokens)
            source = draw.randrange(self.sampled) if ahead and self.sampled else -1
            if ahead and source < 0:
                seq.tokens.append(draw.randrange(1, 1000))
            rows.append(Row(seq, seq.computed, count, samples, source=source))
            left -= count
        self.sampled = sum(row.samples for row in rows)
        return StepPlan(
            self.serial, rows, sum(row.count for row in rows), self.sampled, self.sampled, 0, self.cache.tables
        )  # fmt: skip

    def done(self, plan: StepPlan) -> None:
        for row in plan.rows:
            row.seq.computed += row.count
            if row.source >= 0:
                row.seq.tokens.append(7)
            self.cache.commit(row.seq.cache, row.seq.computed)

    def admit(self) -> Sequence:
        tokens = [self.draw.randrange(1, 1000) for _ in range(self.draw.randint(1, 30))]
        holding = self.cache.open(tokens)
        self.cache.admit(holding, self.cache.lookup(holding))
        return Sequence(
            request=EngineRequest(id="r", prompt_token_ids=tuple(tokens)), index=0, tokens=tokens,
            prompt_len=len(tokens), limit=LENGTH, stop_ids=frozenset(), order=(0, 0.0, 0, 0), cache=holding,
            computed=holding.published * self.cache.layout.hash_tokens,
        )  # fmt: skip


def buffers(layout: CacheLayout, **options: object) -> BatchBuffers:
    return BatchBuffers(
        layout, max_tokens=TOKENS + 4, max_rows=ROWS, max_outputs=TOKENS, max_model_len=LENGTH, device=HERE,
        positions_k=3, **options,
    )  # fmt: skip


def fields(ctx: Ctx, widths: list[int]) -> dict[str, Tensor]:
    """Everything a model reads, the tables as far as the longest row's blocks reach."""
    found = {
        name: getattr(ctx, name)
        for name in ("ids_T", "positions_KT", "seq_of_T", "q_start", "kv_len_R", "out_rows_L", "state_slot_R",
                     "state_fresh_R", "counts")
    }  # fmt: skip
    for group, (one, width) in enumerate(zip(ctx.groups, widths, strict=True)):
        found |= {f"table{group}": one.table_RB[:, :width], f"slots{group}": one.slot_T}
    return {name: value.clone() for name, value in found.items() if value is not None}


def compare(kind: str, steps: int, seed: int) -> None:
    layout = plan_layout(LAYOUTS[kind], block_tokens=4)
    life, ours, theirs = Life(layout, seed), buffers(layout, fill=fill), buffers(layout, mirror=True)
    previous = torch.arange(5000, 5000 + ROWS)
    sources = restarts = 0
    for number in range(steps):
        plan = life.step()
        tokens = plan.tokens + number % 4
        rows = min(tokens, ROWS + 1) if number % 4 else 0
        options = {"pad_tokens": tokens, "pad_rows": rows, "pad_outputs": rows, "steady": True}
        if number % 5 == 4:  # a step that the host builds says nothing to the device
            life.done(plan)
            continue
        expected = theirs.build(plan, previous, **options)
        built = ours.build(plan, previous, **options)
        assert built.host is None
        widths = [max(len(row.seq.cache.blocks[group]) for row in plan.rows) for group in range(len(layout.groups))]
        found, wanted = fields(built, widths), fields(expected, widths)
        assert found.keys() == wanted.keys()
        for name, one in found.items():
            assert one.dtype == wanted[name].dtype
            assert torch.equal(one, wanted[name]), (number, name)
        sources += sum(row.source >= 0 for row in plan.rows)
        restarts += sum(row.start == 0 for row in plan.rows)
        life.done(plan)
    assert sources
    assert restarts > 1


@pytest.mark.parametrize("kind", ["two groups and states", "states alone"])
def test_a_batch_built_on_the_device_is_the_hosts(kind: str) -> None:
    compare(kind, 8, 1)


@pytest.mark.full
@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("kind", sorted(LAYOUTS))
def test_long_lives(kind: str, seed: int) -> None:
    compare(kind, 80, seed)


def test_what_the_device_did_not_get_is_sent_again() -> None:
    """A step that fails before its batch was built leaves the device without its blocks."""
    layout = plan_layout(LAYOUTS["one group"], block_tokens=4)
    failing = [True]

    def broken(*given: object) -> None:
        if failing.pop():
            raise RuntimeError("no memory")
        fill(*given)  # type: ignore[arg-type]

    failing.insert(0, False)
    life, ours = Life(layout, 3), buffers(layout, fill=broken)
    plan = life.step()
    size = {"pad_tokens": plan.tokens, "steady": True}
    with pytest.raises(RuntimeError, match="no memory"):
        ours.build(plan, None, **size)
    ctx = ours.build(plan, None, **size)
    for row, shown in zip(plan.rows, ctx.groups[0].table_RB, strict=True):
        blocks = row.seq.cache.blocks[0]
        assert shown[: len(blocks)].tolist() == blocks
        assert not shown[len(blocks) :].any()
