# SPDX-License-Identifier: Apache-2.0
"""Normalizations, with and without the residual add that precedes them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from attrs import frozen
from torch import Tensor
from torch.nn import functional as F

from tramontane.batch import Ctx
from tramontane.ops.base import Meta, Op, op


def rms(x: Tensor, weight: Tensor | None, eps: float, *, late_cast: bool) -> Tensor:
    """Root-mean-square norm over the last axis in float32 (Zhang and Sennrich, 2019).

    ``late_cast`` multiplies by the weight before rounding to the input's type (Gemma, OLMo); otherwise the normalized
    value is rounded first (Llama).
    """
    wide = x.float()
    wide = wide * (wide.square().mean(-1, keepdim=True) + eps).rsqrt()
    if weight is None:
        return wide.to(x.dtype)
    return (wide * weight.float()).to(x.dtype) if late_cast else weight * wide.to(x.dtype)


@op("rms_norm")
@frozen
class RmsNorm(Op):
    """RMS norm over the last axis: [..., D] -> [..., D]. With ``scaled=False`` there is no weight."""

    eps: float
    late_cast: bool = False
    scaled: bool = True

    roles = ("weight",)

    def outputs(self, weights: Sequence[Any], *inputs: Tensor) -> tuple[Meta, ...]:
        (x,) = inputs
        return ((tuple(x.shape), x.dtype),)

    def reference(self, ctx: Ctx | None, weights: Sequence[Any], *inputs: Tensor) -> tuple[Tensor, ...]:
        weight = weights[0].tensor if self.scaled else None
        return (rms(inputs[0], weight, self.eps, late_cast=self.late_cast),)


@op("add_rms_norm")
@frozen
class AddRmsNorm(Op):
    """``s = x + residual; y = rms_norm(s)``: returns (y, s). The sum is rounded to the activations' type first."""

    eps: float
    late_cast: bool = False

    roles = ("weight",)

    def outputs(self, weights: Sequence[Any], *inputs: Tensor) -> tuple[Meta, ...]:
        x, _ = inputs
        meta = (tuple(x.shape), x.dtype)
        return (meta, meta)

    def reference(self, ctx: Ctx | None, weights: Sequence[Any], *inputs: Tensor) -> tuple[Tensor, ...]:
        x, residual = inputs
        total = x + residual
        return (rms(total, weights[0].tensor, self.eps, late_cast=self.late_cast), total)


@op("layer_norm")
@frozen
class LayerNorm(Op):
    """Layer norm over the last axis, with optional shift (Ba et al., 2016). Computed in float32, rounded once.

    Weights [D], or [H, D] for an input [..., H, D]: as many norms as there are heads.
    """

    eps: float
    bias: bool = True

    roles = ("weight", "bias")

    def outputs(self, weights: Sequence[Any], *inputs: Tensor) -> tuple[Meta, ...]:
        (x,) = inputs
        return ((tuple(x.shape), x.dtype),)

    def reference(self, ctx: Ctx | None, weights: Sequence[Any], *inputs: Tensor) -> tuple[Tensor, ...]:
        (x,) = inputs
        y = F.layer_norm(x.float(), x.shape[-1:], eps=self.eps) * weights[0].tensor.float()
        return ((y + weights[1].tensor.float() if self.bias else y).to(x.dtype),)
