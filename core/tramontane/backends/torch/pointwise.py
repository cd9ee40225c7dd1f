# SPDX-License-Identifier: Apache-2.0
"""Elementwise ops and rotation with stock torch, written into given outputs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from tramontane.batch import Ctx
from tramontane.ops import ACTIVATIONS, GatedActivate, Kernel, Op, RopeAngles, Rotate, Scale, Softcap


def gate_into(act: str) -> Callable[[Tensor, Tensor, Tensor], None]:
    """``f(gate, up, out)``: ``act(gate) * up``."""
    if act in ("silu", "swish"):

        def silu(gate: Tensor, up: Tensor, out: Tensor) -> None:
            torch.ops.aten.silu.out(gate, out=out)
            out.mul_(up)

        return silu
    function = ACTIVATIONS[act]

    def other(gate: Tensor, up: Tensor, out: Tensor) -> None:
        torch.mul(function(gate), up, out=out)

    return other


def gated_activate(op: Op, weights: Sequence[Any]) -> Kernel | str:
    """``act(gate) * up``."""
    if not isinstance(op, GatedActivate):
        return f"made for gated_activate, not {op.name}"
    gate_up = gate_into(op.act)

    def run(ctx: Ctx | None, inputs: Sequence[Tensor], outputs: Sequence[Tensor]) -> None:
        gate, up = inputs[0].chunk(2, dim=-1)
        gate_up(gate, up, outputs[0])

    return run


def add(op: Op, weights: Sequence[Any]) -> Kernel | str:
    """``x + y``."""

    def run(ctx: Ctx | None, inputs: Sequence[Tensor], outputs: Sequence[Tensor]) -> None:
        torch.add(inputs[0], inputs[1], out=outputs[0])

    return run


def multiply(op: Op, weights: Sequence[Any]) -> Kernel | str:
    """``x * y``."""

    def run(ctx: Ctx | None, inputs: Sequence[Tensor], outputs: Sequence[Tensor]) -> None:
        torch.mul(inputs[0], inputs[1], out=outputs[0])

    return run


def scale(op: Op, weights: Sequence[Any]) -> Kernel | str:
    """``x * factor``."""
    if not isinstance(op, Scale):
        return f"made for scale, not {op.name}"
    factor = op.factor

    def run(ctx: Ctx | None, inputs: Sequence[Tensor], outputs: Sequence[Tensor]) -> None:
        torch.mul(inputs[0], factor, out=outputs[0])

    return run


def softcap(op: Op, weights: Sequence[Any]) -> Kernel | str:
    """``cap * tanh(x / cap)``."""
    if not isinstance(op, Softcap):
        return f"made for softcap, not {op.name}"
    cap = op.cap

    def run(ctx: Ctx | None, inputs: Sequence[Tensor], outputs: Sequence[Tensor]) -> None:
        torch.div(inputs[0], cap, out=outputs[0])
        outputs[0].tanh_().mul_(cap)

    return run


def rope_angles(op: Op, weights: Sequence[Any]) -> Kernel | str:
    """Rows of the table."""
    if not isinstance(op, RopeAngles) or op.sections is not None:
        return "made for one position stream"
    table = weights[0].tensor

    def run(ctx: Ctx | None, inputs: Sequence[Tensor], outputs: Sequence[Tensor]) -> None:
        torch.index_select(table, 0, inputs[0][0], out=outputs[0])

    return run


def turn(x_THD: Tensor, cos_TP: Tensor, sin_TP: Tensor, out_THD: Tensor, *, interleaved: bool) -> None:
    """Rotate heads into ``out_THD``."""
    pairs = cos_TP.shape[-1]
    cos, sin = cos_TP.unsqueeze(1), sin_TP.unsqueeze(1)
    if interleaved:
        a, b = x_THD[..., 0 : 2 * pairs : 2], x_THD[..., 1 : 2 * pairs : 2]
        out_a, out_b = out_THD[..., 0 : 2 * pairs : 2], out_THD[..., 1 : 2 * pairs : 2]
    else:
        a, b = x_THD[..., :pairs], x_THD[..., pairs : 2 * pairs]
        out_a, out_b = out_THD[..., :pairs], out_THD[..., pairs : 2 * pairs]
    # bfloat16 times float32 promotes, so the products are float32 and are rounded once, on the way out.
    out_a.copy_(torch.addcmul(a * cos, b.float(), sin, value=-1))
    out_b.copy_(torch.addcmul(b * cos, a.float(), sin))
    if 2 * pairs < x_THD.shape[-1]:
        out_THD[..., 2 * pairs :].copy_(x_THD[..., 2 * pairs :])


def rotate(op: Op, weights: Sequence[Any]) -> Kernel | str:
    """Rotate queries and keys."""
    if not isinstance(op, Rotate):
        return f"made for rotate, not {op.name}"
    interleaved = op.interleaved

    def run(ctx: Ctx | None, inputs: Sequence[Tensor], outputs: Sequence[Tensor]) -> None:
        cos, sin = inputs[2].chunk(2, dim=-1)
        turn(inputs[0], cos, sin, outputs[0], interleaved=interleaved)
        turn(inputs[1], cos, sin, outputs[1], interleaved=interleaved)

    return run
