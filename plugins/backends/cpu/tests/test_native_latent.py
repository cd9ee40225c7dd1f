# SPDX-License-Identifier: Apache-2.0
"""Latent attention against its reference, on every instruction set."""

from __future__ import annotations

import pytest
import torch
from cpu_kit import batch, close, native, run, same_as_reference
from torch import Tensor

from tramontane.backends.base import HostBackend
from tramontane.batch import Ctx
from tramontane.cache.entries import encode, entry_features
from tramontane.cache.spec import CacheKind, CacheSpec, plan_layout
from tramontane.ops import AttendLatent, LatentWrite, Rotate
from tramontane.schemes import Dense
from tramontane.weights import CacheSlot, Matrix, Part
from tramontane_backend_cpu.kernel import Engine
from tramontane_backend_cpu.kernels import make
from tramontane_backend_cpu.library import pool
from tramontane_backend_cpu.operands import of_tensor
from tramontane_backend_cpu.planes import make_planes

DECODE = ((1, 1), (1, 17), (1, 40), (1, 16))
MIXED = ((1, 33), (7, 7), (20, 50), (2, 3), (1, 1))
LONG = ((1, 1300), (3, 700), (90, 100))
SHAPES = (
    AttendLatent(heads=4, nope_dim=16, rope_dim=8, rank=32, value_dim=16, scale=0.2),
    AttendLatent(heads=3, nope_dim=20, rope_dim=6, rank=41, value_dim=13, scale=0.17),
    AttendLatent(heads=1, nope_dim=128, rope_dim=64, rank=512, value_dim=128, scale=0.07),
)  # fmt: skip


def latents(op: AttendLatent, dtype: torch.dtype, blocks: int = 400) -> CacheSlot:
    """A layer's plane, holding random latents everywhere."""
    spec = CacheSpec(kind=CacheKind.LATENT, head_dim=op.rank + op.rope_dim, dtype=dtype)
    slot = CacheSlot("layer", spec)
    slot.planes = make_planes(plan_layout({"layer": spec}, 16), blocks)["layer"]
    (plane,) = slot.planes
    shape = (*plane.shape[:-1], entry_features(plane.shape[-1], dtype))
    plane.copy_(encode(torch.randn(shape, generator=torch.Generator().manual_seed(5)), dtype))
    return slot


def absorbed(op: AttendLatent, dtype: torch.dtype) -> Matrix:
    """The loaded matrix of both halves."""
    rows = op.heads * (op.nope_dim + op.value_dim)
    made = Matrix("m", (Part("m", rows),), op.rank, uses={"absorbed"}, schemes=(Dense(dtype),))
    made.stored = HostBackend().store(made, dtype)
    weight = torch.randn(rows, op.rank, generator=torch.Generator().manual_seed(3)) / op.rank**0.5
    made.stored.fill(0, {"weight": weight.to(dtype)})
    return made


