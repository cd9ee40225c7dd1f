# SPDX-License-Identifier: Apache-2.0
"""The paged cache: writes and attention against the references, on every instruction set.

Rows are (tokens in this step, keys); blocks are scattered over the pool.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch
from cpu_kit import batch, cache, close, native, param, run, same_as_reference
from torch import Tensor

from tramontane.batch import Ctx
from tramontane.cache.entries import decode
from tramontane.ops import Attend, CacheWrite, RmsNorm, Rotate, RotateWrite
from tramontane.weights import CacheSlot
from tramontane_backend_cpu.kernel import Engine
from tramontane_backend_cpu.library import pool

DECODE = ((1, 1), (1, 17), (1, 40), (1, 16))
MIXED = ((1, 33), (7, 7), (20, 50), (2, 3), (1, 1))
LONG = ((1, 1300), (3, 700), (1, 512), (1, 513))
"""Cut along the keys."""
TYPES = (
    (torch.float32, torch.float32), (torch.bfloat16, torch.bfloat16), (torch.float32, torch.float16),
    (torch.float32, torch.float8_e4m3fn), (torch.bfloat16, torch.float8_e4m3fn), (torch.float32, torch.int8),
    (torch.bfloat16, torch.int8),
)  # fmt: skip
"""(activations, cache)"""


def queries(ctx: Ctx, heads: int, dim: int, dtype: torch.dtype = torch.float32) -> Tensor:
    wide = torch.randn(ctx.tokens, heads * dim + 24, generator=torch.Generator().manual_seed(2)).to(dtype)
    return wide[:, 8 : 8 + heads * dim].unflatten(1, (heads, dim))


def attend(heads: int, kv_heads: int, dim: int, values: int | None = None, **options: Any) -> Attend:
    return Attend(heads, kv_heads, dim, values or dim, dim**-0.5, **options)


@pytest.mark.parametrize(("dtype", "kept"), TYPES)
@pytest.mark.parametrize("rows", [DECODE, MIXED, LONG])
def test_attention(
    isa: str, engine: Engine, rows: tuple[tuple[int, int], ...], dtype: torch.dtype, kept: torch.dtype
) -> None:
    ctx, slot = batch(rows), cache(2, 32, 32, kept, blocks=400)
    same_as_reference(attend(4, 2, 32), (slot,), engine, (queries(ctx, 4, 32, dtype),), ctx)


@pytest.mark.parametrize("rows", [DECODE, MIXED])
@pytest.mark.parametrize(
    ("heads", "kv_heads", "dim", "values"),
    [
        (1, 1, 16, 16),
        (6, 3, 24, 24),
        (7, 1, 40, 40),
        (3, 3, 80, 80),
        (16, 2, 128, 128),
        (4, 2, 20, 12),
        (2, 1, 192, 128),
        (9, 1, 5, 3),
    ],
)
def test_heads_of_all_kinds(
    isa: str, several: Engine, rows: tuple[tuple[int, int], ...], heads: int, kv_heads: int, dim: int, values: int
) -> None:
    for dtype in (torch.float32, torch.bfloat16):
        ctx, slot = batch(rows), cache(kv_heads, dim, values, dtype)
        op = attend(heads, kv_heads, dim, values)
        same_as_reference(op, (slot,), several, (queries(ctx, heads, dim, dtype),), ctx)


@pytest.mark.parametrize("rows", [DECODE, MIXED, LONG])
@pytest.mark.parametrize("options", [{"window": 5}, {"window": 600}, {"softcap": 2.0}, {"window": 20, "softcap": 1.0}])
def test_windows_and_caps(isa: str, engine: Engine, rows: tuple[tuple[int, int], ...], options: dict[str, Any]) -> None:
    ctx, slot = batch(rows), cache(2, 16, 16, torch.float32, blocks=400)
    same_as_reference(attend(4, 2, 16, **options), (slot,), engine, (queries(ctx, 4, 16),), ctx)


@pytest.mark.parametrize("rows", [DECODE, MIXED, LONG])
def test_sinks(isa: str, engine: Engine, rows: tuple[tuple[int, int], ...]) -> None:
    ctx, slot = batch(rows), cache(2, 16, 16, torch.float32, blocks=400)
    sinks = param(torch.tensor([-3.0, 0.0, 2.0, 30.0]))
    same_as_reference(attend(4, 2, 16, sinks=True, window=9), (slot, sinks), engine, (queries(ctx, 4, 16),), ctx)


@pytest.mark.parametrize("block", [1, 8, 32, 48])
def test_blocks_of_any_size(isa: str, engine: Engine, block: int) -> None:
    ctx, slot = batch(MIXED, block=block), cache(2, 16, 16, torch.float32, block=block, blocks=400)
    same_as_reference(attend(4, 2, 16), (slot,), engine, (queries(ctx, 4, 16),), ctx)


def test_a_long_prompt_is_cut_into_blocks_of_queries(isa: str, engine: Engine) -> None:
    ctx, slot = batch(((300, 330), (1, 5))), cache(1, 16, 16, torch.bfloat16)
    same_as_reference(attend(4, 1, 16), (slot,), engine, (queries(ctx, 4, 16, torch.bfloat16),), ctx)


def test_scores_far_apart_and_keys_nobody_may_see(isa: str, engine: Engine) -> None:
    ctx, slot = batch(MIXED), cache(2, 16, 16, torch.float32)
    keys, values = slot.planes
    written = torch.zeros(keys.shape[0], 16, dtype=torch.bool)
    for row, length in enumerate(ctx.kv_len_R.tolist()):
        positions = torch.arange(length)
        written[ctx.groups[0].table_RB[row][positions // 16].long(), positions % 16] = True
    for plane in (keys, values):
        plane[~written] = torch.nan  # what was never written may hold anything
    keys *= 40
    same_as_reference(attend(4, 2, 16), (slot,), engine, (queries(ctx, 4, 16),), ctx)


def test_padding_tokens_leave_no_garbage(isa: str, engine: Engine) -> None:
    ctx, slot = batch(MIXED, padding=3), cache(2, 16, 16, torch.float32)
    (out,) = run(attend(4, 2, 16), (slot,), engine, (queries(ctx, 4, 16),), ctx)
    assert torch.equal(out[-3:], torch.zeros(3, 64))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_results_do_not_depend_on_the_number_of_threads(isa: str, dtype: torch.dtype) -> None:
    ctx, slot = batch((*LONG, *MIXED, (300, 300))), cache(2, 64, 64, dtype, blocks=1000)
    q = queries(ctx, 8, 64, dtype)
    first, *others = (run(attend(8, 2, 64), (slot,), Engine(pool(n)), (q,), ctx)[0] for n in (1, 2, 3, 4))
    assert all(torch.equal(first, other) for other in others)


# --- writing ----------------------------------------------------------------------------------------------------------


Write = CacheWrite | RotateWrite


def planes_after(op: Write, weights: Any, inputs: Any, ctx: Ctx, engine: Engine | None) -> list[Tensor]:
    """What the cache holds afterwards; by the reference if no engine is given."""
    slot: CacheSlot = weights[0]
    for plane in slot.planes:
        plane.zero_()
    if engine is None:
        op.reference(ctx, weights, *inputs)
    else:
        run(op, weights, engine, inputs, ctx)
    return [plane.clone() for plane in slot.planes]


@pytest.mark.parametrize(("dtype", "kept"), TYPES)
def test_writes(isa: str, engine: Engine, dtype: torch.dtype, kept: torch.dtype) -> None:
    ctx, slot = batch(MIXED), cache(3, 20, 12, kept)
    inputs = (queries(ctx, 3, 20, dtype), queries(ctx, 3, 12, dtype))
    ours = planes_after(CacheWrite(), (slot,), inputs, ctx, engine)
    theirs = planes_after(CacheWrite(), (slot,), inputs, ctx, None)
    assert all(torch.equal(_bits(mine), _bits(other)) for mine, other in zip(ours, theirs, strict=True))


def _bits(plane: Tensor) -> Tensor:
    return plane.view(torch.uint8)


def test_entries_of_eight_bits_hold_any_number(isa: str, engine: Engine) -> None:
    ctx = batch(((4, 4),))
    keys = torch.randn(4, 2, 16) * torch.tensor([1e-4, 1.0, 300.0, 0.0]).view(4, 1, 1)
    keys[1, 0, 3], keys[2, 1, 0] = 1e6, -0.0
    for kept in (torch.float8_e4m3fn, torch.int8):
        slot = cache(2, 16, 16, kept)
        ours = planes_after(CacheWrite(), (slot,), (keys, keys), ctx, engine)
        theirs = planes_after(CacheWrite(), (slot,), (keys, keys), ctx, None)
        assert all(torch.equal(_bits(mine), _bits(other)) for mine, other in zip(ours, theirs, strict=True))
        assert decode(ours[0], torch.float32).isfinite().all()


@pytest.mark.parametrize(("dtype", "kept"), TYPES)
@pytest.mark.parametrize("interleaved", [False, True])
@pytest.mark.parametrize("norm", [None, RmsNorm(1e-6), RmsNorm(1e-5, late_cast=True)])
def test_rotation_and_write_are_the_sequence(
    isa: str, several: Engine, norm: RmsNorm | None, interleaved: bool, dtype: torch.dtype, kept: torch.dtype
) -> None:
    ctx, slot = batch(MIXED), cache(2, 24, 16, kept)
    q, k, v = queries(ctx, 6, 24, dtype), queries(ctx, 2, 24, dtype), queries(ctx, 2, 16, dtype)
    angles = torch.randn(ctx.tokens, 16)
    norms = [] if norm is None else [param(1 + torch.randn(24, dtype=torch.float32).mul(0.1).to(dtype)) for _ in "qk"]
    rotate = Rotate(interleaved)
    fused, weights = RotateWrite(rotate, norm), (slot, *norms)
    (turned,) = run(fused, weights, several, (q, k, v, angles), ctx)
    close(turned, fused.reference(ctx, weights, q, k, v, angles)[0])
    ours = planes_after(fused, weights, (q, k, v, angles), ctx, several)
    for mine, theirs in zip(ours, planes_after(fused, weights, (q, k, v, angles), ctx, None), strict=True):
        close(decode(mine, torch.float32).float(), decode(theirs, torch.float32).float(), _of_writes(dtype, kept))
    if norm is not None:
        (q,) = run(norm, weights[1:2], several, (q,))
        (k,) = run(norm, weights[2:], several, (k,))
    q, k = run(rotate, (), several, (q, k, angles))
    sequence = planes_after(CacheWrite(), (slot,), (k, v), ctx, several)
    assert torch.equal(turned, q), "fused and by steps: the same bits"
    assert all(torch.equal(_bits(mine), _bits(other)) for mine, other in zip(ours, sequence, strict=True))


def _of_writes(dtype: torch.dtype, kept: torch.dtype) -> float:
    """Allowed difference: one step of what the cache holds, since sums in another order may round to the next."""
    if kept.itemsize == 1:
        return 0.13 if kept is torch.float8_e4m3fn else 2e-2
    return 2e-2 if torch.bfloat16 in (dtype, kept) else 2e-3


def test_a_cache_that_grows_is_found_again(engine: Engine) -> None:
    ctx, slot = batch(DECODE), cache(2, 16, 16, torch.float32)
    op = attend(4, 2, 16)
    kernel, q = native(op, (slot,), engine), queries(ctx, 4, 16)
    for seed in (1, 2):
        generator = torch.Generator().manual_seed(seed)
        slot.planes = tuple(torch.randn(plane.shape, generator=generator) for plane in slot.planes)
        out = torch.empty(ctx.tokens, 64)
        kernel(ctx, (q,), (out,))
        close(out, op.reference(ctx, (slot,), q)[0])
