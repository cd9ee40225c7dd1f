# SPDX-License-Identifier: Apache-2.0
"""A small decoder with random weights on one backend: what tests of tape, ops and backends run."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from attrs import define
from torch import Tensor

from tramontane import nn
from tramontane.backends.base import Backend
from tramontane.batch import Ctx
from tramontane.build import Blueprint, Builder
from tramontane.cache.spec import plan_layout
from tramontane.config import RopeConfig
from tramontane.ops import Runtime, TakeRows
from tramontane.runner import run_body
from tramontane.schemes import Dense, Scheme
from tramontane.tape.capture import synthetic_batch
from tramontane.tape.symbols import Extent

BLOCK = 16
Between = Callable[[Tensor, Ctx], Tensor]


class Block(nn.Module):
    """A pre-norm block; ``between`` is code of the model's own between attention and feed-forward."""

    def __init__(self, b: Builder, between: Between | None, window: int | None) -> None:
        heads = nn.Heads(4, 2, 16)
        self.attn_norm = b.rms_norm("attn_norm", 64, 1e-5)
        self.attn = b.attention("attn", 64, heads, rope=RopeConfig(), qk_norm=1e-5, window=window)
        self.mlp_norm = b.rms_norm("mlp_norm", 64, 1e-5)
        self.mlp = b.gated_mlp("mlp", 64, 96, act="silu")
        self.between = between

    def forward(self, x: Tensor, residual: Tensor | None, ctx: Ctx) -> tuple[Tensor, Tensor]:
        h, residual = self.attn_norm(x, residual)
        h = self.attn(h, ctx)
        if self.between is not None:
            h = self.between(h, ctx)
        h, residual = self.mlp_norm(h, residual)
        return self.mlp(h), residual


@define(eq=False)
class Tiny:
    """The decoder, bound and with a cache."""

    model: Any
    blueprint: Blueprint
    backend: Backend
    take: Any

    def body(self, ctx: Ctx) -> Tensor:
        """What is captured."""
        return run_body(self.model, self.take, ctx)


def make_tiny(
    backend: Backend,
    between: Between | None = None,
    *,
    window: int | None = None,
    dtype: torch.dtype = torch.float32,
    scheme_of: Callable[[str], Scheme] | None = None,
) -> Tiny:
    """Two layers, 64 wide, 50 words; the same weights every time. ``scheme_of`` says how a part is stored, by path."""
    blueprint = Blueprint(Runtime(backend.device), dtype, dtype, max_positions=256)
    b = Builder(blueprint)
    embedding = b.embedding("embed", 50, 64)
    blocks = [Block(b.at(f"layers.{i}"), between, window) for i in range(2)]
    model = nn.Decoder(embedding, blocks, b.rms_norm("norm", 64, 1e-5), b.head("head", 64, 50, tied=embedding))
    take = b.op(TakeRows())
    generator = torch.Generator().manual_seed(3)
    for matrix in blueprint.matrices.values():
        chosen = scheme_of or (lambda path: Dense(dtype))
        matrix.schemes = tuple(chosen(part.path) for part in matrix.parts)
        matrix.stored = backend.store(matrix, dtype)
        for index, part in enumerate(matrix.parts):
            weight = torch.randn(part.out_features, matrix.in_features, generator=generator, device="cpu") * 0.15
            matrix.stored.fill(index, matrix.schemes[index].quantize(weight))
    for param in blueprint.params.values():
        param.value = (1 + 0.1 * torch.randn(param.shape, generator=generator, device="cpu")).to(backend.device, dtype)
    for constant in blueprint.constants.values():
        constant.value = constant.make().to(backend.device)
    layout = plan_layout({name: slot.spec for name, slot in blueprint.caches.items()}, BLOCK)
    backend.make_cache(layout, list(blueprint.caches.values()), 64)
    for bound in blueprint.ops:
        bound.bind(backend.candidates(bound.op))
    return Tiny(model, blueprint, backend, take)


def make_batch(tokens: int, outputs: int, rows: int) -> Ctx:
    """Fresh rows with blocks of their own, out of order, and different ids."""
    ctx = synthetic_batch(Extent(tokens, outputs), rows, [BLOCK], torch.get_default_device())
    width = ctx.groups[0].table_RB.shape[1]
    table = torch.arange(1, 1 + rows * width).flip(0).view(rows, width).to(torch.int32)
    ctx.groups[0].table_RB.copy_(table)
    position_T = ctx.positions_KT[0]
    ctx.groups[0].slot_T.copy_(table[ctx.seq_of_T.long(), position_T // BLOCK].long() * BLOCK + position_T % BLOCK)
    ctx.ids_T.copy_(torch.arange(tokens) * 7 % 50)
    if ctx.host is not None:
        ctx.host.tables[0] = table.tolist()
    return ctx