def queries(op: AttendLatent, ctx: Ctx, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Both parts of each head, as the model's code cuts them from one tensor; the second then lies side by side."""
    width = op.nope_dim + op.rope_dim
    both = torch.randn(ctx.tokens, op.heads * width, generator=torch.Generator().manual_seed(2)).to(dtype)
    plain, turned = both.unflatten(-1, (op.heads, width)).split((op.nope_dim, op.rope_dim), dim=-1)
    return plain, turned.contiguous()


@pytest.mark.parametrize("rows", [DECODE, MIXED, LONG])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("op", SHAPES, ids=lambda op: str(op.rank))
def test_attention(
    isa: str, several: Engine, op: AttendLatent, dtype: torch.dtype, rows: tuple[tuple[int, int], ...]
) -> None:
    ctx = batch(rows)
    same_as_reference(op, (latents(op, dtype), absorbed(op, dtype)), several, queries(op, ctx, dtype), ctx)


@pytest.mark.parametrize("dtype", [torch.float16, torch.float8_e4m3fn, torch.int8])
def test_latents_of_fewer_bits(isa: str, engine: Engine, dtype: torch.dtype) -> None:
    for op in SHAPES[:2]:
        ctx = batch(MIXED)
        weights = latents(op, dtype), absorbed(op, torch.float32)
        same_as_reference(op, weights, engine, queries(op, ctx, torch.float32), ctx)


def test_both_parts_may_lie_apart_and_padding_leaves_no_garbage(isa: str, engine: Engine) -> None:
    op, ctx = SHAPES[0], batch(MIXED, padding=3)
    weights = latents(op, torch.float32), absorbed(op, torch.float32)
    wide = torch.randn(ctx.tokens, op.heads, 40)
    apart = wide[:, :, 3 : 3 + op.nope_dim], wide[:, :, 20 : 20 + op.rope_dim]
    (ours,) = run(op, weights, engine, apart, ctx)
    (theirs,) = run(op, weights, engine, tuple(part.contiguous() for part in apart), ctx)
    assert torch.equal(ours, theirs)
    assert torch.equal(ours[-3:], torch.zeros(3, op.heads * op.value_dim))


@pytest.mark.parametrize("kept", [torch.float32, torch.bfloat16, torch.float8_e4m3fn, torch.int8])
def test_writes(isa: str, engine: Engine, kept: torch.dtype) -> None:
    op, ctx = SHAPES[1], batch(MIXED)
    for dtype in (torch.float32, torch.bfloat16):
        ours, theirs = latents(op, kept), latents(op, kept)
        news = torch.randn(ctx.tokens, op.rank).to(dtype), torch.randn(ctx.tokens, 1, op.rope_dim).to(dtype)
        run(LatentWrite(), (ours,), engine, news, ctx)
        LatentWrite().reference(ctx, (theirs,), *news)
        for mine, other in zip(ours.planes, theirs.planes, strict=True):
            assert torch.equal(_bits(mine), _bits(other))


def _bits(plane: Tensor) -> Tensor:
    return plane.contiguous().view(torch.uint8)


def test_latents_wider_than_the_kernels_hold_are_left_to_torch(engine: Engine) -> None:
    op = AttendLatent(heads=1, nope_dim=8, rope_dim=8, rank=1024, value_dim=8, scale=0.2)
    slot = latents(op, torch.float32, blocks=1)
    assert isinstance(make(op, (slot, absorbed(op, torch.float32)), engine), str)
    news = of_tensor(torch.randn(3, op.rank)), of_tensor(torch.randn(3, op.rope_dim))
    assert isinstance(native(LatentWrite(), (slot,), engine).node(news), str)


def test_heads_that_lie_apart_are_turned(isa: str, engine: Engine) -> None:
    for dtype in (torch.float32, torch.bfloat16):
        wide = torch.randn(9, 3, 24).to(dtype)
        angles = torch.randn(9, 8)
        for interleaved in (False, True):
            inputs = wide[..., 5:15], torch.randn(9, 40).to(dtype)[:, 7:17].unsqueeze(1), angles
            same_as_reference(Rotate(interleaved), (), engine, inputs)


def test_results_do_not_depend_on_the_number_of_threads(isa: str) -> None:
    op, ctx = SHAPES[0], batch((*LONG, *MIXED))
    weights = latents(op, torch.float32, 1000), absorbed(op, torch.float32)
    inputs = queries(op, ctx, torch.float32)
    first, *others = (run(op, weights, Engine(pool(threads)), inputs, ctx)[0] for threads in (1, 2, 3, 4))
    assert all(torch.equal(first, other) for other in others)


def test_the_cache_may_be_allocated_anew(engine: Engine) -> None:
    op, ctx = SHAPES[0], batch(MIXED)
    slot, matrix = latents(op, torch.float32), absorbed(op, torch.float32)
    kernel, inputs = native(op, (slot, matrix), engine), queries(op, ctx, torch.float32)
    out = torch.empty(ctx.tokens, op.heads * op.value_dim)
    for _ in range(2):
        kernel(ctx, inputs, (out,))
        close(out, op.reference(ctx, (slot, matrix), *inputs)[0])
        slot.planes = (torch.randn(slot.planes[0].shape),)
