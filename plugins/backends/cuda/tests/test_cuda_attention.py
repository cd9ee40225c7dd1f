# SPDX-License-Identifier: Apache-2.0
"""Attention over the paged cache by Triton's interpreter: against float64, for every kind of row, head and entry.

Rows are (tokens in this step, keys); blocks are scattered over the pool.
"""

from __future__ import annotations

from typing import Any

import pytest

pytest.importorskip("triton", reason="triton has packages for Linux only")

import torch
from cuda_kit import HERE, batch, cache, close, draw, kernel_of, matrix, param, run
from torch import Tensor
from triton.runtime import interpreter

from tramontane.batch import Ctx, HostRows
from tramontane.ops import Attend, AttendLatent
from tramontane.schemes import Dense
from tramontane.weights import CacheSlot
from tramontane_backend_cuda import attention, tasks
from tramontane_backend_cuda.attention import AttendMap, AttendMapped
from tramontane_backend_cuda.latent import latent_map
from tramontane_backend_cuda.tasks import MapShape, make_map

DECODE = ((1, 1), (1, 17), (1, 40))
MIXED = ((1, 33), (7, 7), (12, 50), (1, 1))
LONG = ((1, 150), (3, 140), (1, 65))
"""Cut along the keys."""
full = pytest.mark.full
CARD = HERE.type == "cuda"
TYPES = (
    (torch.float32, torch.float32), (torch.bfloat16, torch.bfloat16), (torch.bfloat16, torch.float8_e4m3fn),
    (torch.bfloat16, torch.int8), pytest.param(torch.float32, torch.float16, marks=full),
    pytest.param(torch.float32, torch.int8, marks=full),
)  # fmt: skip
"""(activations, cache)"""


