# SPDX-License-Identifier: Apache-2.0
"""Running one op by its native kernel and by its reference."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from tramontane.batch import Ctx, GroupCtx
from tramontane.cache.entries import encode, entry_features
from tramontane.cache.spec import CacheKind, CacheSpec, plan_layout
from tramontane.ops import Op
from tramontane.schemes import Dense
from tramontane.weights import CacheSlot, Matrix, Param, Part, Source
from tramontane_backend_cpu import layouts
from tramontane_backend_cpu.kernel import Engine, NativeKernel
from tramontane_backend_cpu.kernels import make
from tramontane_backend_cpu.planes import make_planes

TOLERANCE = {torch.float32: 2e-5, torch.bfloat16: 1.6e-2, torch.float16: 2e-3}
"""Of results, relative to the largest: float32 sums in another order; two roundings to a narrower type."""


def param(value: Tensor) -> Param:
    """A loaded parameter."""
    made = Param("w", (Source("w", "weight", tuple(value.shape)),), value.dtype)
    made.value = value
    return made


def matrix(weight_OI: Tensor, sizes: Sequence[int], activations: torch.dtype) -> Matrix:
    """A loaded matrix in its native layout, made of parts of these sizes."""
    parts = tuple(Part(f"part{i}", size) for i, size in enumerate(sizes))
    made = Matrix("m", parts, weight_OI.shape[1], uses={"linear", "rows"})
    made.schemes = tuple(Dense(weight_OI.dtype) for _ in sizes)
    made.stored = layouts.store(made, activations)
    assert made.stored is not None
    for index, piece in enumerate(weight_OI.split(list(sizes))):
        made.stored.fill(index, {"weight": piece})
    return made


def native(op: Op, weights: Sequence[Any], engine: Engine) -> NativeKernel:
    """The native kernel of an op; fails if it refuses."""
    kernel = make(op, weights, engine)
    assert isinstance(kernel, NativeKernel), kernel
    return kernel


def run(
    op: Op, weights: Sequence[Any], engine: Engine, inputs: Sequence[Tensor], ctx: Ctx | None = None
) -> list[Tensor]:
    """What the native kernel makes of the inputs. Outputs start as NaN: every element must be written."""
    kernel = native(op, weights, engine)
    metas = op.outputs(weights, *inputs)
    outputs = [torch.full(shape, torch.nan if dtype.is_floating_point else -1, dtype=dtype) for shape, dtype in metas]
    kernel(ctx, inputs, outputs)
    assert kernel._fallback is None, "stock torch ran instead"
    return outputs


def close(ours: Tensor, theirs: Tensor, tolerance: float | None = None) -> None:
    """Equal within the tolerance of the type, relative to the largest value."""
    assert ours.dtype is theirs.dtype
    if not ours.numel() or not ours.dtype.is_floating_point:
        assert torch.equal(ours, theirs)
        return
    bound = (TOLERANCE[ours.dtype] if tolerance is None else tolerance) * max(1.0, theirs.abs().max().item())
    torch.testing.assert_close(ours.float(), theirs.float(), atol=bound, rtol=0)


def same_as_reference(
    op: Op, weights: Sequence[Any], engine: Engine, inputs: Sequence[Tensor], ctx: Ctx | None = None
) -> list[Tensor]:
    """Run natively, compare with the reference, return the native results."""
    ours = run(op, weights, engine, inputs, ctx)
    for mine, theirs in zip(ours, op.reference(ctx, weights, *inputs), strict=True):
        close(mine, theirs)
    return ours


def cache(
    kv_heads: int, key_dim: int, value_dim: int, dtype: torch.dtype, *, block: int = 16, blocks: int = 128
) -> CacheSlot:
    """A layer's planes, holding random keys and values everywhere."""
    spec = CacheSpec(kind=CacheKind.FULL, kv_heads=kv_heads, head_dim=key_dim, value_dim=value_dim, dtype=dtype)
    slot = CacheSlot("layer", spec)
    slot.planes = make_planes(plan_layout({"layer": spec}, block), blocks)["layer"]
    generator = torch.Generator().manual_seed(5)
    for plane in slot.planes:
        shape = (*plane.shape[:-1], entry_features(plane.shape[-1], dtype))
        plane.copy_(encode(torch.randn(shape, generator=generator), dtype))
    return slot


def batch(rows: Sequence[tuple[int, int]], *, block: int = 16, padding: int = 0) -> Ctx:
    """Rows of (tokens in this step, keys), whose blocks lie scattered; ``padding`` tokens belong to no row."""
    lengths = [keys for _, keys in rows]
    starts = [0, *torch.tensor([tokens for tokens, _ in rows]).cumsum(0).tolist()]
    width = max(-(-length // block) for length in lengths)
    order = 1 + torch.randperm(len(rows) * width, generator=torch.Generator().manual_seed(1))
    table = order.view(len(rows), width).to(torch.int32)
    positions = torch.cat([torch.arange(keys - tokens, keys) for tokens, keys in rows])
    seq_of = torch.repeat_interleave(torch.arange(len(rows)), torch.tensor([tokens for tokens, _ in rows]))
    slots = table[seq_of, positions // block].long() * block + positions % block
    total = len(positions) + padding
    filler = torch.zeros(padding, dtype=torch.int64)
    return Ctx(
        ids_T=torch.zeros(total, dtype=torch.int64),
        positions_KT=torch.cat((positions, filler)).unsqueeze(0),
        seq_of_T=torch.cat((seq_of, filler)).to(torch.int32),
        q_start=torch.tensor(starts, dtype=torch.int32),
        kv_len_R=torch.tensor(lengths, dtype=torch.int32),
        out_rows_L=torch.arange(1),
        groups=[GroupCtx(table, torch.cat((slots, filler)))],
    )
