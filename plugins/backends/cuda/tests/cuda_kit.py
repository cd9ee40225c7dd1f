# SPDX-License-Identifier: Apache-2.0
"""Running one op by its Triton kernel, and what it is held against: float64."""

from __future__ import annotations

import os

os.environ.setdefault("TRITON_INTERPRET", "1")  # before Triton is imported

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from tramontane.batch import Ctx, GroupCtx
from tramontane.cache.entries import encode, entry_features
from tramontane.cache.planes import make_planes
from tramontane.cache.spec import CacheKind, CacheSpec, plan_layout
from tramontane.ops import Kernel, Op
from tramontane.schemes import Ggml, Scheme
from tramontane.weights import CacheSlot, Matrix, Param, Part, Source
from tramontane_backend_cuda.backend import CudaBackend

TOLERANCE = {torch.float64: 2e-5, torch.float32: 2e-5, torch.bfloat16: 1.6e-2, torch.float16: 2e-3}
"""Relative to the largest result: sums in another order; two roundings, of which the interpreter cuts one off."""


BFLOAT16 = TOLERANCE[torch.bfloat16]


HERE = torch.get_default_device()
"""Where the kernels run: the host, or a card (``conftest.py`` says which)."""


def draw(*shape: int, dtype: torch.dtype = torch.float32, seed: int = 0) -> Tensor:
    """Normal numbers, the same every time."""
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), device="cpu").to(HERE, dtype)


def param(value: Tensor) -> Param:
    """A loaded parameter."""
    made = Param("w", (Source("w", "weight", tuple(value.shape)),), value.dtype)
    made.value = value
    return made


def fields_of(scheme: Scheme, outputs: int, inputs: int, seed: int, experts: int | None = None) -> dict[str, Tensor]:
    """Canonical fields: any bytes for GGML types, with factors that are ordinary numbers."""
    shape = (outputs, inputs) if experts is None else (experts, outputs, inputs)
    if not isinstance(scheme, Ggml):
        fields = scheme.quantize(draw(*shape, seed=seed))
        if scheme.act.scale == "static":
            fields["act_scale"] = torch.tensor(0.05) if experts is None else torch.full((experts,), 0.05)
        return fields
    random = torch.Generator().manual_seed(seed)
    bytes_of = scheme.fields(shape)["weight"].shape
    weight = torch.randint(0, 256, bytes_of, generator=random, device="cpu").to(torch.uint8)
    blocks = weight.view(-1, scheme.type.nbytes)
    if scheme.name == "mxfp4":
        blocks[:, 0] = torch.randint(118, 122, (len(blocks),), generator=random, device="cpu").to(torch.uint8)
        return {"weight": weight.to(HERE)}
    for place in FACTORS.get(scheme.name, (0,)):
        factors = torch.rand(blocks.shape[0], 1, generator=random, device="cpu").mul(0.01).to(torch.float16)
        blocks[:, place : place + 2] = factors.view(torch.uint8)
    return {"weight": weight.to(HERE)}


FACTORS = {
    "q4_1": (0, 2), "q5_1": (0, 2), "q2_k": (80, 82), "q3_k": (108,), "q4_k": (0, 2), "q5_k": (0, 2), "q6_k": (208,),
}  # fmt: skip
"""Where a block has its float16 numbers, if not just at its start."""


def matrix(
    schemes: Sequence[Scheme], sizes: Sequence[int], inputs: int, dtype: torch.dtype, *, experts: int | None = None,
    uses: set[str] | None = None,
) -> Matrix:  # fmt: skip
    """A loaded matrix, as the backend stores it."""
    made = Matrix("m", tuple(Part(f"part{i}", size) for i, size in enumerate(sizes)), inputs, experts)
    made.schemes, made.uses = tuple(schemes), uses or made.uses
    made.stored = CudaBackend().store(made, dtype)
    for index, (scheme, size) in enumerate(zip(schemes, sizes, strict=True)):
        made.stored.fill(index, fields_of(scheme, size, inputs, index, experts))
    return made


