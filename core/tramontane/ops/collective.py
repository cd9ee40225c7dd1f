# SPDX-License-Identifier: Apache-2.0
"""Ops of models that several workers share: sums and joins over all of them, and what a worker's part of a vocabulary
or of a set of experts makes of ids that count through the whole.

Every worker runs the same ops in the same order; an op with a group waits until all have come to it.

Legend: T tokens, D hidden size, K experts of a token.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from attrs import frozen
from torch import Tensor

from tramontane.batch import Ctx
from tramontane.ops.base import Meta, Op, op
from tramontane.ops.dense import Embed


@op("all_reduce")
@frozen
class AllReduce(Op):
    """The sum of all workers' tensors, in their type.

    Weight: the :class:`~tramontane.distributed.Group`.
    """

    roles = ("group",)
    on_device = True

    def outputs(self, weights: Sequence[Any], *inputs: Tensor) -> tuple[Meta, ...]:
        (x,) = inputs
        return ((tuple(x.shape), x.dtype),)

    def reference(self, ctx: Ctx | None, weights: Sequence[Any], *inputs: Tensor) -> tuple[Tensor, ...]:
        (x,) = inputs
        return (weights[0].sum(x.clone(memory_format=torch.contiguous_format)),)


@op("all_gather")
@frozen
class AllGather(Op):
    """All workers' tensors side by side along the last axis. ``sizes``: how wide each one's is.

    Weight: the :class:`~tramontane.distributed.Group`.
    """

    sizes: tuple[int, ...]

    roles = ("group",)
    on_device = True

    def outputs(self, weights: Sequence[Any], *inputs: Tensor) -> tuple[Meta, ...]:
        (x,) = inputs
        return (((*x.shape[:-1], sum(self.sizes)), x.dtype),)

    def reference(self, ctx: Ctx | None, weights: Sequence[Any], *inputs: Tensor) -> tuple[Tensor, ...]:
        (x,) = inputs
        # Gathered tensors have one size, so the narrower ones are filled up.
        padded = torch.nn.functional.pad(x, (0, max(self.sizes) - x.shape[-1]))
        gathered = weights[0].gather(padded)
        return (torch.cat([one[..., :size] for one, size in zip(gathered, self.sizes, strict=True)], dim=-1),)


@op("embed_part")
@frozen
class EmbedPart(Op):
    """Rows of a worker's part of the embedding matrix for the step's token ids, zeros for ids of other parts: [T, D].

    ``first`` is the id of the part's first row, ``count`` how many rows it has. Weight: the matrix [count, D].
    """

    whole: Embed
    first: int
    count: int

    roles = ("weight",)
    reads = ("ids_T",)
    on_device = True

    def outputs(self, weights: Sequence[Any], *inputs: Tensor) -> tuple[Meta, ...]:
        return self.whole.outputs(weights, *inputs)

    def reference(self, ctx: Ctx | None, weights: Sequence[Any], *inputs: Tensor) -> tuple[Tensor, ...]:
        local_T = inputs[0] - self.first
        outside_T = (local_T < 0) | (local_T >= self.count)
        (x_TD,) = self.whole.reference(ctx, weights, local_T.clamp(0, self.count - 1))
        return (x_TD.masked_fill(outside_T.unsqueeze(1), 0),)


@op("own_experts")
@frozen
class OwnExperts(Op):
    """A worker's own among each token's experts: (weights [T, K], ids [T, K]) -> the same, counted from its first.

    Experts of other workers become the worker's first one with weight 0.
    """

    first: int
    count: int

    on_device = True

    def outputs(self, weights: Sequence[Any], *inputs: Tensor) -> tuple[Meta, ...]:
        return tuple((tuple(x.shape), x.dtype) for x in inputs)

    def reference(self, ctx: Ctx | None, weights: Sequence[Any], *inputs: Tensor) -> tuple[Tensor, ...]:
        weights_TK, ids_TK = inputs
        local_TK = ids_TK - self.first
        outside_TK = (local_TK < 0) | (local_TK >= self.count)
        return weights_TK.masked_fill(outside_TK, 0), local_TK.masked_fill(outside_TK, 0)
