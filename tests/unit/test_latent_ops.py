# SPDX-License-Identifier: Apache-2.0
"""Latent attention: both forms of the kernel, the op's definition, and plain attention over expanded keys agree."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from tramontane.backends.base import DenseStored
from tramontane.backends.torch.latent import attend_latent, latent_write
from tramontane.batch import Ctx, GroupCtx, HostRows
from tramontane.cache.planes import make_planes
from tramontane.cache.spec import CacheKind, CacheSpec, plan_layout
from tramontane.ops import AttendLatent, LatentWrite
from tramontane.weights import CacheSlot, Matrix, Part

H, N, P, R, V, BLOCK = 3, 6, 4, 10, 5, 4
OP = AttendLatent(heads=H, nope_dim=N, rope_dim=P, rank=R, value_dim=V, scale=0.3)


def random(*shape: int, seed: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def slot(blocks: int) -> CacheSlot:
    spec = CacheSpec(kind=CacheKind.LATENT, head_dim=R + P)
    made = CacheSlot("layer", spec)
    made.planes = make_planes(plan_layout({"layer": spec}, BLOCK), blocks, torch.device("cpu"))["layer"]
    return made


def matrix() -> Matrix:
    made = Matrix("kv_b_proj", (Part("kv_b_proj", H * (N + V)),), R, uses={"absorbed"})
    stored = DenseStored(made, torch.float32, torch.device("cpu"))
    stored.fill(0, {"weight": random(H * (N + V), R, seed=1)})
    made.stored = stored
    return made


def batch(rows: list[tuple[int, int]]) -> Ctx:
    """Rows of (tokens already in the cache, tokens of the step), each with blocks of its own, out of order."""
    starts, lengths = [0], [before + new for before, new in rows]
    for _, new in rows:
        starts.append(starts[-1] + new)
    width = max(-(-length // BLOCK) for length in lengths)
    tables = [[1 + row + block * len(rows) for block in range(width)] for row in range(len(rows))]
    slots = [
        tables[row][position // BLOCK] * BLOCK + position % BLOCK
        for row, (before, new) in enumerate(rows)
        for position in range(before, before + new)
    ]
    return Ctx(
        ids_T=torch.zeros(starts[-1], dtype=torch.int64),
        positions_KT=torch.zeros(1, starts[-1], dtype=torch.int64),
        seq_of_T=torch.zeros(starts[-1], dtype=torch.int32),
        q_start=torch.tensor(starts, dtype=torch.int32),
        kv_len_R=torch.tensor(lengths, dtype=torch.int32),
        out_rows_L=torch.zeros(0, dtype=torch.int64),
        groups=[GroupCtx(torch.tensor(tables, dtype=torch.int32), torch.tensor(slots))],
        host=HostRows(starts, lengths, [tables]),
    )


def expanded(latents_SC: Tensor, q_HD: Tensor, weight: Tensor) -> Tensor:
    """Attention of one token, by the paper: expand every key and value, then attend. [H * V]"""
    each = weight.view(H, N + V, R)
    k_HSN = torch.einsum("sr,hnr->hsn", latents_SC[:, :R], each[:, :N])
    v_HSV = torch.einsum("sr,hvr->hsv", latents_SC[:, :R], each[:, N:])
    k_HSD = torch.cat((k_HSN, latents_SC[:, R:].expand(H, -1, -1)), dim=-1)
    weights_HS = (torch.einsum("hd,hsd->hs", q_HD, k_HSD) * OP.scale).softmax(-1)
    return torch.einsum("hs,hsv->hv", weights_HS, v_HSV).reshape(-1)


def run(ctx: Ctx, cache: CacheSlot, weights: list[Any], news: tuple[Tensor, Tensor], queries: list[Tensor]) -> Tensor:
    write, attend = latent_write(LatentWrite(), [cache]), attend_latent(OP, weights)
    assert callable(write)
    assert callable(attend)
    write(ctx, news, [])
    out = torch.full((queries[0].shape[0], H * V), float("nan"))
    attend(ctx, queries, [out])
    return out


CASES = {
    "one fresh prompt": [(0, 13)],
    "a few late tokens": [(17, 3)],
    "one decoding row": [(11, 1)],
    "five decoding rows": [(11, 1), (3, 1), (7, 1), (0, 1), (9, 1)],
    "a prompt beside decoding rows": [(5, 1), (0, 12), (9, 1), (2, 1), (8, 1)],
}


@pytest.mark.parametrize("rows", CASES.values(), ids=CASES)
def test_kernel_definition_and_paper_agree(rows: list[tuple[int, int]]) -> None:
    ctx, weights_of = batch(rows), matrix()
    cache = slot(2 + int(ctx.groups[0].table_RB.max()))
    for row, (before, _) in enumerate(rows):  # what earlier steps left
        positions = torch.arange(before)
        where = ctx.groups[0].table_RB[row][positions // BLOCK].long() * BLOCK + positions % BLOCK
        cache.write(where, random(before, 1, R + P, seed=100 + row))
    tokens = ctx.tokens
    news, queries = (
        (random(tokens, R, seed=2), random(tokens, 1, P, seed=3)),
        [
            random(tokens, H, N, seed=4),
            random(tokens, H, P, seed=5),
        ],
    )
    found = run(ctx, cache, [cache, weights_of], news, queries)
    (wanted,) = OP.reference(ctx, [cache, weights_of], *queries)
    torch.testing.assert_close(found, wanted, atol=2e-5, rtol=2e-5)
    token = 0
    for row, (before, new) in enumerate(rows):
        for position in range(before, before + new):
            (latents,) = cache.read(ctx.groups[0].table_RB[row], 0, position + 1)
            q_HD = torch.cat((queries[0][token], queries[1][token]), dim=-1)
            alone = expanded(latents[:, 0], q_HD, weights_of.dequantize())
            torch.testing.assert_close(wanted[token], alone, atol=2e-5, rtol=2e-5)
            token += 1


def test_both_forms_are_used_and_the_cheaper_one() -> None:
    kernel = attend_latent(OP, [slot(3), matrix()])
    assert not kernel._many(1, 500)  # type: ignore[union-attr]
    assert not kernel._many(2, 500)  # type: ignore[union-attr]
    assert kernel._many(500, 500)  # type: ignore[union-attr]


def test_padding_tokens_get_zeros() -> None:
    ctx, cache = batch([(0, 4)]), slot(4)
    news = (random(4, R, seed=2), random(4, 1, P, seed=3))
    out = run(ctx, cache, [cache, matrix()], news, [random(7, H, N, seed=4), random(7, H, P, seed=5)])
    assert torch.equal(out[4:], torch.zeros(3, H * V))
    assert out[:4].isfinite().all()


def test_the_cache_holds_one_vector_per_token() -> None:
    spec = CacheSpec(kind=CacheKind.LATENT, head_dim=R + P, dtype=torch.bfloat16)
    assert spec.bytes_per_token == 2 * (R + P)
    (plane,) = slot(3).planes
    assert plane.shape == (3, BLOCK, 1, R + P)