def exact_weight(made: Matrix) -> Tensor:
    """From the schemes' own rules, in float64."""
    return torch.cat([
        scheme.dequantize(made.storage().unpack(i), (*made.shape[:-2], part.out_features, made.in_features)).double()
        for i, (scheme, part) in enumerate(zip(made.schemes, made.parts, strict=True))
    ], dim=-2)  # fmt: skip


def kernel_of(op: Op, weights: Sequence[Any]) -> Kernel:
    """The Triton kernel of an op; fails if it refuses."""
    name, make = CudaBackend().candidates(op)[0]
    assert name == f"cuda.{op.name}"
    kernel = make(op, weights)
    assert not isinstance(kernel, str), kernel
    return kernel


def run(op: Op, weights: Sequence[Any], *inputs: Tensor, ctx: Ctx | None = None) -> list[Tensor]:
    """By the Triton kernel. Outputs start as NaN or -1: every element must be written."""
    kernel = kernel_of(op, weights)
    outputs = [
        torch.full(shape, torch.nan if dtype.is_floating_point else -1, dtype=dtype)
        for shape, dtype in op.outputs(weights, *inputs)
    ]
    kernel(ctx, inputs, outputs)
    return outputs


def close(ours: Tensor, wanted: Tensor, tolerance: float | None = None) -> None:
    """Equal within the tolerance of our type, relative to the largest value."""
    bound = (TOLERANCE[ours.dtype] if tolerance is None else tolerance) * max(1.0, wanted.abs().max().item())
    torch.testing.assert_close(ours.double(), wanted.double(), atol=bound, rtol=0)


def cache(
    kv_heads: int, key_dim: int, value_dim: int, dtype: torch.dtype, *, block: int = 16, blocks: int = 40,
    latent: bool = False,
) -> CacheSlot:  # fmt: skip
    """A layer's planes, holding random keys and values everywhere."""
    kind = CacheKind.LATENT if latent else CacheKind.FULL
    spec = CacheSpec(
        kind=kind, kv_heads=kv_heads, head_dim=key_dim, value_dim=None if latent else value_dim, dtype=dtype
    )
    slot = CacheSlot("layer", spec)
    slot.planes = make_planes(plan_layout({"layer": spec}, block), blocks, HERE)["layer"]
    generator = torch.Generator().manual_seed(5)
    for plane in slot.planes:
        shape = (*plane.shape[:-1], entry_features(plane.shape[-1], dtype))
        plane.copy_(encode(torch.randn(shape, generator=generator, device="cpu"), dtype))
    return slot


def batch(rows: Sequence[tuple[int, int]], *, block: int = 16, padding: int = 0) -> Ctx:
    """Rows of (tokens in this step, keys), blocks scattered; ``padding`` tokens are a row of their own on the null
    block, as a padded step has it."""
    lengths = [keys for _, keys in rows] + [padding] * (padding > 0)
    counts = [tokens for tokens, _ in rows] + [padding] * (padding > 0)
    starts = [0, *torch.tensor(counts).cumsum(0).tolist()]
    width = max(-(-keys // block) for _, keys in rows)
    order = 1 + torch.randperm(len(rows) * width, generator=torch.Generator().manual_seed(1), device="cpu").to(HERE)
    table = order.view(len(rows), width).to(torch.int32)
    if padding:
        table = torch.cat((table, torch.zeros(1, width, dtype=torch.int32)))
    positions = torch.cat([torch.arange(keys - tokens, keys) for tokens, keys in zip(counts, lengths, strict=True)])
    seq_of = torch.repeat_interleave(torch.arange(len(counts)), torch.tensor(counts))
    columns = (positions // block).clamp(max=width - 1)
    slots = table[seq_of, columns].long() * block + positions % block
    return Ctx(
        ids_T=torch.arange(len(positions)) * 7 % 50,
        positions_KT=positions.unsqueeze(0),
        seq_of_T=seq_of.to(torch.int32),
        q_start=torch.tensor(starts, dtype=torch.int32),
        kv_len_R=torch.tensor(lengths, dtype=torch.int32),
        out_rows_L=torch.arange(1),
        groups=[GroupCtx(table, slots)],
    )
