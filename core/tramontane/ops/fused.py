# SPDX-License-Identifier: Apache-2.0
"""Ops that no model asks for: rewrite rules on the tape put them in place of sequences they equal.

Each reference is the sequence itself, so that a fused kernel is held against the same definition.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from attrs import frozen
from torch import Tensor

from tramontane.batch import Ctx
from tramontane.ops.attention import CacheWrite
from tramontane.ops.base import Meta, Op, op
from tramontane.ops.dense import Linear
from tramontane.ops.norm import RmsNorm
from tramontane.ops.pointwise import GatedActivate
from tramontane.ops.rotary import Rotate


@op("linear_gated")
@frozen
class LinearGated(Op):
    """``gated_activate(linear(x))``: [T, I] -> [T, O / 2]. Weights as the linear's."""

    linear: Linear
    gate: GatedActivate

    roles = ("weight", "bias")

    def outputs(self, weights: Sequence[Any], *inputs: Tensor) -> tuple[Meta, ...]:
        ((shape, dtype),) = self.linear.outputs(weights, *inputs)
        return (((*shape[:-1], shape[-1] // 2), dtype),)

    def reference(self, ctx: Ctx | None, weights: Sequence[Any], *inputs: Tensor) -> tuple[Tensor, ...]:
        return self.gate.reference(ctx, (), *self.linear.reference(ctx, weights, *inputs))


@op("rotate_write")
@frozen
class RotateWrite(Op):
    """Norms of q and k if any, rotation, cache write: (q, k, v, angles) -> rotated q.

    Weights: the cache slot, then the two norm weights where ``norm`` is set.
    """

    rotate: Rotate
    norm: RmsNorm | None = None

    roles = ("cache", "q_norm", "k_norm")
    reads = ("groups",)
    effect = True

    def outputs(self, weights: Sequence[Any], *inputs: Tensor) -> tuple[Meta, ...]:
        return ((tuple(inputs[0].shape), inputs[0].dtype),)

    def reference(self, ctx: Ctx | None, weights: Sequence[Any], *inputs: Tensor) -> tuple[Tensor, ...]:
        q, k, v, angles = inputs
        if self.norm is not None:
            (q,) = self.norm.reference(ctx, (weights[1],), q)
            (k,) = self.norm.reference(ctx, (weights[2],), k)
        q, k = self.rotate.reference(ctx, (), q, k, angles)
        CacheWrite().reference(ctx, weights[:1], k, v)
        return (q,)
