# SPDX-License-Identifier: Apache-2.0
"""Fused ops with stock torch: fewer intermediate tensors, the same arithmetic."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from tramontane.backends.torch.attention import slots_of
from tramontane.backends.torch.linear import matmul_into
from tramontane.backends.torch.norm import rms_into
from tramontane.backends.torch.pointwise import gate_into, turn
from tramontane.batch import Ctx
from tramontane.ops import Kernel, LinearGated, Op, RotateWrite


def linear_gated(op: Op, weights: Sequence[Any]) -> Kernel | str:
    """Product, then gate; the product's result lives only inside."""
    if not isinstance(op, LinearGated) or op.linear.out_dtype is not None:
        return "made for a linear that keeps its input's type"
    product, gate_up, width = matmul_into(weights, op.linear.bias), gate_into(op.gate.act), op.linear.out_features

    def run(ctx: Ctx | None, inputs: Sequence[Tensor], outputs: Sequence[Tensor]) -> None:
        (x_TI,) = inputs
        both = torch.empty(x_TI.shape[0], width, dtype=x_TI.dtype, device=x_TI.device)
        product(x_TI, both)
        gate, up = both.chunk(2, dim=-1)
        gate_up(gate, up, outputs[0])

    return run


def rotate_write(op: Op, weights: Sequence[Any]) -> Kernel | str:
    """Norms, rotation and cache write in one call."""
    if not isinstance(op, RotateWrite):
        return f"made for rotate_write, not {op.name}"
    cache, interleaved = weights[0], op.rotate.interleaved
    norms = None if op.norm is None else tuple(rms_into(op.norm, weight.tensor) for weight in weights[1:])

    def run(ctx: Ctx | None, inputs: Sequence[Tensor], outputs: Sequence[Tensor]) -> None:
        q, k, v, angles = inputs
        (out,) = outputs
        turned = torch.empty(k.shape, dtype=k.dtype, device=k.device)
        if norms is not None:
            q_normed, k_normed = torch.empty_like(out), torch.empty_like(turned)
            norms[0](q, q_normed)
            norms[1](k, k_normed)
            q, k = q_normed, k_normed
        cos, sin = angles.chunk(2, dim=-1)
        turn(q, cos, sin, out, interleaved=interleaved)
        turn(k, cos, sin, turned, interleaved=interleaved)
        cache.write(slots_of(ctx, cache), turned, v)

    return run