@pytest.fixture(autouse=True)
def a_small_card(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fewer programs than a card could run, of which each costs the interpreter milliseconds."""
    monkeypatch.setattr(tasks, "PROGRAMS", 6)
    monkeypatch.setattr(tasks, "MIN_KEYS", 64)


def queries(ctx: Ctx, heads: int, dim: int, dtype: torch.dtype = torch.float32) -> Tensor:
    """Views of a wider tensor, as a fused projection gives them."""
    wide = draw(ctx.tokens, heads * dim + 24, dtype=dtype, seed=2)
    return wide[:, 8 : 8 + heads * dim].unflatten(1, (heads, dim))


def op_of(heads: int, kv_heads: int, dim: int, values: int | None = None, **options: Any) -> Attend:
    return Attend(heads, kv_heads, dim, values or dim, dim**-0.5, **options)


def exact(op: Attend, ctx: Ctx, slot: CacheSlot, q_THD: Tensor, sinks: Tensor | None = None) -> Tensor:
    """Token by token in float64, the tokens of rows that own no block left out."""
    made = torch.zeros(ctx.tokens, op.heads * op.value_dim, dtype=torch.float64)
    for row, keys in enumerate(ctx.kv_len_R.tolist()):
        begin, end = ctx.q_start[row : row + 2].tolist()
        table = ctx.groups[0].table_RB[row]
        for token in range(begin, end) if table.any() else ():
            last = keys - (end - token) + 1
            first = 0 if op.window is None else max(0, last - op.window)
            both = slot.read(table, first, last, torch.float64)
            made[token] = op.one(q_THD[token].double(), *both, None if sinks is None else sinks.double())
    return made


def held(op: Attend, ctx: Ctx, slot: CacheSlot, q: Tensor, sinks: Tensor | None = None) -> Tensor:
    """Our result, once it was compared."""
    (ours,) = run(op, (slot,) if sinks is None else (slot, param(sinks)), q, ctx=ctx)
    close(ours, exact(op, ctx, slot, q, sinks))
    return ours


@pytest.mark.parametrize(("dtype", "kept"), TYPES)
def test_entries_of_every_type(dtype: torch.dtype, kept: torch.dtype) -> None:
    ctx, slot = batch(MIXED), cache(2, 32, 32, kept)
    held(op_of(4, 2, 32), ctx, slot, queries(ctx, 4, 32, dtype))


@pytest.mark.parametrize(
    ("heads", "kv_heads", "dim", "values"),
    [
        (7, 1, 40, 40), (66, 1, 8, 8), pytest.param(1, 1, 16, 16, marks=full), pytest.param(3, 3, 80, 80, marks=full),
        pytest.param(4, 2, 20, 12, marks=full), pytest.param(2, 1, 192, 128, marks=full),
        pytest.param(9, 1, 5, 3, marks=full),
    ],
)  # fmt: skip
def test_heads_of_all_kinds(heads: int, kv_heads: int, dim: int, values: int) -> None:
    for rows in (DECODE[1:], ((7, 7), (11, 50))):
        ctx, slot = batch(rows), cache(kv_heads, dim, values, torch.float32)
        held(op_of(heads, kv_heads, dim, values), ctx, slot, queries(ctx, heads, dim))


@pytest.mark.parametrize("rows", [pytest.param(MIXED, marks=full), LONG], ids=["mixed", "long"])
@pytest.mark.parametrize(
    "options",
    [pytest.param({"window": 5}, marks=full), {"window": 100}, {"window": 20, "softcap": 1.0},
     pytest.param({"softcap": 2.0}, marks=full)],
    ids=str,
)  # fmt: skip
def test_windows_and_caps(rows: tuple[tuple[int, int], ...], options: dict[str, Any]) -> None:
    ctx, slot = batch(rows), cache(2, 16, 16, torch.float32, blocks=80)
    held(op_of(4, 2, 16, **options), ctx, slot, queries(ctx, 4, 16))


@pytest.mark.parametrize("rows", [pytest.param(MIXED, marks=full), LONG], ids=["mixed", "long"])
def test_sinks(rows: tuple[tuple[int, int], ...]) -> None:
    ctx, slot = batch(rows), cache(2, 16, 16, torch.float32, blocks=80)
    sinks = torch.tensor([-3.0, 0.0, 2.0, 30.0])
    held(op_of(4, 2, 16, sinks=True), ctx, slot, queries(ctx, 4, 16), sinks)


@pytest.mark.parametrize("block", [pytest.param(1, marks=full), 48])
def test_blocks_of_any_size(block: int) -> None:
    ctx, slot = batch(DECODE, block=block), cache(2, 16, 16, torch.float32, block=block, blocks=300)
    held(op_of(4, 2, 16), ctx, slot, queries(ctx, 4, 16))


def test_padding_and_keys_that_were_never_written() -> None:
    ctx, slot = batch(LONG, padding=20), cache(2, 16, 16, torch.float32, blocks=80)
    written = torch.zeros(80, 16, dtype=torch.bool)
    for row, (_, length) in enumerate(LONG):
        positions = torch.arange(length)
        written[ctx.groups[0].table_RB[row][positions // 16].long(), positions % 16] = True
    written[0] = True  # the null block is written by padding
    for plane in slot.planes:
        plane[~written] = torch.nan
    slot.planes[0].mul_(40)  # scores far apart
    op, q = op_of(4, 2, 16), queries(ctx, 4, 16)
    (ours,) = run(op, (slot,), q, ctx=ctx)
    end = ctx.tokens - 20
    close(ours[:end], exact(op, ctx, slot, q)[:end])
    assert ours.isfinite().all()


def test_a_row_gives_the_same_alone_and_among_others() -> None:
    rows = ((1, 150), (2, 90))
    op = op_of(4, 2, 16)
    ctx, slot = batch(rows), cache(2, 16, 16, torch.float32, blocks=80)
    q = queries(ctx, 4, 16)
    together = held(op, ctx, slot, q)
    for row, (_, keys) in enumerate(rows):
        begin, end = ctx.q_start[row : row + 2].tolist()
        alone = batch([(end - begin, keys)])
        alone.groups[0].table_RB = ctx.groups[0].table_RB[row : row + 1]
        (ours,) = run(op, (slot,), q[begin:end], ctx=alone)
        close(ours, together[begin:end])
    assert torch.equal(together, run(op, (slot,), q, ctx=ctx)[0])


@pytest.mark.parametrize("window", [pytest.param(None, marks=full), 30])
def test_long_prompts_go_to_the_stock_kernel(monkeypatch: pytest.MonkeyPatch, window: int | None) -> None:
    monkeypatch.setattr(attention, "WHOLE", 20)
    rows = ((1, 33), (25, 25), (6, 50), (40, 40))
    ctx, slot = batch(rows), cache(2, 16, 16, torch.float32)
    tables = [row[: -(-keys // 16)] for row, (_, keys) in zip(ctx.groups[0].table_RB.tolist(), rows, strict=True)]
    ctx.host = HostRows(ctx.q_start.tolist(), ctx.kv_len_R.tolist(), [tables])
    held(op_of(4, 2, 16, window=window), ctx, slot, queries(ctx, 4, 16))


def test_a_shared_map_gives_the_same() -> None:
    op, ctx, slot = op_of(4, 2, 16, window=140), batch(LONG), cache(2, 16, 16, torch.float32, blocks=80)
    q = queries(ctx, 4, 16)
    mapper = AttendMap(heads=4, kv_heads=2, window=140)
    made = torch.full((ctx.tokens + 128, mapper.width), -7, dtype=torch.int32)
    kernel_of(mapper, ())(ctx, (), (made,))
    assert made[:, 5].max() > 1, "some tiles are cut"
    for _ in range(2):  # layers
        (ours,) = run(AttendMapped(op), (slot,), q, made, ctx=ctx)
        assert not made[made[:, 0] >= 0][:, 6:].any(), "counters are zero again for the next layer"
    assert torch.equal(ours, run(op, (slot,), q, ctx=ctx)[0])


@pytest.mark.parametrize("kept", [torch.float32, pytest.param(torch.float8_e4m3fn, marks=full)], ids=str)
def test_latents_are_keys_and_values_at_once(kept: torch.dtype) -> None:
    """Absorbed matrices, rows cut along the keys, and the map that layers share."""
    op = AttendLatent(heads=5, nope_dim=12, rope_dim=16, rank=32, value_dim=20, scale=0.2)
    slot = cache(1, 48, 0, kept, blocks=80, latent=True)
    weight = matrix([Dense(torch.float32)], [5 * (12 + 20)], 32, torch.float32, uses={"absorbed"})
    ctx = batch(((1, 150), (3, 70)))
    q_THN, q_THP = queries(ctx, 5, 12), draw(ctx.tokens, 5, 16, seed=3)
    (ours,) = run(op, (slot, weight), q_THN, q_THP, ctx=ctx)
    close(ours, op.reference(ctx, (slot, weight), q_THN, q_THP)[0])
    made = torch.full((ctx.tokens + 128, latent_map(op).width), -7, dtype=torch.int32)
    kernel_of(latent_map(op), ())(ctx, (), (made,))
    assert torch.equal(ours, run(AttendMapped(op), (slot, weight), q_THN, q_THP, made, ctx=ctx)[0])


@pytest.mark.skipif(CARD, reason="a card has an order of its own")
@pytest.mark.parametrize("kept", [torch.float32, pytest.param(torch.int8, marks=full)], ids=str)
def test_the_last_task_of_a_tile_joins_it_whichever_it_is(monkeypatch: pytest.MonkeyPatch, kept: torch.dtype) -> None:
    """In one launch, with the bits that any other order of programs gives; with padding, a window, a cap and sinks."""
    op = op_of(6, 2, 16, window=140, softcap=5.0, sinks=True)
    ctx, slot = batch(LONG, padding=3), cache(2, 16, 16, kept, blocks=80)
    q, weights = queries(ctx, 6, 16), (slot, param(torch.tensor([-3.0, 0.0, 2.0, 9.0, 1.0, -1.0])))
    mapper = AttendMap(heads=6, kv_heads=2, window=140, plain=False)
    made = make_map(ctx, mapper.shape(ctx))
    monkeypatch.setattr(attention, "join_tasks", None)
    (first,) = run(AttendMapped(op), weights, q, made, ctx=ctx)
    close(first[:-3], exact(op, ctx, slot, q, weights[1].tensor)[:-3])
    count, place = len(made), interpreter.interpreter_builder.set_grid_idx
    for order in (list(reversed(range(count))), torch.randperm(count).tolist()):
        monkeypatch.setattr(
            interpreter.interpreter_builder, "set_grid_idx", lambda x, y, z, order=order: place(order[x], y, z)
        )
        assert torch.equal(run(AttendMapped(op), weights, q, made, ctx=ctx)[0], first)
        assert not made[:, 6:].any()


@pytest.mark.parametrize("heads", [4, pytest.param(66, marks=full)])
def test_wide_rows_are_joined_by_a_launch_of_their_own(monkeypatch: pytest.MonkeyPatch, heads: int) -> None:
    monkeypatch.setattr(attention, "JOIN_ELEMENTS", 0)
    ctx, slot = batch(LONG), cache(1, 16, 16, torch.float32, blocks=80)
    held(op_of(heads, 1, 16, window=120, sinks=True), ctx, slot, queries(ctx, heads, 16), draw(heads, seed=3))


@pytest.mark.parametrize("window", [0, 50])
@pytest.mark.parametrize("budget", [0, 1, 9, 60])
def test_a_map_covers_every_key_once(budget: int, window: int) -> None:
    rows = ((1, 700), (5, 130), (1, 64), (30, 30), (1, 1), (17, 400)) * 12  # more rows than a program sums at once
    ctx, shape = batch(rows), MapShape(tile=4, budget=budget, window=window)
    made = make_map(ctx, shape).tolist()
    seen: dict[int, list[tuple[int, int, int, int]]] = {}
    for row, token, low, high, piece, pieces, counter in made:
        assert counter == 0
        if row >= 0:
            assert ctx.q_start[row] <= token < ctx.q_start[row + 1]
            seen.setdefault(token, []).append((piece, low, high, pieces))
    first = 0
    for count, keys in rows:
        for start in range(first, first + count, 4):
            pieces = seen.pop(start)
            assert [piece for piece, *_ in pieces] == list(range(pieces[0][3])) == list(range(len(pieces)))
            left = first + count - start
            low, high = keys - left + 1 - window, keys - max(0, left - 4)
            ends = [max(0, low) if window else 0, *(end for _, _, end, _ in pieces)]
            assert ends == [begin for _, begin, _, _ in pieces] + [high]
        first += count
    assert not seen
    assert budget == 0 or len(made) <= min(ctx.tokens, ctx.tokens // 4 + ctx.rows) + budget
