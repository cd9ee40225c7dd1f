# SPDX-License-Identifier: Apache-2.0
"""Elementwise ops: activations, gates, sums, scales, caps."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from attrs import field, frozen
from torch import Tensor
from torch.nn import functional as F

from tramontane.batch import Ctx
from tramontane.errors import PlanError
from tramontane.ops.base import Meta, Op, op

ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "silu": F.silu,
    "swish": F.silu,
    "gelu": F.gelu,
    "gelu_tanh": lambda x: F.gelu(x, approximate="tanh"),
    "gelu_pytorch_tanh": lambda x: F.gelu(x, approximate="tanh"),
    "gelu_new": lambda x: F.gelu(x, approximate="tanh"),
    "gelu_fast": lambda x: F.gelu(x, approximate="tanh"),
    "relu": F.relu,
    "relu2": lambda x: F.relu(x).square(),
    "sigmoid": torch.sigmoid,
}
"""Activation functions by the names that checkpoints use."""


def known_activation(instance: Op, attribute: Any, value: str) -> None:
    """Validator of fields that name an activation."""
    if value not in ACTIVATIONS:
        raise PlanError(f"unknown activation {value!r}", hint=f"known: {', '.join(sorted(ACTIVATIONS))}")


@frozen
class _Same(Op):
    """An op whose one output looks like its first input."""

    on_device = True

    def outputs(self, weights: Sequence[Any], *inputs: Tensor) -> tuple[Meta, ...]:
        return ((tuple(inputs[0].shape), inputs[0].dtype),)


@op("activate")
@frozen
class Activate(_Same):
    """``act(x)``."""

    act: str = field(validator=known_activation)

    def reference(self, ctx: Ctx | None, weights: Sequence[Any], *inputs: Tensor) -> tuple[Tensor, ...]:
        return (ACTIVATIONS[self.act](inputs[0]),)


@frozen
class Gate(Op):
    """An op over one tensor [..., 2F] that holds gate and up side by side: -> [..., F]."""

    def outputs(self, weights: Sequence[Any], *inputs: Tensor) -> tuple[Meta, ...]:
        (x,) = inputs
        return (((*x.shape[:-1], x.shape[-1] // 2), x.dtype),)


@op("gated_activate")
@frozen
class GatedActivate(Gate):
    """``act(gate) * up``."""

    act: str = field(validator=known_activation)

    def reference(self, ctx: Ctx | None, weights: Sequence[Any], *inputs: Tensor) -> tuple[Tensor, ...]:
        gate, up = inputs[0].chunk(2, dim=-1)
        return (ACTIVATIONS[self.act](gate) * up,)


@op("clamped_swiglu")
@frozen
class ClampedSwiglu(Gate):
    """``g * sigmoid(alpha * g) * (u + 1)`` with ``g = min(gate, limit)`` and ``u`` clamped to +-``limit`` (gpt-oss)."""

    alpha: float
    limit: float

    def reference(self, ctx: Ctx | None, weights: Sequence[Any], *inputs: Tensor) -> tuple[Tensor, ...]:
        gate, up = inputs[0].chunk(2, dim=-1)
        gate, up = gate.clamp(max=self.limit), up.clamp(-self.limit, self.limit)
        return (gate * torch.sigmoid(self.alpha * gate) * (up + 1),)


@op("add")
@frozen
class Add(_Same):
    """``x + y``."""

    def reference(self, ctx: Ctx | None, weights: Sequence[Any], *inputs: Tensor) -> tuple[Tensor, ...]:
        return (inputs[0] + inputs[1],)


@op("multiply")
@frozen
class Multiply(_Same):
    """``x * y``, broadcasting y."""

    def reference(self, ctx: Ctx | None, weights: Sequence[Any], *inputs: Tensor) -> tuple[Tensor, ...]:
        return (inputs[0] * inputs[1],)


@op("scale")
@frozen
class Scale(_Same):
    """``x * factor``."""

    factor: float

    def reference(self, ctx: Ctx | None, weights: Sequence[Any], *inputs: Tensor) -> tuple[Tensor, ...]:
        return (inputs[0] * self.factor,)


@op("softcap")
@frozen
class Softcap(_Same):
    """``cap * tanh(x / cap)`` (Gemma 2)."""

    cap: float

    def reference(self, ctx: Ctx | None, weights: Sequence[Any], *inputs: Tensor) -> tuple[Tensor, ...]:
        return (torch.tanh(inputs[0] / self.cap) * self.cap,)
